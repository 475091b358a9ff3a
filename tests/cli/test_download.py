"""scripts/download.py from the command line, against an S3 server on loopback; bad input is one line."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dataloader.servers import Bucket, Site, s3_server, web_server

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


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """The script, run in this process with `tmp_path` as working folder; no S3 server unless named."""
    spec = importlib.util.spec_from_file_location("download_script", repo_root / "scripts" / "download.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)

    def call(*words: str, endpoint: str = "http://127.0.0.1:9") -> Done:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setattr(sys, "argv", ["scripts/download.py", *words])
        code = 0
        try:
            script.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Done(code, *capsys.readouterr())

    return call


def test_weights_go_where_the_scripts_look(run: Callable[..., Done], bucket: Bucket, tmp_path: Path) -> None:
    done = run("weights", "warp_plus_pose", endpoint=bucket.url)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "configs" / "warp_plus_pose" / "iter_112000"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.safetensors.sha256"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert "checked: size and MD5" in done.stdout
    assert "100%" in done.stderr
    checked = run("weights", "warp_plus_pose", "--verify")
    assert checked.returncode == 0, checked.stderr
    (folder / "model.safetensors").write_bytes(WEIGHTS[1:])
    broken = run("weights", "warp_plus_pose", "--verify")
    assert broken.returncode == 2
    assert "SHA-256 differs" in broken.stderr


def test_splits_and_metadata(run: Callable[..., Done], bucket: Bucket, tmp_path: Path) -> None:
    for words in (["splits"], ["metadata"], ["splits", "--verify"]):
        done = run(*words, endpoint=bucket.url)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/splits/testsplit.pkl").is_file()
    assert (tmp_path / "data/splits/trainsplit.pkl").is_file()
    assert (tmp_path / "data/megascenes/metadata/categories.json").is_file()


def test_any_file_into_a_folder(run: Callable[..., Done], bucket: Bucket, tmp_path: Path) -> None:
    words = ["url", "s3://megascenes/metadata/categories.json", ".", "--endpoint_url", bucket.url]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "categories.json").read_bytes() == WEIGHTS


def test_the_original_zeronvs_comes_from_a_file(run: Callable[..., Done], tmp_path: Path) -> None:
    refused = run("weights", "zeronvs_original")
    assert refused.returncode == 2
    assert "configs/zeronvs_original/iter_0/zeronvs.ckpt" in refused.stderr
    (tmp_path / "zeronvs.ckpt").write_bytes(WEIGHTS)
    done = run("weights", "zeronvs_original", "--from", "zeronvs.ckpt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "configs/zeronvs_original/iter_0/zeronvs.ckpt").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metadata"], "cannot be reached"),
        (["url", "http://127.0.0.1:9/file", "out"], "cannot be reached"),
        (["url", "none.bin", "out"], "does not exist"),
        (["hub", "../name"], "cannot be fetched"),
        (["splits", "--verify"], "holds no fetched file"),
        (["weights", "lvsm/unofficial"], "github.com/KaiHelli/lvsm: get lvsm_base.ckpt"),
    ],
)
def test_failures_are_one_line(run: Callable[..., Done], words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_missing_object_is_told(run: Callable[..., Done], bucket: Bucket, tmp_path: Path) -> None:
    done = run("weights", "zeronvs_finetune", endpoint=bucket.url)
    assert done.returncode == 2
    assert "does not exist" in done.stderr


def _hub(folder: Path, name: str) -> Site:
    """A web site that answers as the hub does for one model."""
    commit = "c0ffee00" * 5
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    listing = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
    site = Site(headers={"X-Repo-Commit": commit}, etag_by_content=True)
    for place in (name, f"{name}/revision/main", f"{name}/revision/{commit}"):
        site.files[f"/api/models/{place}"] = json.dumps(listing).encode()
    tree = [{"type": "file", "path": f, "size": len(d), "oid": "0" * 40} for f, d in files.items()]
    site.files[f"/api/models/{name}/tree/{commit}"] = json.dumps(tree).encode()
    for file, data in files.items():
        site.files[f"/{name}/resolve/{commit}/{file}"] = data
    return site


def test_a_model_of_the_hub_is_found_without_a_network(repo_root: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in ("config.json", "model.safetensors", "flax_model.msgpack"):
        (model / file).write_text(json.dumps({"file": file}))
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "HF_HOME": str(tmp_path / "hub")}
    words = [sys.executable, "scripts/download.py", "hub", "owner/tiny"]

    def call(endpoint: str) -> subprocess.CompletedProcess[str]:
        env = {**environment, "HF_ENDPOINT": endpoint}
        return subprocess.run(words, cwd=repo_root, env=env, capture_output=True, text=True, timeout=60)

    refused = call("http://127.0.0.1:9")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: the model owner/tiny cannot be fetched")
    with web_server(_hub(model, "owner/tiny")) as site:
        done = call(site.url)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().removeprefix("owner/tiny: "))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert (folder / "config.json").read_text() == json.dumps({"file": "config.json"})
    assert (folder.parents[1] / "refs" / "main").read_text() == folder.name  # found by its name alone
    unfinished = call("http://127.0.0.1:9")
    assert unfinished.returncode == 2, unfinished.stdout
