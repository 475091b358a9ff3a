"""Whole files, fetched so that they can be trusted: continued after a break, checked, never half-written.

While a file `NAME` is fetched it is `NAME.partial`, with `NAME.partial.json` saying of what; `NAME` appears
when it is complete and its checks hold. Beside it stays `NAME.sha256`, in the format of `sha256sum`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import UserError
from common.files import replacing
from dataloader.remote import RemoteFile, describe, first_part_size, is_remote, read_bytes, stream_bytes

logger = logging.getLogger(__name__)

_BLOCK = 16 * 2**20  # bytes asked for at once
_MEBIBYTE = 2**20
_PART_SIZES = (5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256, 512, 1024)  # MiB, what uploaders use

Report = Callable[[int, int | None], None]  # bytes there, bytes in all


@dataclass
class Fetched:
    """A file that is there. check: how its bytes were checked; new: whether it was fetched now."""

    path: Path
    size: int
    check: str
    new: bool = True


def fetch(
    url: str,
    path: Path,
    endpoint_url: str | None = None,
    report: Report | None = None,
    overwrite: bool = False,
    block: int = _BLOCK,
) -> Fetched:
    """Store a file (`s3://`, `http(s)://`, `file://` or a path) as `path`, going on where an earlier call
    stopped.

    A file of the right size with its `.sha256` is taken to be there, unless `overwrite`. Another process that
    fetches the same file is waited for. Raises UserError when the file cannot be had or written, when another
    file lies at `path`, and when its bytes are not those that the server describes.
    """
    remote = describe(url, endpoint_url)
    with _writing(path), _only_one(_partial(path)):
        there = None if overwrite else _already(remote, path)
        if there is not None:
            return there
        _check_space(remote, path)
        with _partial(path).open("r+b") as file:
            _receive(remote, file, path, report, block)
        check, sha256 = _check(remote, _partial(path), endpoint_url)
        _write_manifest(path, sha256)
        os.replace(_partial(path), path)
        _note(path).unlink(missing_ok=True)
    return Fetched(path, path.stat().st_size, check)


def cached_file(url: str, cache_dir: Path, endpoint_url: str | None = None) -> Path:
    """A local copy of a remote file, fetched at its first use into `cache_dir`; a path is returned as it is.

    The copy is not compared with the remote file later: empty the folder when that changes. Raises UserError
    as `fetch`.
    """
    if not is_remote(url):
        return Path(url.removeprefix("file://"))
    address = hashlib.sha256(f"{endpoint_url or ''} {url}".encode()).hexdigest()[:16]
    path = cache_dir / address / url.rsplit("/", 1)[-1]
    return path if path.is_file() else fetch(url, path, endpoint_url).path


def verify(path: Path) -> None:
    """Compare a file with its `.sha256`. Raises UserError when they differ or either is missing."""
    manifest = _manifest(path)
    for needed in (path, manifest):
        if not needed.is_file():
            raise UserError(f"{needed} does not exist: fetch {path.name} first")
    recorded = manifest.read_text().split(maxsplit=1)[:1]
    if [_digests(path)[1]] != recorded:
        raise UserError(f"{path} is not what was fetched (SHA-256 differs): fetch it again with --overwrite")


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.json")


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _write_manifest(path: Path, sha256: str) -> None:
    with replacing(_manifest(path)) as partial:
        partial.write_text(f"{sha256}  {path.name}\n")


def _already(remote: RemoteFile, path: Path) -> Fetched | None:
    """The file at `path`, if it is this one. Raises UserError when it is another."""
    if not path.exists():
        return None
    size = path.stat().st_size
    if not path.is_file() or remote.size not in (None, size) or not _manifest(path).is_file():
        raise UserError(f"{path} exists and was not fetched from {remote.url}: move it, or pass --overwrite")
    return Fetched(path, size, "already there", new=False)


def _receive(remote: RemoteFile, file: BinaryIO, path: Path, report: Report | None, block: int) -> None:
    """Append to the partial file what it lacks."""
    done = _kept(remote, file, path)
    with replacing(_note(path)) as note:
        note.write_text(json.dumps(remote.identity))
    file.truncate(done)
    file.seek(done)
    for data in _blocks(remote, done, block):
        if report is not None:
            report(done, remote.size)
        file.write(data)
        done += len(data)
    if report is not None:
        report(done, remote.size)
    file.flush()
    os.fsync(file.fileno())
    if remote.size not in (None, done):
        raise UserError(f"{remote.url} ended after {done} of {remote.size} bytes: run again to continue")


def _blocks(remote: RemoteFile, start: int, block: int) -> Iterator[bytes]:
    if remote.size is None or not remote.ranges:
        yield from stream_bytes(remote, block)
        return
    for first in range(start, remote.size, block):
        yield read_bytes(remote, first, min(first + block, remote.size))


def _kept(remote: RemoteFile, file: BinaryIO, path: Path) -> int:
    """How many bytes of an earlier call can be kept."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    same = _read_note(path) == remote.identity and remote.is_traceable and remote.ranges
    if not same or size > (remote.size or 0):
        logger.info("%s changed, or cannot be continued: starting again", remote.url)
        return 0
    logger.info("%s: continuing after %.1f MB", remote.url, size / 1e6)
    return size


def _read_note(path: Path) -> Any:
    """What the partial file is of; None when that is lost."""
    try:
        return json.loads(_note(path).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _check(remote: RemoteFile, path: Path, endpoint_url: str | None) -> tuple[str, str]:
    """How the bytes were checked, and their SHA-256. Raises UserError when they are wrong, and drops them."""
    if describe(remote.url, endpoint_url).identity != remote.identity:
        path.unlink()
        raise UserError(f"{remote.url} changed while it was read: run again")
    hashed, sha256 = _compare_etag(remote, path)
    if hashed is False:
        path.unlink()
        raise UserError(f"{path.name} differs from {remote.url} (checksum): it is removed, run again")
    return ("size and MD5" if hashed else "size" if remote.size is not None else "nothing"), sha256


def _compare_etag(remote: RemoteFile, path: Path) -> tuple[bool | None, str]:
    """Whether the bytes have the ETag that S3 gives them, None where it is no checksum; and their SHA-256."""
    matched = re.fullmatch(r"([0-9a-f]{32})(?:-(\d+))?", remote.etag)
    if matched is None or not remote.url.startswith("s3://") or remote.size is None:
        return None, _digests(path)[1]
    if matched[2] is None:
        etag, sha256 = _digests(path)
        return etag == remote.etag, sha256
    count = int(matched[2])
    told = first_part_size(remote)
    sure = told is not None and -(-remote.size // told) == count  # otherwise the parts differ in size
    sha256 = ""
    for part in [told] if sure else _possible_parts(remote.size, count):
        etag, sha256 = _digests(path, part)
        if etag == remote.etag:
            return True, sha256
    return (False if sure else None), sha256 or _digests(path)[1]


def _possible_parts(size: int, count: int) -> list[int]:
    """Usual part sizes in bytes that cut `size` bytes into `count` parts."""
    sizes = [mebibytes * _MEBIBYTE for mebibytes in _PART_SIZES]
    return [part for part in sizes if -(-size // part) == count]


def _digests(path: Path, part: int | None = None) -> tuple[str, str]:
    """(S3's ETag, SHA-256) of a file: the ETag is its MD5, or with parts the MD5 of the parts' MD5s."""
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        while True:
            md5, read = hashlib.md5(usedforsecurity=False), 0
            while (part is None or read < part) and (
                data := file.read(_MEBIBYTE if part is None else min(_MEBIBYTE, part - read))
            ):
                md5.update(data)
                whole.update(data)
                read += len(data)
            if part is None:
                return md5.hexdigest(), whole.hexdigest()
            if not read:
                break
            parts.append(md5.digest())
    etag = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return f"{etag}-{len(parts)}", whole.hexdigest()


def _check_space(remote: RemoteFile, path: Path) -> None:
    needed = (remote.size or 0) - _partial(path).stat().st_size
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"{path} needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: choose another disk"
        )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder, and turn what the disk refuses into one sentence."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}): choose another place") from None


@contextmanager
def _only_one(partial: Path) -> Iterator[None]:
    """Hold the partial file, made if need be, against other processes; wait for one that has it."""
    while True:
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not partial.exists() or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                continue  # the other process made it the file
            try:
                yield
            finally:
                if partial.exists() and not partial.stat().st_size:
                    partial.unlink()
            return
