"""camera_path.json: round trips, what foreign files mean, and what broken ones are told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from geometry.cameras import Cameras, pinhole
from geometry.path_files import read_camera_path, write_camera_path
from geometry.paths import orbit

IDENTITY = torch.eye(4, dtype=torch.float64).flatten().tolist()


def frame(**values: Any) -> dict[str, Any]:
    return {"camera_to_world": IDENTITY, "fov": 90, "aspect": 1.5, **values}


def content(**values: Any) -> dict[str, Any]:
    """A minimal foreign file."""
    return {"render_height": 40, "render_width": 60, "camera_path": [frame(), frame()], "fps": 24, **values}


def read(tmp_path: Path, value: Any) -> tuple[Cameras, float]:
    path = tmp_path / "camera_path.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return read_camera_path(path)


def wide_orbit(n: int = 7) -> Cameras:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([1.0, -2, 30])
    cameras = orbit(pinhole(123.456, 331, 517, pose), 1.7, n)
    K = cameras.K.clone()
    K[:, :2, :2] *= torch.linspace(1, 3, n, dtype=torch.float64)[:, None, None]
    return Cameras(K, cameras.c2w, 331, 517)


@pytest.mark.parametrize("time", [None, torch.linspace(0, 1, 7, dtype=torch.float64)])
def test_round_trip(tmp_path: Path, time: torch.Tensor | None) -> None:
    cameras = wide_orbit()
    cameras.time = time
    write_camera_path(cameras, tmp_path / "new/path.json", 12.5)
    back, fps = read_camera_path(tmp_path / "new/path.json")
    assert fps == 12.5
    assert (back.height, back.width) == (331, 517)
    torch.testing.assert_close(back.c2w, cameras.c2w, atol=1e-9, rtol=0)
    torch.testing.assert_close(back.K, cameras.K, atol=1e-9, rtol=0)
    assert back.time is None if time is None else torch.equal(back.time, time)  # type: ignore[arg-type]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["path.json"]


def test_written_keys_and_units(tmp_path: Path) -> None:
    write_camera_path(pinhole(20, 40, 60).with_poses(torch.eye(4).double()[None]), tmp_path / "p.json", 5)
    written = json.loads((tmp_path / "p.json").read_text())
    assert written["camera_type"] == "perspective"
    assert (written["render_height"], written["render_width"]) == (40, 60)
    assert (written["fps"], written["seconds"], written["is_cycle"], written["keyframes"]) == (
        5,
        0.2,
        False,
        [],
    )
    (only,) = written["camera_path"]
    assert only["fov"] == pytest.approx(90, abs=1e-12)  # vertical: the height is twice the focal length
    assert only["aspect"] == 1.5
    assert only["camera_to_world"] == [
        1,
        0,
        0,
        0,
        0,
        -1,
        0,
        0,
        0,
        0,
        -1,
        0,
        0,
        0,
        0,
        1,
    ]  # looks along -z in OpenGL


def test_foreign_file(tmp_path: Path) -> None:
    raised = IDENTITY.copy()
    raised[7] = 2.0  # row 1, column 3: y of the centre
    nested = [IDENTITY[i : i + 4] for i in range(0, 16, 4)]
    frames = [frame(camera_to_world=raised), frame(camera_to_world=nested, fov=60.5)]
    cameras, fps = read(
        tmp_path, content(camera_path=frames, keyframes=[{"matrix": "x"}], smoothness_value=0.5)
    )
    assert fps == 24
    assert cameras.shape == (2,)
    assert cameras.time is None
    torch.testing.assert_close(cameras.center, torch.tensor([[0.0, 2, 0], [0, 0, 0]]).double())
    torch.testing.assert_close(cameras.focal[:, 0], cameras.focal[:, 1])
    torch.testing.assert_close(cameras.focal[0, 0], torch.tensor(20.0).double())
    assert float(cameras.focal[1, 0]) == pytest.approx(20 / math.tan(math.radians(30.25)))
    pixel, depth = cameras[0].project(torch.tensor([[0.0, 3, -1]]).double())  # above the axis: upper half
    torch.testing.assert_close(pixel, torch.tensor([[30.0, 0]]).double())
    assert depth == 1


def test_fps_from_seconds_and_render_time(tmp_path: Path) -> None:
    value = content(seconds=0.5, camera_path=[frame(render_time=0.25), frame(render_time=1)])
    del value["fps"]
    cameras, fps = read(tmp_path, value)
    assert fps == 4
    assert cameras.time is not None
    assert cameras.time.tolist() == [0.25, 1]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in content().items() if name != key}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "not valid JSON"),
        (json.dumps(content())[:80], "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1, 2]", "not a camera path"),
        (without("camera_path"), "'camera_path' is missing"),
        (without("render_height"), "'render_height' is missing"),
        (without("render_width"), "'render_width' is missing"),
        (without("fps"), "'seconds' is missing"),
        (content(camera_path=[]), "at least one frame"),
        (content(camera_path={}), "at least one frame"),
        (content(camera_path=[frame(), {"fov": 50}]), "frame 1: the key 'camera_to_world' is missing"),
        (content(camera_path=[frame(), {"camera_to_world": IDENTITY}]), "frame 1: the key 'fov' is missing"),
        (content(camera_path=[3]), "frame 0: the key 'fov' is missing"),
        (content(camera_path=[frame(fov=None)]), "fov of frame 0 is None"),
        (content(camera_path=[frame(fov=180)]), "between 0 and 180"),
        (content(camera_path=[frame(fov=math.nan)]), "fov of frame 0 is nan"),
        (content(camera_path=[frame(camera_to_world=[math.nan] * 16)]), "not finite"),
        (content(camera_path=[frame(camera_to_world=IDENTITY[:12])]), "must be 16 numbers"),
        (content(camera_path=[frame(camera_to_world="abc")]), "must be 16 numbers"),
        (content(camera_path=[frame(camera_to_world=[2 * v for v in IDENTITY])]), "not a rigid pose"),
        (content(camera_path=[frame(camera_to_world=[-1, *IDENTITY[1:]])]), "not a rigid pose"),
        (content(camera_path=[frame(render_time="soon")]), "render_time of frame 0"),
        (content(render_height=0), "render_height"),
        (content(render_width=10.5), "render_width"),
        (content(render_width=True), "render_width"),
        (content(fps=0), "fps"),
        (content(fps=-1), "fps"),
        (content(camera_type="fisheye"), "'fisheye'"),
    ],
)
def test_broken_file(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, value)
    message = str(caught.value)
    assert says in message
    assert str(tmp_path / "camera_path.json") in message
    assert "\n" not in message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_camera_path(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_camera_path(tmp_path)


@pytest.mark.parametrize(
    ("row", "column", "by", "says"),
    [
        (0, 0, 0.1, "fx differs"),
        (0, 2, 0.5, "principal point"),
        (1, 2, -2, "principal point"),
        (0, 1, 1, "skewed"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(
    tmp_path: Path, row: int, column: int, by: float, says: str
) -> None:
    cameras = wide_orbit(3)
    cameras.K[1, row, column] += by
    with pytest.raises(UserError, match=f"camera 1.*{says}"):
        write_camera_path(cameras, tmp_path / "p.json", 10)
    assert not list(tmp_path.iterdir())
    cameras.K[1, row, column] += 1e-3 - by  # less than a hundredth of a pixel
    write_camera_path(cameras, tmp_path / "p.json", 10)


def test_unfinished_poses_are_refused(tmp_path: Path) -> None:
    cameras = wide_orbit(3)
    cameras.c2w[2, 0, 3] = math.inf
    with pytest.raises(UserError, match="not finite"):
        write_camera_path(cameras, tmp_path / "p.json", 10)
    with pytest.raises(ValueError, match="need cameras"):
        write_camera_path(wide_orbit(3)[0], tmp_path / "p.json", 10)
