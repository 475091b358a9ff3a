"""Jobs of the web demo, without its page."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from dataloader.images import read_image
from geometry.glb_files import write_glb
from methods.scene_lifting.outputs import surface
from methods.scene_lifting.state import LiftedScene
from methods.scene_lifting.web.jobs import Limits, Order, Progress, Studio, take_photo, viewpoint
from tests.methods.scene_lifting.lifted_rooms import lifted_room


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "upload.jpg"
    Image.effect_noise((67, 53), 80).convert("RGB").save(path)
    return path


def make_room(**order: Any) -> LiftedScene:
    (order["folder"] / "notes.txt").write_text(f"{order['prompt']} {order['mode']} {order['seed']}")
    return lifted_room(16, 24, on_view=order["on_view"])


def test_a_scene_from_an_order(photo: Path, tmp_path: Path) -> None:
    studio = Studio(make_room, tmp_path / "scenes")
    job = studio.start(Order(photo, "an alley", mode="single", seed=7))
    told = list(job.follow(0.01))
    last = told[-1]
    assert last.state == "done"
    assert (last.done, last.total, len(last.previews)) == (3, 3, 3)
    assert [step.done for step in told] == sorted(step.done for step in told)
    assert last.result is not None
    assert (last.result / "notes.txt").read_text() == "an alley single 7"
    assert len(job.folder.name) == 32
    assert job.folder.parent == tmp_path / "scenes"
    names = zipfile.ZipFile(job.folder / "scene.zip").namelist()
    assert {"scene/gaussians.ply", "scene/transforms.json", "scene/notes.txt"} <= set(names)
    assert read_image(job.folder / "photo.png").shape == (48, 64, 3)


def test_a_stopped_job_makes_no_further_view_and_leaves_nothing(photo: Path, tmp_path: Path) -> None:
    made, go = [], threading.Semaphore(1)

    def make(**order: Any) -> LiftedScene:
        def on_view(index: int, total: int, view: Any) -> None:
            assert go.acquire(timeout=30)
            made.append(index)
            order["on_view"](index, total, view)

        return lifted_room(16, 24, on_view=on_view)

    job = Studio(make, tmp_path / "scenes").start(Order(photo, "a room"))
    assert next(step for step in job.follow(0.01) if step.done == 1)
    job.stop()
    go.release()
    assert list(job.follow(0.01))[-1].state == "stopped"
    assert made == [0, 1]  # the view in the making is finished, the third is not begun
    assert list((tmp_path / "scenes").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "said"), [(UserError("no weights: get some"), "no weights: get some"), (KeyError("x"), "log")]
)
def test_failures_are_said_and_leave_nothing(
    error: Exception, said: str, photo: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(**order: Any) -> LiftedScene:
        raise error

    last = list(Studio(make, tmp_path / "scenes").start(Order(photo, "a room")).follow(0.01))[-1]
    assert last.state == "bad"
    assert said in last.message
    assert ("KeyError" in caplog.text) == isinstance(error, KeyError)
    assert list((tmp_path / "scenes").iterdir()) == []


def test_one_scene_at_a_time(photo: Path, tmp_path: Path) -> None:
    busy, most, go = [0], [0], threading.Event()

    def make(**order: Any) -> LiftedScene:
        assert go.wait(30)
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        scene = lifted_room(16, 24, on_view=order["on_view"])
        busy[0] -= 1
        return scene

    studio = Studio(make, tmp_path / "scenes")
    first = studio.start(Order(photo, "a room"))
    assert next(step for step in first.follow(0.01) if step.state == "working")
    jobs = [first, *(studio.start(Order(photo, "a room")) for _ in range(2))]
    jobs[1].stop()  # one that waits never begins
    go.set()
    assert [list(job.follow(0.01))[-1].state for job in jobs] == ["done", "stopped", "done"]
    assert most == [1]


def encoded(size: tuple[int, int], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(options.pop("mode", "RGB"), size).save(file, options.pop("format", "JPEG"), **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a picture", "no picture"),
        (encoded((200, 100))[:300], "no picture"),
        (b"", "no picture"),
        (encoded((31, 400)), "31x400"),
        (encoded((3000, 40)), "at least 32"),  # 10 rows are left at 720 columns
        (encoded((2001, 1000)), "2 million pixels"),
        (b"\xff" * 1_050_000, "1.0 MB"),
    ],
)
def test_photos_that_cannot_be_used(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(content)
    with pytest.raises(UserError, match=said) as told:
        take_photo(tmp_path / "upload", tmp_path / "photo.png", Limits(upload_mb=1, megapixels=2))
    assert str(tmp_path) not in str(told.value)
    assert not (tmp_path / "photo.png").exists()


@pytest.mark.parametrize(
    ("size", "stored"),
    [((64, 48), (48, 64)), ((1440, 1084), (536, 720)), ((500, 1500), (720, 240)), ((47, 33), (32, 40))],
)
def test_photos_are_reduced_and_cropped_to_multiples_of_8(
    size: tuple[int, int], stored: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "upload").write_bytes(encoded(size))
    take_photo(tmp_path / "upload", tmp_path / "photo.png", Limits())
    assert read_image(tmp_path / "photo.png").shape[:2] == stored


def test_photos_stand_upright_whatever_their_kind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "upload").write_bytes(encoded((96, 64), mode="CMYK", exif=exif))
    take_photo(tmp_path / "upload", tmp_path / "photo.png", Limits())
    assert read_image(tmp_path / "photo.png").shape == (96, 64, 3)


def test_the_focal_length_goes_with_the_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50  # mm, for a full frame
    (tmp_path / "upload").write_bytes(encoded((1440, 1080), exif=exif))
    focal = take_photo(tmp_path / "upload", tmp_path / "photo.png", Limits())
    assert focal == pytest.approx(50 / 43.27 * np.hypot(720, 540), rel=1e-3)
    (tmp_path / "upload").write_bytes(encoded((96, 64)))
    assert take_photo(tmp_path / "upload", tmp_path / "photo.png", Limits()) is None


def test_painted_views_need_a_prompt(photo: Path, tmp_path: Path) -> None:
    studio = Studio(make_room, tmp_path / "scenes")
    with pytest.raises(UserError, match="few words"):
        studio.start(Order(photo, ""))
    for job in (
        studio.start(Order(photo, "", mode="single")),
        Studio(make_room, tmp_path / "scenes", paints=False).start(Order(photo, "")),
    ):
        assert list(job.follow(0.01))[-1].state == "done"


def test_the_viewpoint_is_the_photos_camera(tmp_path: Path) -> None:
    scene = lifted_room(24, 32, (0.0,))
    scene.views[0].depth = torch.full((24, 32), 2.0)
    write_glb(surface(scene), tmp_path / "wall.glb")
    assert np.allclose(viewpoint(scene, tmp_path / "wall.glb"), [90, 90, 2], atol=1e-3)
    moved = scene.views[0].camera.c2w.clone()
    moved[:3, 3] = torch.tensor([0.0, -2, 0])  # two units above
    scene.views[0].camera = scene.views[0].camera.with_poses(moved)
    assert np.allclose(viewpoint(scene, tmp_path / "wall.glb"), [90, 45, 8**0.5], atol=1e-3)


def test_time_left() -> None:
    assert Progress("working").seconds_left is None
    assert Progress("working", done=2, total=6, seconds=10).seconds_left == 20
