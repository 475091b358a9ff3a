"""Files on other machines: `s3://` (public buckets, without credentials), `http(s)://`; and local ones.

All through fsspec. `describe` says what a file is, `read_bytes` reads a range of it, `list_files` lists a
folder; `dataloader.downloads` stores whole files.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from common.errors import UserError

_TRIES, _PAUSE = 3, 0.5  # for connections that break; seconds, doubled each time
_TIMEOUT = 60  # seconds without an answer
_HEADERS = {"Accept-Encoding": "identity"}  # ranges count the bytes of the file, not of a zipped one
_S3_OPTIONS = {"connect_timeout": 10, "read_timeout": _TIMEOUT, "retries": {"max_attempts": 2}}


@dataclass(frozen=True)
class RemoteFile:
    """What is known of a file before it is read.

    size: bytes, None where the server does not say. etag, modified: what changes when the file does; empty
    where the server does not say. ranges: whether parts of it can be asked for.
    """

    url: str
    size: int | None
    etag: str = ""
    modified: str = ""
    ranges: bool = True
    endpoint_url: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Equal for as long as the file is the same; see `is_traceable`."""
        return {"url": self.url, "size": self.size, "etag": self.etag, "modified": self.modified}

    @property
    def is_traceable(self) -> bool:
        """Whether a change of the file would show in its `identity`."""
        return self.size is not None and bool(self.etag or self.modified)


def is_remote(place: str) -> bool:
    """Whether a place is on another machine, not a path."""
    return urlsplit(place).scheme in ("s3", "http", "https")


def describe(url: str, endpoint_url: str | None = None) -> RemoteFile:
    """Ask what a file is, without reading it.

    endpoint_url: an S3 server other than Amazon's; None takes $AWS_ENDPOINT_URL, if set. Raises UserError
    when it is absent, a folder, closed to the public or out of reach.
    """
    endpoint_url = endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
    system = _system(url, endpoint_url)
    if urlsplit(url).scheme in ("http", "https"):
        return _describe_web(url)
    with _told(url):
        info = system.info(url)
    if info["type"] != "file":
        raise UserError(f"{url} is a folder: name a file in it")
    etag = str(info.get("ETag", "")).strip('"')
    modified = str(info.get("LastModified") or info.get("mtime") or "")
    return RemoteFile(url, info["size"], etag, modified, True, endpoint_url)


def _describe_web(url: str) -> RemoteFile:
    """What a web server says of a file, asked for its first byte: only so does it show if it knows ranges."""
    request = urllib.request.Request(url, headers={"Range": "bytes=0-0", **_HEADERS})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            status, headers = answer.status, answer.headers
    except urllib.error.HTTPError as error:
        status, headers = error.code, error.headers
        error.close()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{url} {_reason(getattr(error, 'reason', error))}") from None
    whole = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
    if status not in (200, 206) and not (status == 416 and whole and whole[1] == "0"):  # an empty file
        raise UserError(f"{url} {_status_reason(status)}")
    length = whole[1] if whole else headers.get("Content-Length") if status == 200 else None
    etag = headers.get("ETag", "").strip('"')
    size = None if length is None else int(length)
    return RemoteFile(url, size, etag, headers.get("Last-Modified", ""), status != 200)


def read_bytes(file: RemoteFile, start: int, stop: int) -> bytes:
    """Bytes `start` (inclusive) to `stop` (exclusive) of a file of known size that allows ranges.

    A connection that breaks is tried again. Raises UserError when the bytes cannot be had, or are too few.
    """
    system = _system(file.url, file.endpoint_url)
    with _told(file.url):
        data = _persistently(lambda: system.cat_file(file.url, start=start, end=stop))
    if len(data) != stop - start:
        raise UserError(f"{file.url} sent {len(data)} bytes where {stop - start} were asked for: try again")
    return data


def stream_bytes(file: RemoteFile, block: int) -> Iterator[bytes]:
    """The whole file from its start, in pieces of at most `block` bytes, from a server without ranges."""
    system = _system(file.url, file.endpoint_url)
    with _told(file.url), system.open(file.url, block_size=0) as opened:
        while data := opened.read(block):
            yield data


def list_files(url: str, endpoint_url: str | None = None) -> list[str]:
    """Addresses of the files below an `s3://` folder, sorted. Raises UserError when there is none."""
    system = _system(url, endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))
    with _told(url):
        found = system.find(url)
    if not found:
        raise UserError(f"{url} holds no file: check the address")
    return sorted(f"s3://{name}" for name in found if not name.endswith("/"))


def first_part_size(file: RemoteFile) -> int | None:
    """Bytes of the first part of an S3 object that was uploaded in parts; None where the server hides it."""
    bucket, _, key = file.url.removeprefix("s3://").partition("/")
    system = _system(file.url, file.endpoint_url)
    with _told(file.url):
        try:
            head = system.call_s3("head_object", Bucket=bucket, Key=key, PartNumber=1)
        except (FileNotFoundError, PermissionError, NotImplementedError):
            return None
    return head["ContentLength"] if head.get("PartsCount", 0) > 1 else None


def _system(url: str, endpoint_url: str | None) -> Any:
    scheme = urlsplit(url).scheme
    if scheme not in ("s3", "http", "https", "file", ""):
        raise UserError(f"{url}: addresses start with s3://, http://, https:// or file://, or are paths")
    return _open_system({"https": "http", "": "file"}.get(scheme, scheme), endpoint_url)


@lru_cache
def _open_system(kind: str, endpoint_url: str | None) -> Any:
    """One connection per kind and server; nothing is remembered of listings."""
    import fsspec

    if kind == "s3":
        return fsspec.filesystem(
            "s3",
            anon=True,
            endpoint_url=endpoint_url,
            config_kwargs=_S3_OPTIONS,
            use_listings_cache=False,
            skip_instance_cache=True,
        )
    if kind == "http":
        return fsspec.filesystem("http", client_kwargs={"headers": _HEADERS}, skip_instance_cache=True)
    return fsspec.filesystem("file")


def _persistently(read: Any) -> bytes:
    """Call until it succeeds or has failed `_TRIES` times for a broken connection."""
    import aiohttp

    broken = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, TimeoutError)
    for attempt in range(_TRIES - 1):
        try:
            return read()
        except broken:
            time.sleep(_PAUSE * 2**attempt)
    return read()


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Turn what the libraries raise into one sentence."""
    import aiohttp
    import botocore.exceptions

    try:
        yield
    except (OSError, aiohttp.ClientError, botocore.exceptions.BotoCoreError) as raised:
        # fsspec calls most of what goes wrong with http 'not found', and keeps the truth as its cause
        error = raised.__cause__ if isinstance(raised.__cause__, aiohttp.ClientError) else raised
        status = getattr(error, "status", None)
        raise UserError(f"{url} {_status_reason(status) if status else _reason(error)}") from None


def _reason(error: BaseException | str) -> str:
    if isinstance(error, PermissionError):
        return _status_reason(403)
    if isinstance(error, FileNotFoundError):
        return _status_reason(404)
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"cannot be reached ({reason}): check the network, and run again to continue"


def _status_reason(status: int) -> str:
    if status in (401, 403):
        return f"is closed to the public, or does not exist (access denied, {status})"
    if status in (404, 410):
        return "does not exist (404): check the address"
    return f"cannot be read (status {status}): try again later"
