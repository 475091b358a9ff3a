"""scripts/scene.py from the command line: a killed run that continues, and bad input."""

import importlib.util
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dataloader.formats import open_scene
from dataloader.images import write_image
from dataloader.toy import make_scene

OPTIONS = ["--camera_model", "SIMPLE_PINHOLE", "--depth_size", "96"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for record in make_scene(seed=2, n_views=8, height=240, width=320).records:
        write_image(record.load(), folder / f"{record.name}.png")
    return folder


def start(repo_root: Path, photos: Path, out: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "scripts/scene.py", "prepare", str(photos), str(out), *OPTIONS]
    return subprocess.Popen(words, cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stage_lines(stderr: str) -> list[str]:
    return [line for line in stderr.replace("\r", "\n").splitlines() if line.startswith("[")]


def test_a_killed_run_continues(repo_root: Path, photos: Path, tmp_path: Path) -> None:
    first = start(repo_root, photos, tmp_path / "scene")
    assert first.stderr is not None
    seen = ""
    while "[4/7]" not in seen:  # kill it while the photos are undistorted or depth is searched
        seen += first.stderr.read(1)
        assert first.poll() is None, seen
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(repo_root, photos, tmp_path / "scene")
    stdout, stderr = second.communicate(timeout=120)
    assert second.returncode == 0, stderr
    lines = stage_lines(stderr)
    assert len(lines) == 7
    assert [line.endswith("(done before)") for line in lines[:4]] == [True] * 4
    assert not lines[6].endswith("(done before)")
    assert "8 of 8 photos placed" in lines[3]
    assert "cover" in lines[6]
    assert str(tmp_path / "scene") in stdout
    scene = open_scene(tmp_path / "scene")
    assert len(scene) == 8
    assert len(scene.mesh().faces) > 1000
    run = json.loads((tmp_path / "scene" / "run.json").read_text())
    assert run["config"]["camera_model"] == "SIMPLE_PINHOLE"
    assert "scene.py prepare" in run["command"]
    assert not list((tmp_path / "scene").rglob("*.partial"))


@pytest.fixture
def call(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Run the script in this process; returns the error line of a refusal with exit code 2."""
    spec = importlib.util.spec_from_file_location("scene_script", repo_root / "scripts" / "scene.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    handlers = logging.getLogger().handlers[:]

    def refuse(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["scene.py", "prepare", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            script.main()
        captured = capsys.readouterr().err
        assert stop.value.code == 2, captured
        errors = [line for line in captured.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, captured
        return errors[0]

    yield refuse
    logging.getLogger().handlers[:] = handlers


def copy(photos: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for path in sorted(photos.iterdir())[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_folders_that_hold_too_little(call, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no image" in call(tmp_path / "empty", tmp_path / "out")
    assert "is not a folder" in call(tmp_path / "none", tmp_path / "out")
    assert "holds 2 photos: at least 3" in call(copy(photos, tmp_path / "two", 2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_photo_cut_off(call, photos: Path, tmp_path: Path) -> None:
    bad = copy(photos, tmp_path / "bad", 4)
    (bad / "0002.png").write_bytes((bad / "0002.png").read_bytes()[:5000])
    assert f"{bad / '0002.png'} is not a readable image" in call(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photos_that_do_not_match(call, tmp_path: Path) -> None:
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        write_image(noise, tmp_path / "noise" / f"{i}.png")
    line = call(tmp_path / "noise", tmp_path / "out")
    assert "only 0 of 3 photos could be placed together" in line
    assert "overlap" in line
    for i in range(3):
        write_image(np.full((120, 160, 3), 90, np.uint8), tmp_path / "plain" / f"{i}.png")
    assert "no features" in call(tmp_path / "plain", tmp_path / "plain_out")


def test_places_that_cannot_be_used(call, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in call(photos, tmp_path / "file" / "out")
    assert "not an empty folder" in call(photos, tmp_path / "file")
    assert "not an empty folder" in call(photos, copy(photos, tmp_path / "other", 2))
    assert "max_size" in call(photos, tmp_path / "out", "--max_size", "-5")
    assert not (tmp_path / "out").exists()
