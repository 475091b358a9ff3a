"""Servers on loopback that files are fetched from: an S3 server, and web servers with and without ranges."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = "public"


@dataclass
class Bucket:
    """A bucket anyone may read, and a client that may write."""

    url: str
    client: Any

    def put(self, key: str, data: bytes) -> str:
        """Store an object whose ETag is its MD5; returns its address."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def put_parts(self, key: str, data: bytes, part: int) -> str:
        """Store an object in parts, as large files are; returns its address."""
        where = {"Bucket": BUCKET, "Key": key}
        upload = {**where, "UploadId": self.client.create_multipart_upload(**where)["UploadId"]}
        parts = []
        for number, start in enumerate(range(0, len(data), part), start=1):
            body = data[start : start + part]
            etag = self.client.upload_part(**upload, PartNumber=number, Body=body)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        return f"s3://{BUCKET}/{key}"


@contextmanager
def s3_server(monkeypatch: Any) -> Iterator[Bucket]:
    import boto3
    from moto.server import ThreadedMotoServer

    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=url, aws_access_key_id="writer", aws_secret_access_key="secret")
    client.create_bucket(Bucket=BUCKET, ACL="public-read")
    try:
        yield Bucket(url, client)
    finally:
        server.stop()


@dataclass
class Site:
    """A web server's files and manners.

    asked: the ranges it served, as (first, last) bytes. cut: bytes it leaves out at the end of each answer,
    whose full length it announces. headers: sent with each answer.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str = "one"
    cut: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    etag_by_content: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    url: str = ""


@contextmanager
def web_server(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            if self.path.startswith("/closed"):
                self.send_error(403)
                return
            path = self.path.partition("?")[0]
            if path not in site.files:
                self.send_error(404)
                return
            data = site.files[path]
            etag = hashlib.sha256(data).hexdigest() if site.etag_by_content else site.etag
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked and site.ranges and not data:
                self.send_response(416)
                self.send_header("Content-Range", "bytes */0")
                data = b""
            elif asked and site.ranges:
                first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
                site.asked.append((first, last))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
                data = data[first : last + 1]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{etag}"')
            for name, value in site.headers.items():
                self.send_header(name, value)
            if site.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) - site.cut])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
