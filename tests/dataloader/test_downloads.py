"""Whole files from servers on loopback: broken off and continued, changed, corrupt, in parts."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.downloads import cached_file, fetch, verify
from dataloader.remote import describe, first_part_size
from tests.dataloader.servers import Bucket, Site, s3_server, web_server

DATA = np.random.default_rng(0).bytes(100_000)
OTHER = np.random.default_rng(1).bytes(100_000)
BLOCK = 10_000
PART = 5 * 2**20  # the smallest that S3 allows


class _BrokenError(Exception):
    pass


def _break_off(done: int, total: int | None) -> None:
    if done >= 50_000:
        raise _BrokenError


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as served:
        yield served


@pytest.fixture
def site() -> Iterator[Site]:
    with web_server(Site(files={"/data.bin": DATA})) as served:
        yield served


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_object_is_fetched_and_checked(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.bin"
    seen: list[tuple[int, int | None]] = []
    address = bucket.put("data.bin", DATA)
    done = fetch(address, path, bucket.url, lambda *state: seen.append(state), block=BLOCK)
    assert path.read_bytes() == DATA
    assert (done.size, done.check, done.new) == (100_000, "size and MD5", True)
    assert seen == [(n, 100_000) for n in range(0, 100_001, BLOCK)]
    assert _names(path.parent) == {"data.bin", "data.bin.sha256"}
    verify(path)
    again = fetch(address, path, bucket.url)
    assert not again.new
    assert _names(path.parent) == {"data.bin", "data.bin.sha256"}


def test_a_broken_off_download_continues(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    with pytest.raises(_BrokenError):
        fetch(f"{site.url}/data.bin", path, report=_break_off, block=BLOCK)
    assert _names(tmp_path) == {"data.bin.partial", "data.bin.partial.json"}
    kept = (tmp_path / "data.bin.partial").stat().st_size
    assert 0 < kept <= 50_000
    site.asked.clear()
    assert fetch(f"{site.url}/data.bin", path, block=BLOCK).check == "size"
    assert path.read_bytes() == DATA
    assert min(first for first, last in site.asked if last) == kept
    assert _names(tmp_path) == {"data.bin", "data.bin.sha256"}


def test_a_truncated_partial_file_continues(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    address = bucket.put("data.bin", DATA)
    with pytest.raises(_BrokenError):
        fetch(address, path, bucket.url, _break_off, block=BLOCK)
    partial = tmp_path / "data.bin.partial"
    partial.write_bytes(partial.read_bytes()[:12_345])
    seen: list[int] = []
    fetch(address, path, bucket.url, lambda done, _: seen.append(done), block=BLOCK)
    assert seen[0] == 12_345
    assert path.read_bytes() == DATA


def test_a_changed_file_starts_again(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    address = bucket.put("changing.bin", DATA)
    with pytest.raises(_BrokenError):
        fetch(address, path, bucket.url, _break_off, block=BLOCK)
    bucket.put("changing.bin", OTHER)
    fetch(address, path, bucket.url, block=BLOCK)
    assert path.read_bytes() == OTHER


def test_a_file_that_changes_meanwhile_is_refused(site: Site, tmp_path: Path) -> None:
    def change(done: int, total: int | None) -> None:
        site.etag = "two"

    with pytest.raises(UserError, match="changed while it was read"):
        fetch(f"{site.url}/data.bin", tmp_path / "data.bin", report=change)
    assert not (tmp_path / "data.bin").exists()


def test_corrupt_bytes_are_found_and_dropped(bucket: Bucket, tmp_path: Path) -> None:
    path, partial = tmp_path / "data.bin", tmp_path / "data.bin.partial"
    address = bucket.put("data.bin", DATA)
    with pytest.raises(_BrokenError):
        fetch(address, path, bucket.url, _break_off, block=BLOCK)
    partial.write_bytes(b"?" + partial.read_bytes()[1:])
    with pytest.raises(UserError, match=r"differs .* \(checksum\)"):
        fetch(address, path, bucket.url, block=BLOCK)
    assert not path.exists()
    assert not partial.exists()
    fetch(address, path, bucket.url, block=BLOCK)
    assert path.read_bytes() == DATA


def test_objects_in_parts_are_checked(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = DATA * 60  # 6 MB: two parts
    address = bucket.put_parts("large.bin", large, PART)
    remote = describe(address, bucket.url)
    assert remote.etag.endswith("-2")
    path = tmp_path / "told.bin"
    assert fetch(address, path, bucket.url).check == "size and MD5"
    assert path.read_bytes() == large
    assert first_part_size(remote) in (None, PART)
    monkeypatch.setattr("dataloader.downloads.first_part_size", lambda remote: None)
    assert fetch(address, tmp_path / "guessed.bin", bucket.url).check == "size and MD5"
    monkeypatch.setattr("dataloader.downloads._PART_SIZES", (7,))
    assert fetch(address, tmp_path / "unknown.bin", bucket.url).check == "size"
    monkeypatch.setattr("dataloader.downloads.first_part_size", lambda remote: PART // 2)
    assert fetch(address, tmp_path / "uneven.bin", bucket.url).check == "size"
    monkeypatch.setattr("dataloader.downloads.first_part_size", lambda remote: PART + 1)
    with pytest.raises(UserError, match="checksum"):
        fetch(address, tmp_path / "corrupt.bin", bucket.url)


def test_a_server_without_ranges(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    with web_server(Site(files={"/data.bin": DATA}, ranges=False)) as site:
        with pytest.raises(_BrokenError):
            fetch(f"{site.url}/data.bin", path, report=_break_off, block=BLOCK)
        fetch(f"{site.url}/data.bin", path, block=BLOCK)
        assert path.read_bytes() == DATA
        assert not site.asked  # no answer was partial


def test_local_files_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(DATA)
    for place in (str(source), source.as_uri()):
        path = tmp_path / f"copy_{len(place)}.bin"
        fetch(place, path, block=BLOCK)
        assert path.read_bytes() == DATA


def test_empty_files(bucket: Bucket, site: Site, tmp_path: Path) -> None:
    site.files["/empty.bin"] = b""
    fetch(f"{site.url}/empty.bin", tmp_path / "web.bin")
    assert (tmp_path / "web.bin").read_bytes() == b""
    fetch(bucket.put("empty.bin", b""), tmp_path / "empty.bin", bucket.url)
    assert (tmp_path / "empty.bin").read_bytes() == b""


def test_another_file_in_the_way_is_kept(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"mine")
    address = bucket.put("data.bin", DATA)
    with pytest.raises(UserError, match="--overwrite"):
        fetch(address, path, bucket.url)
    assert path.read_bytes() == b"mine"
    assert _names(tmp_path) == {"data.bin"}
    fetch(address, path, bucket.url, overwrite=True)
    assert path.read_bytes() == DATA


def test_verify_finds_a_changed_byte(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    with pytest.raises(UserError, match="does not exist"):
        verify(path)
    fetch(bucket.put("data.bin", DATA), path, bucket.url)
    assert (tmp_path / "data.bin.sha256").read_text().endswith("  data.bin\n")
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(UserError, match="SHA-256 differs"):
        verify(path)


def test_a_full_disk_is_told_before_it_is_full(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = bucket.put("data.bin", DATA)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    with pytest.raises(UserError, match="are free"):
        fetch(address, tmp_path / "data.bin", bucket.url)
    assert not _names(tmp_path)


def test_an_unwritable_place(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch(bucket.put("data.bin", DATA), tmp_path / "file" / "data.bin", bucket.url)


def test_a_lost_note_starts_again(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    (tmp_path / "data.bin.partial").write_bytes(OTHER[:5000])
    (tmp_path / "data.bin.partial.json").write_text(json.dumps({"url": "elsewhere"}))
    fetch(bucket.put("data.bin", DATA), path, bucket.url, block=BLOCK)
    assert path.read_bytes() == DATA


def test_two_at_once_fetch_it_once(site: Site, tmp_path: Path) -> None:
    results = []

    def run() -> None:
        results.append(fetch(f"{site.url}/data.bin", tmp_path / "data.bin", block=BLOCK).new)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, True]
    assert len([first for first, _ in site.asked if first == BLOCK]) == 1


def test_cached_files(site: Site, tmp_path: Path) -> None:
    first = cached_file(f"{site.url}/data.bin", tmp_path)
    assert first.read_bytes() == DATA
    site.files.clear()
    assert cached_file(f"{site.url}/data.bin", tmp_path) == first
    assert cached_file(str(first), tmp_path / "none") == first
