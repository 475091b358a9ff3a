"""scripts/scene.py cache-rays, metashape and metashape-cameras from the command line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.formats import open_scene, write_scene
from dataloader.images import write_image
from dataloader.ray_cache import RayCache
from dataloader.scene import Scene
from geometry.meshes import Mesh

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call_main: Run) -> Run:
    """Call the script's main in this process: exit code, stdout, stderr."""
    return partial(call_main, "scripts/scene.py")


def refused(result: tuple[int, str, str], *parts: str) -> None:
    code, _, err = result
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert len(errors) == 1, err
    for part in parts:
        assert part in errors[0]


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    """Eight photos of a tetrahedron; 0 and 4 are test views."""
    scene = posed_scene(8, size=(24, 32))
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    scene.surface = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
    write_scene(scene, tmp_path / "scene", "mvsnet")
    return tmp_path / "scene"


def test_the_last_line_says_what_there_is(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("cache-rays", folder, tmp_path / "rays", "--supersample", "2")
    assert code == 0, err
    assert len(out.splitlines()) == 1
    found = re.search(
        r"6 views \(6 cast now\), (\d+) covered pixels, (\d+) bytes, ([\d.]+) bytes per covered", out
    )
    assert found is not None, out
    files = sorted((tmp_path / "rays").glob("*.rays"))
    assert [file.stem for file in files] == ["0001", "0002", "0003", "0005", "0006", "0007"]
    assert int(found[2]) == sum(file.stat().st_size for file in files)
    scene = open_scene(folder)
    cache = RayCache.open(tmp_path / "rays", scene, scene.split("train"), 2)
    assert int(cache.sizes.sum()) == int(found[1])
    assert json.loads((tmp_path / "rays" / "run.json").read_text())["config"]["supersample"] == 2
    assert "(0 cast now)" in run("cache-rays", folder, tmp_path / "rays", "--supersample", "2")[1]
    more = run("cache-rays", folder, tmp_path / "rays", "--supersample", "2", "--split", "all")[1]
    assert "8 views (2 cast now)" in more


def test_bad_input(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rays"
    refused(run("cache-rays", tmp_path / "none", out), "none is not a folder")
    refused(run("cache-rays", folder, out, "--split", "dev"), "no split 'dev'", "'train'")
    refused(run("cache-rays", folder, out, "--mesh", "no.ply"), "no.ply does not exist")
    refused(run("cache-rays", folder, out, "--max_size", "-3"), "max_size -3")
    refused(run("cache-rays", "builtin:motorcycle", out), "has no mesh")
    photo = folder / "images" / "0002.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:-900])
    refused(run("cache-rays", folder, out), "0002.png is not a readable image")
    assert sorted(path.name for path in out.iterdir()) == ["0001.rays"]
    photo.write_bytes(whole)
    mesh = open_scene(folder).mesh()
    scene = open_scene(folder)
    (tmp_path / "far").mkdir()
    scene.surface, scene.mesh_path = Mesh(mesh.vertices * 1e-3 + 500, mesh.faces), None
    write_scene(scene, tmp_path / "far" / "scene", "mvsnet")
    refused(
        run("cache-rays", tmp_path / "far" / "scene", tmp_path / "far" / "rays"),
        "none of the 6 views sees the mesh",
        "[500, 500] x [500, 500] x [500, 500], the cameras within [",
    )
    assert not (tmp_path / "far" / "rays").exists()
    assert run("cache-rays", folder, out, "--supersample", "0")[0] == 2


def test_a_view_that_sees_nothing_is_named(run: Run, folder: Path, tmp_path: Path) -> None:
    text = folder / "cams" / "0003_cam.txt"
    lines = text.read_text().splitlines()
    lines[3] = lines[3].rsplit(" ", 1)[0] + " -50.0"  # the mesh lies behind it
    text.write_text("\n".join(lines))
    code, out, err = run("cache-rays", folder, tmp_path / "rays")
    assert code == 0
    assert "view 0003 sees nothing of the mesh and is left out" in err
    assert "5 views" in out


def test_a_killed_run_continues(repo_root: Path, posed_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """Killed in the midst: whole files are kept as they are, half ones go."""
    scene = posed_scene(12, size=(240, 320))
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    scene.surface = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))
    write_scene(scene, tmp_path / "scene", "mvsnet")
    rays = tmp_path / "rays"
    words = [sys.executable, "scripts/scene.py", "cache-rays", str(tmp_path / "scene"), str(rays)]
    words += ["--supersample", "2", "--split", "all"]
    first = subprocess.Popen(words, cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list(rays.glob("*.rays"))) < 2:
        assert first.poll() is None
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = {path: path.stat().st_mtime_ns for path in rays.glob("*.rays")}
    assert 2 <= len(kept) < 12
    (rays / ".0011.rays.1.tmp").write_bytes(b"half a file")
    second = subprocess.run(words, cwd=repo_root, capture_output=True, text=True, check=True)
    assert f"12 views ({12 - len(kept)} cast now)" in second.stdout
    assert "px/s" in second.stderr
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
    assert not list(rays.glob(".*"))
    scene = open_scene(tmp_path / "scene")
    RayCache.open(rays, scene, range(12), 2)


def test_metashape(run: Run, tmp_path: Path) -> None:
    refused(run("metashape", tmp_path / "a.psz", tmp_path / "out"), "module Metashape is absent")
    assert not (tmp_path / "out").exists()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cams.xml").write_text(
        '<document><chunk><sensors><sensor id="0"><resolution width="8" height="6"/><calibration><f>9</f>'
        '</calibration></sensor></sensors><cameras><camera id="0" sensor_id="0" label="a"><transform>'
        "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1</transform></camera></cameras></chunk></document>"
    )
    write_image(np.zeros((6, 8, 3), np.uint8), tmp_path / "in" / "images" / "a.png")
    code, out, _ = run("metashape-cameras", tmp_path / "in", tmp_path / "out", "--dsp_factor", "2")
    assert code == 0
    assert f"1 photos with cameras written to {tmp_path / 'out' / 'images_2'}" in out
    assert open_scene(tmp_path / "out", "mvsnet", images="images_2").names == ["a"]
    refused(
        run("metashape-cameras", tmp_path / "in", tmp_path / "out", "--dsp_factor", "2"), "images_2 exists"
    )


@pytest.mark.parametrize("name", ["cache-rays", "metashape", "metashape-cameras"])
def test_help_shows_examples(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"scripts/scene.py {name} " in out
