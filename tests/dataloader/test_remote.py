"""Reading ranges and folders of servers on loopback, and what is said when that fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import UserError
from dataloader.remote import describe, first_part_size, is_remote, list_files, read_bytes
from tests.dataloader.servers import Bucket, Site, s3_server, web_server

DATA = bytes(range(256)) * 8


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as served:
        yield served


@pytest.fixture
def site() -> Iterator[Site]:
    with web_server(Site(files={"/data.bin": DATA})) as served:
        yield served


def test_places() -> None:
    assert is_remote("s3://bucket/key")
    assert is_remote("https://host/file")
    assert not is_remote("data/file")
    assert not is_remote("file:///data/file")


def test_ranges_of_an_object(bucket: Bucket) -> None:
    file = describe(bucket.put("ranges/data.bin", DATA), bucket.url)
    assert file.size == len(DATA)
    assert file.is_traceable
    assert read_bytes(file, 0, 5) == DATA[:5]
    assert read_bytes(file, 250, 300) == DATA[250:300]
    assert read_bytes(file, len(DATA) - 1, len(DATA)) == DATA[-1:]


def test_the_endpoint_comes_from_the_environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    address = bucket.put("environment/data.bin", DATA)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    assert describe(address).endpoint_url == bucket.url
    assert list_files("s3://public/environment/") == [address]


def test_folders(bucket: Bucket) -> None:
    addresses = [bucket.put(f"folder/{name}", DATA) for name in ("b.pkl", "a.pkl", "deep/c.pkl")]
    assert list_files("s3://public/folder/", bucket.url) == sorted(addresses)
    with pytest.raises(UserError, match="is a folder"):
        describe("s3://public/folder", bucket.url)
    with pytest.raises(UserError, match="holds no file"):
        list_files("s3://public/empty/", bucket.url)


def test_identity_changes_with_the_object(bucket: Bucket) -> None:
    before = describe(bucket.put("changing.bin", DATA), bucket.url)
    after = describe(bucket.put("changing.bin", DATA[::-1]), bucket.url)
    assert before.size == after.size
    assert before.identity != after.identity


def test_parts_of_an_object(bucket: Bucket) -> None:
    whole = describe(bucket.put("whole.bin", DATA), bucket.url)
    assert first_part_size(whole) is None


def test_ranges_of_a_web_file(site: Site) -> None:
    file = describe(f"{site.url}/data.bin")
    assert (file.size, file.etag, file.ranges) == (len(DATA), "one", True)
    assert read_bytes(file, 10, 20) == DATA[10:20]
    assert site.asked[-1] == (10, 19)
    site.ranges = False
    assert not describe(f"{site.url}/data.bin").ranges


def test_local_files(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    for place in (str(path), path.as_uri()):
        file = describe(place)
        assert file.is_traceable
        assert read_bytes(file, 3, 9) == DATA[3:9]


def test_failures_are_one_sentence(
    bucket: Bucket, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"none does not exist \(404\)"):
        describe("s3://public/none", bucket.url)
    with pytest.raises(UserError, match="does not exist"):
        describe("s3://no-such-bucket/none", bucket.url)
    with pytest.raises(UserError, match="does not exist"):
        describe(f"{site.url}/none")
    with pytest.raises(UserError, match="closed to the public"):
        describe(f"{site.url}/closed")
    with pytest.raises(UserError, match="does not exist"):
        describe(str(tmp_path / "none"))
    with pytest.raises(UserError, match="addresses start with"):
        describe("ftp://host/file")
    with pytest.raises(UserError, match="cannot be reached"):
        describe("http://127.0.0.1:9/file")
    with pytest.raises(UserError, match="cannot be reached"):
        describe("s3://public/none", "http://127.0.0.1:9")


def test_a_broken_connection_is_tried_again_and_then_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataloader.remote._PAUSE", 0.01)
    file = describe(f"{site.url}/data.bin")
    site.cut = 3
    with pytest.raises(UserError, match="run again to continue"):
        read_bytes(file, 0, 100)
    assert site.asked == [(0, 0)] + [(0, 99)] * 3
