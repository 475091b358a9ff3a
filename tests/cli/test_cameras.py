"""scripts/cameras.py from the command line: what it prints and draws, and how it refuses bad input."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from dataloader.formats import format_module, open_scene, write_scene
from dataloader.scene import Scene

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def script(repo_root: Path) -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location("cameras_script", repo_root / "scripts" / "cameras.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the script's main in this process: exit code, stdout, stderr."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cameras.py", *map(str, words)])
        code = 0
        try:
            script.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    """A scene with all four camera formats."""
    scene = posed_scene(5, size=(48, 64))
    write_scene(scene, tmp_path / "scene", "colmap")
    for name in ("mvsnet", "llff", "nerfstudio"):
        format_module(name).write(scene, tmp_path / "scene")
    return tmp_path / "scene"


def refused(result: tuple[int, str, str], *parts: str) -> None:
    """Exit code 2 and one line that names the parts; no traceback."""
    code, _, err = result
    assert code == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    for part in parts:
        assert part in lines[0], lines[0]


def test_check_as_a_stranger_would(folder: Path, repo_root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, repo_root / "scripts" / "cameras.py", "check", folder, "--out", tmp_path / "a.png"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "photos                          5 (train 3, test 2)" in done.stdout
    assert "reprojection error              mean 0.000, median 0.000, 95 % 0.000 px" in done.stdout
    for name in ("nerfstudio", "mvsnet", "llff"):
        assert f"{name} against colmap" in done.stdout
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 1760


def test_check_on_real_photos(run: Run, parity_data: Path, tmp_path: Path) -> None:
    code, out, err = run("check", parity_data / "scene_a", "--out", tmp_path / "a.png")
    assert code == 0, err
    lines = [line for line in out.splitlines() if " against colmap" in line]
    assert len(lines) == 3
    assert all(float(line.split("at most")[1].split("px")[0]) < 0.05 for line in lines)
    assert "mean 0.442, median 0.343" in out


@pytest.mark.parametrize("name", ["colmap", "nerfstudio", "mvsnet", "llff"])
def test_convert(run: Run, folder: Path, tmp_path: Path, name: str) -> None:
    code, out, err = run("convert", folder, tmp_path / "new", "--to", name)
    assert code == 0, err
    assert f"5 photos with cameras written to {tmp_path / 'new'} ({name})" in out
    assert ("note: sparse points are not stored" in out) == (name != "colmap")
    assert len(open_scene(tmp_path / "new", name)) == 5


def test_convert_reduced_copies(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "images_2").mkdir()
    for path in (folder / "images").iterdir():
        Image.open(path).resize((32, 24)).save(folder / "images_2" / path.name)
    words = ("convert", folder, tmp_path / "new", "--from", "llff", "--to", "mvsnet", "--images", "images_2")
    assert run(*words)[0] == 0
    assert open_scene(tmp_path / "new").records[0].camera.width == 32


def test_show_draws_a_scene(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("show", folder, "--out", tmp_path / "a.html", "--views", "2")
    assert code == 0, err
    assert f"page: {tmp_path / 'a.html'}" in out
    text = (tmp_path / "a.html").read_text()
    for name in ("source: photos", "source: cameras", "target: rays", "target: moments"):
        assert name in text
    code, _, err = run("show", folder, "--out", tmp_path / "b.html", "--photos", "False", "--rays", "False")
    assert code == 0, err
    assert "photos" not in (tmp_path / "b.html").read_text().rpartition("newPlot")[2]


def test_show_draws_what_an_experiment_uses(run: Run, folder: Path, repo_root: Path, tmp_path: Path) -> None:
    experiment = repo_root / "configs" / "baselines" / "nearest_view"
    words = ("show", "-e", experiment, f"data.root={folder}", "data.source=all", "--out", tmp_path / "a.html")
    code, _, err = run(*words)
    assert code == 0, err
    pairs = repo_root / "configs" / "warp_diffusion" / "toy"
    code, _, err = run("show", "-e", pairs, "--out", tmp_path / "b.html", "model.resolution=32")
    assert code == 0, err
    assert "target: photos" in (tmp_path / "b.html").read_text()


def test_show_refuses_what_it_cannot_draw(run: Run, folder: Path, tmp_path: Path) -> None:
    refused(run("show"), "a scene folder or -e EXPERIMENT")
    refused(run("show", folder, "-e", "x"), "one of them")
    refused(run("show", folder, "--out", tmp_path / "a.png"), "a.png", ".html")
    refused(run("show", folder, "data.root=x"), "name one with show -e")
    assert not list(tmp_path.glob("*.html"))


def test_help_ends_with_examples(run: Run) -> None:
    for words in ((), ("convert",), ("check",), ("show",)):
        code, out, _ = run(*words, "--help")
        assert code == 0
        assert "python scripts/cameras.py convert" in out.split("examples:")[1]


# ---- bad input -------------------------------------------------------------------------------------------


def convert(run: Run, folder: Path, name: str) -> tuple[int, str, str]:
    """Read one format through the command line; nothing may be left where it fails."""
    result = run("convert", folder, folder.parent / "new", "--from", name, "--to", "mvsnet")
    assert not (folder.parent / "new").exists()
    assert not list(folder.parent.glob(".*"))
    return result


def test_missing_camera_for_a_photo(run: Run, folder: Path) -> None:
    (folder / "cams" / "0002_cam.txt").unlink()
    refused(convert(run, folder, "mvsnet"), "0002.png has no camera", "0002_cam.txt")
    np.save(folder / "poses_bounds.npy", np.load(folder / "poses_bounds.npy")[:-1])
    refused(convert(run, folder, "llff"), "poses_bounds.npy has 4 rows for 5 photos")


@pytest.mark.parametrize("name", ["colmap", "nerfstudio", "mvsnet", "llff"])
def test_photo_of_another_size(run: Run, folder: Path, name: str) -> None:
    Image.new("RGB", (40, 30)).save(folder / "images" / "0002.png")
    refused(convert(run, folder, name), "0002.png is 40x30", "64x48")
    refused(run("check", folder, "--from", name), "0002.png is 40x30")


@pytest.mark.parametrize("name", ["colmap", "nerfstudio", "mvsnet", "llff"])
def test_nan_pose(run: Run, folder: Path, name: str) -> None:
    if name == "colmap":
        path = folder / "sparse" / "0" / "images.bin"
        content = bytearray(path.read_bytes())
        struct.pack_into("<d", content, 8 + 4 + 32, float("nan"))  # count, id, quaternion: then tx
        path.write_bytes(content)
    elif name == "nerfstudio":
        meta = json.loads((folder / "transforms.json").read_text())
        meta["frames"][0]["transform_matrix"][1][3] = float("nan")
        (folder / "transforms.json").write_text(json.dumps(meta))
    elif name == "mvsnet":
        lines = (folder / "cams" / "0000_cam.txt").read_text().splitlines()
        lines[1] = "nan " + lines[1].split(maxsplit=1)[1]
        (folder / "cams" / "0000_cam.txt").write_text("\n".join(lines))
    else:
        rows = np.load(folder / "poses_bounds.npy")
        rows[0, 3] = np.nan
        np.save(folder / "poses_bounds.npy", rows)
    refused(convert(run, folder, name), "0000", "NaN")


@pytest.mark.parametrize("file", ["cameras", "images", "points3D"])
def test_truncated_colmap_file(run: Run, folder: Path, file: str) -> None:
    path = folder / "sparse" / "0" / f"{file}.bin"
    path.write_bytes(path.read_bytes()[:-20])
    refused(convert(run, folder, "colmap"), f"{file}.bin is cut off")
    refused(run("check", folder), f"{file}.bin is cut off")


def test_truncated_photo(run: Run, parity_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    shutil.copytree(parity_data / "scene_a" / "images", folder / "images", copy_function=shutil.copyfile)
    shutil.copytree(parity_data / "scene_a" / "cams", folder / "cams", copy_function=shutil.copyfile)
    path = folder / "images" / "0017.jpg"
    path.write_bytes(path.read_bytes()[:30000])
    refused(run("check", folder, "--out", tmp_path / "a.png"), "0017.jpg is not a readable image")
    assert not (tmp_path / "a.png").exists()
    refused(run("convert", folder, tmp_path / "new", "--to", "colmap"), "0017.jpg is not a readable image")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene"]


def test_malformed_json(run: Run, folder: Path) -> None:
    text = (folder / "transforms.json").read_text()
    (folder / "transforms.json").write_text(text[: len(text) // 2])
    refused(convert(run, folder, "nerfstudio"), "transforms.json is not valid JSON")
    (folder / "split.json").write_text("{")
    refused(convert(run, folder, "mvsnet"), "split.json is not valid JSON")


def test_places_that_cannot_be_written(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("convert", folder, tmp_path / "file" / "new", "--to", "mvsnet")
    refused(run(*words), f"cannot write {tmp_path / 'file' / 'new'}")
    refused(run("check", folder, "--out", tmp_path / "file" / "a.png"), "cannot write")
    refused(run("check", folder, "--out", tmp_path / "a.jpg"), "a.jpg", ".png")


def test_destination_is_never_overwritten(run: Run, folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    refused(run("convert", folder, folder, "--to", "llff"), "is not an empty folder")
    assert sorted(path.name for path in folder.iterdir()) == before
    (tmp_path / "empty").mkdir()
    assert run("convert", folder, tmp_path / "empty", "--to", "llff")[0] == 0


def test_lossy_conversion_is_refused(run: Run, posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    write_scene(posed_scene(3, off_center=2.0), tmp_path / "a", "colmap")
    refused(run("convert", tmp_path / "a", tmp_path / "b", "--to", "llff"), "0000", "LLFF stores one focal")
    assert not (tmp_path / "b").exists()


def test_scenes_that_are_none(run: Run, tmp_path: Path) -> None:
    refused(run("check", tmp_path / "gone"), "gone is not a folder")
    refused(run("check", tmp_path), "holds no cameras", "scripts/scene.py prepare")
    code, _, err = run("convert", tmp_path, tmp_path / "b", "--to", "ply")
    assert code == 2
    assert "invalid choice: 'ply'" in err
