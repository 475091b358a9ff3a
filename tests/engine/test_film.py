"""Frames on their way to disk: order, bounded memory, failures that surface; clips moment by moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import engine.film
from common.errors import UserError
from engine.film import FrameWriter, clip_views, moments_of, spooled
from engine.method import Method
from geometry.cameras import Cameras, pinhole
from geometry.views import Rendering, Views


def _frame(level: int) -> np.ndarray:
    return np.full((4, 6, 3), level, np.uint8)


def _render(level: int, opacity: float = 1.0) -> Rendering:
    return Rendering(torch.full((1, 3, 4, 6), level / 255), opacity=torch.full((1, 1, 4, 6), opacity))


def test_frames_come_back_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    order = [4, 1, 3, 0, 2]
    with spooled(((i, _render(10 * i)) for i in order), 5, "a", tmp_path) as footage:
        assert [int(frame[0, 0, 0]) for frame in footage] == [0, 10, 20, 30, 40]
        assert [int(frame[0, 0, 0]) for frame in footage] == [0, 10, 20, 30, 40]  # as often as one likes
        assert (footage.count, footage.covered) == (5, True)
        assert footage.folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_footage_without_anything_in_view_says_so(tmp_path: Path) -> None:
    with spooled(((i, _render(9, 0.2)) for i in range(2)), 2, "a", tmp_path) as footage:
        assert not footage.covered


def test_kept_frames_replace_those_of_a_longer_video(tmp_path: Path) -> None:
    for count, level in ((4, 10), (2, 20)):
        with spooled(((i, _render(level)) for i in range(count)), count, "a", tmp_path) as footage:
            footage.move_to(tmp_path / "a")
        (tmp_path / "a/notes.txt").touch()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["00000.png", "00001.png", "notes.txt"]
    assert int(footage.frame(1)[0, 0, 0]) == 20


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception, at: str = "00003.png") -> list[str]:
    """Make one frame fail; returns the names of those written."""
    written: list[str] = []

    def write(frame: np.ndarray, path: Path) -> None:
        if path.name == at:
            raise error
        written.append(path.name)

    monkeypatch.setattr(engine.film, "write_image", write)
    return written


def test_a_full_disk_stops_the_rendering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = _failing(monkeypatch, OSError(28, "No space left on device"))
    rendered = []

    def views() -> Iterator[tuple[int, Rendering]]:
        for i in range(10_000):
            rendered.append(i)
            yield i, _render(1)

    with (
        pytest.raises(UserError, match=r"00003\.png \(.*No space left"),
        spooled(views(), 10_000, "a", tmp_path),
    ):
        raise AssertionError("the frames are not there")
    assert len(rendered) < 200
    assert "00003.png" not in written
    assert list(tmp_path.iterdir()) == []


def test_the_last_frame_may_fail_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, UserError("cannot write 00003.png: choose another place"))
    with pytest.raises(UserError, match="choose another place"), FrameWriter(tmp_path) as writer:
        for i in range(4):
            writer.put(i, _frame(i))


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(UserError, match=r"00000\.png"), FrameWriter(place) as writer:
        writer.put(0, _frame(1))
    with pytest.raises(UserError, match="cannot write"), spooled(iter(()), 0, "a", place):
        pass


def test_an_error_of_the_renderer_is_not_hidden(tmp_path: Path) -> None:
    def views() -> Iterator[tuple[int, Rendering]]:
        yield 0, _render(1)
        raise RuntimeError("no")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no"), spooled(views(), 2, "a", tmp_path):
        pass
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_rendering_waits_for_slow_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time are more frames alive than wait, are written, and are in the renderer's hands."""
    done, most, lock = [0], [0], threading.Lock()

    def write(frame: np.ndarray, path: Path) -> None:
        time.sleep(0.002)
        with lock:
            done[0] += 1

    monkeypatch.setattr(engine.film, "write_image", write)

    with FrameWriter(tmp_path, threads=2, waiting=3) as writer:
        for i in range(40):
            writer.put(i, _frame(0))
            with lock:
                most[0] = max(most[0], i + 1 - done[0])
    assert done[0] == 40
    assert most[0] <= 2 + 3


class Clock(Method):
    """Renders the moment that it was shown; keeps a note of every call."""

    reuses_moments = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    def encode(self, source: Views, reuse: Any = None) -> int:
        assert torch.is_grad_enabled()
        moment = int(source.images[0, 0, 0, 0] * 255)
        self.calls.append(("encode", (moment, reuse)))
        return moment

    def render(self, state: int, cameras: Cameras) -> Rendering:
        assert not torch.is_grad_enabled()
        self.calls.append(("render", len(cameras)))
        x = cameras.center[:, 0, None, None, None].float()
        levels = torch.full((len(cameras), 1, 4, 6), float(state)) * torch.ones(3, 1, 1) + 10 * x
        return Rendering(levels / 255, opacity=(x > 0).float().expand(-1, 1, 4, 6))


def _path(count: int, times: list[float] | None = None) -> Cameras:
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.arange(count)
    path = pinhole(5.0, 4, 6).with_poses(c2w)
    path.time = None if times is None else torch.tensor(times)
    return path


def _source(moment: int) -> Views:
    return Views(torch.full((2, 3, 4, 6), moment / 255), _path(2))


def _film(method: Method, cameras: Cameras, moments: list[int], batch: int) -> dict[int, Rendering]:
    with torch.no_grad():
        return dict(clip_views(method, _source, cameras, moments, batch))


def test_every_moment_is_encoded_once_and_renders_come_in_batches() -> None:
    method, cameras = Clock(), _path(7)
    frames = _film(method, cameras, moments_of(cameras, 3), 2)
    assert method.calls == [
        ("encode", (0, None)), ("render", 2), ("render", 1),
        ("encode", (1, 0)), ("render", 2),
        ("encode", (2, 1)), ("render", 2),
    ]  # fmt: skip
    assert list(frames) == [0, 3, 6, 1, 4, 2, 5]
    for pose, frame in frames.items():
        assert frame.image.shape == (1, 3, 4, 6)
        assert float(frame.image.mean()) * 255 == pytest.approx(pose % 3 + 10 * pose)
        assert bool(frame.covered().any()) == (pose > 0)


def test_the_earliest_moments_state_is_shown_once() -> None:
    shown: list[int] = []
    cameras = _path(4, [2.0, 1.0, 2.0, 1.0])
    with torch.no_grad():
        list(clip_views(Clock(), _source, cameras, moments_of(cameras, 3), 1, shown.append))
    assert shown == [1]


def test_a_pose_that_cannot_be_rendered_is_named() -> None:
    class Shy(Clock):
        def render(self, state: int, cameras: Cameras) -> Rendering:
            if (cameras.center[:, 0] == 4).any():
                raise UserError("there is nothing to see")
            return super().render(state, cameras)

    with pytest.raises(UserError, match=r"^frame 1, 4 of the path: there is nothing to see$"):
        _film(Shy(), _path(5), [0, 1, 0, 0, 1], 2)


def test_methods_that_cannot_reuse_a_moment_are_not_given_one() -> None:
    method = Clock()
    method.reuses_moments = False  # type: ignore[misc]
    cameras = _path(4)
    _film(method, cameras, moments_of(cameras, 2), 8)
    assert [call for call in method.calls if call[0] == "encode"] == [
        ("encode", (0, None)),
        ("encode", (1, None)),
    ]


def test_moments_are_the_times_of_the_path_or_the_places_in_it() -> None:
    assert moments_of(_path(5), 2) == [0, 1, 0, 1, 0]
    assert moments_of(_path(4, [2.0, 2.4, 0.0, 7.0]), 3) == [2, 2, 0, 1]
