import weakref
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from engine.video import write_video


def _frames(n: int = 5, height: int = 33, width: int = 47) -> list[np.ndarray]:
    """A bright square that moves right over a gradient."""
    frames = []
    for i in range(n):
        frame = np.tile(np.linspace(20, 120, width, dtype=np.uint8)[None, :, None], (height, 1, 3)).copy()
        frame[10:22, 4 * i : 4 * i + 12] = (250, 200, 40)
        frames.append(frame)
    return frames


def test_gif_keeps_size_count_duration_and_loops(tmp_path: Path) -> None:
    write_video(_frames(), tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.size, gif.n_frames, gif.info["duration"], gif.info["loop"]) == ((47, 33), 5, 100, 0)
        gif.seek(3)
        assert np.asarray(gif.convert("RGB"))[15, 15].tolist() == pytest.approx([250, 200, 40], abs=12)


def test_mp4_pads_odd_sizes_and_keeps_every_frame(tmp_path: Path) -> None:
    frames = _frames()
    write_video(frames, tmp_path / "a.mp4", fps=25)
    decoded = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert decoded.shape == (5, 34, 48, 3)
    error = np.abs(decoded[4, :33, :47].astype(int) - frames[4].astype(int)).mean()
    assert error < 12  # 4:2:0 blurs the colour edges of the square
    assert iio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")["fps"] == 25


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_frames_are_taken_one_at_a_time(tmp_path: Path, suffix: str) -> None:
    """A frame is let go before the one after the next is asked for, however many there are."""
    alive: list[weakref.ref[np.ndarray]] = []

    def frames() -> Iterator[np.ndarray]:
        for frame in _frames(12):
            copy = frame.copy()
            alive.append(weakref.ref(copy))
            assert sum(ref() is not None for ref in alive) <= 3
            yield copy

    write_video(frames(), tmp_path / f"a.{suffix}")
    assert len(iio.imread(tmp_path / f"a.{suffix}")) == 12


def test_gif_frames_are_exact_where_their_palette_suffices(tmp_path: Path) -> None:
    frames = [np.full((7, 5, 3), (10 * i, 255 - 10 * i, 40), np.uint8) for i in range(4)]
    frames[2][3:, 1:] = (1, 2, 3)
    write_video(frames, tmp_path / "a.gif", fps=5)
    with Image.open(tmp_path / "a.gif") as gif:
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert gif.info["duration"] == 200
            assert np.array_equal(np.asarray(gif.convert("RGB")), frame)


def test_other_suffixes_and_unwritable_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.gif or \.mp4"):
        write_video(_frames(), tmp_path / "a.avi")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_video(_frames(), tmp_path / "file" / "a.gif")


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_video([], tmp_path / "a.gif")
    write_video(_frames(), tmp_path / "b.gif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.gif"]
