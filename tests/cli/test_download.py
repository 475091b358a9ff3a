"""scripts/download.py from the command line, against an S3 server on loopback; bad input is one line."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dataloader.servers import Bucket, s3_server

WEIGHTS = b"weights" * 1000


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    """The public bucket's layout."""
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as served:
        client = served.client
        client.create_bucket(Bucket="megascenes", ACL="public-read")
        for key in (
            "nvs_checkpoints/warp_plus_pose/iter_112000/model.safetensors",
            "nvs_checkpoints/warp_plus_pose/iter_112000/optimizer.bin",
            "nvs_checkpoints/splits/testsplit.pkl",
            "nvs_checkpoints/splits/trainsplit.pkl",
            "metadata/categories.json",
        ):
            client.put_object(Bucket="megascenes", Key=key, Body=WEIGHTS)
        yield served


def _run(repo_root: Path, folder: Path, *words: str, endpoint: str = "http://127.0.0.1:9"):
    environment = {
        **os.environ,
        "PYTHONPATH": str(repo_root),
        "AWS_ENDPOINT_URL": endpoint,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(folder / "hub"),
    }
    return subprocess.run(
        [sys.executable, str(repo_root / "scripts" / "download.py"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_weights_go_where_the_scripts_look(repo_root: Path, bucket: Bucket, tmp_path: Path) -> None:
    done = _run(repo_root, tmp_path, "weights", "warp_plus_pose", endpoint=bucket.url)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "configs" / "warp_plus_pose" / "iter_112000"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.safetensors.sha256"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert "checked: size and MD5" in done.stdout
    assert "100%" in done.stderr
    checked = _run(repo_root, tmp_path, "weights", "warp_plus_pose", "--verify")
    assert checked.returncode == 0, checked.stderr
    (folder / "model.safetensors").write_bytes(WEIGHTS[1:])
    broken = _run(repo_root, tmp_path, "weights", "warp_plus_pose", "--verify")
    assert broken.returncode == 2
    assert "SHA-256 differs" in broken.stderr


def test_splits_and_metadata(repo_root: Path, bucket: Bucket, tmp_path: Path) -> None:
    for words in (["splits"], ["metadata"], ["splits", "--verify"]):
        done = _run(repo_root, tmp_path, *words, endpoint=bucket.url)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/splits/testsplit.pkl").is_file()
    assert (tmp_path / "data/splits/trainsplit.pkl").is_file()
    assert (tmp_path / "data/megascenes/metadata/categories.json").is_file()


def test_any_file_into_a_folder(repo_root: Path, bucket: Bucket, tmp_path: Path) -> None:
    words = ["url", "s3://megascenes/metadata/categories.json", ".", "--endpoint_url", bucket.url]
    done = _run(repo_root, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "categories.json").read_bytes() == WEIGHTS


def test_the_original_zeronvs_comes_from_a_file(repo_root: Path, tmp_path: Path) -> None:
    refused = _run(repo_root, tmp_path, "weights", "zeronvs_original")
    assert refused.returncode == 2
    assert "configs/zeronvs_original/iter_0/zeronvs.ckpt" in refused.stderr
    (tmp_path / "zeronvs.ckpt").write_bytes(WEIGHTS)
    done = _run(repo_root, tmp_path, "weights", "zeronvs_original", "--from", "zeronvs.ckpt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "configs/zeronvs_original/iter_0/zeronvs.ckpt").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metadata"], "cannot be reached"),
        (["url", "http://127.0.0.1:9/file", "out"], "cannot be reached"),
        (["url", "none.bin", "out"], "does not exist"),
        (["hub", "owner/name"], "owner/name cannot be fetched"),
        (["hub", "../name"], "cannot be fetched"),
        (["splits", "--verify"], "holds no fetched file"),
    ],
)
def test_failures_are_one_line(repo_root: Path, tmp_path: Path, words: list[str], said: str) -> None:
    done = _run(repo_root, tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_missing_object_is_told(repo_root: Path, bucket: Bucket, tmp_path: Path) -> None:
    done = _run(repo_root, tmp_path, "weights", "zeronvs_finetune", endpoint=bucket.url)
    assert done.returncode == 2
    assert "does not exist" in done.stderr
