"""Frames of real video files."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.images import read_image
from dataloader.rig.prepare.frames import open_rig
from dataloader.rig.prepare.videos import (
    Extraction,
    Moment,
    Video,
    camera_names,
    extract_rig,
    list_videos,
    plan,
    probe,
    read_frames,
)
from tests.dataloader.rig.prepare.makers import counting_frames, write_calibration, write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras of 24 and 27 frames."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "b.mp4", counting_frames(27, red=200))
    write_video(folder / "a.mp4", counting_frames(24))
    (folder / "notes.txt").write_text("")
    return folder


def numbers(folder: Path) -> list[int]:
    """Which frames those of a folder were."""
    return [round(float(read_image(path)[..., 1].mean()) / 8) for path in sorted(folder.iterdir())]


def test_a_video_is_probed_and_read(videos: Path) -> None:
    video = probe(videos / "a.mp4")
    assert (video.count, video.fps, video.size) == (24, 30, (32, 48))
    frames = list(read_frames(video, range(3, 22, 6)))
    assert [round(float(frame[..., 1].mean()) / 8) for frame in frames] == [3, 9, 15, 21]
    assert frames[0].shape == (32, 48, 3)
    assert list(read_frames(video, range(0))) == []
    with pytest.raises(UserError, match=r"a\.mp4 gives 4 of 6 frames"):
        list(read_frames(video, range(20, 26)))


def test_a_rig_is_extracted(videos: Path, tmp_path: Path) -> None:
    options = Extraction(step=4, start=Moment.parse("0.1s"), end=Moment.parse("21"), quality=90)
    made = extract_rig(list_videos(videos), tmp_path / "out", options)
    assert {name: path.name for name, path in made.items()} == {"cam00": "a.mp4", "cam01": "b.mp4"}
    assert len(open_rig(tmp_path / "out")) == 5
    assert numbers(tmp_path / "out/cam00") == numbers(tmp_path / "out/cam01") == [3, 7, 11, 15, 19]
    assert read_image(tmp_path / "out/cam01/00002.jpg")[..., 0].mean() == pytest.approx(200, abs=4)


def test_a_killed_extraction_continues(videos: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", Extraction(step=8, end=Moment(24), png=True)
    extract_rig(list_videos(videos), out, options)
    kept = (out / "cam00/00001.png").stat().st_mtime_ns
    (out / "cam01").rename(out / ".cam01.partial")
    (out / ".cam01.partial/00002.png").unlink()
    extract_rig(list_videos(videos), out, options)
    assert numbers(out / "cam01") == [0, 8, 16]
    assert (out / "cam00/00001.png").stat().st_mtime_ns == kept
    with pytest.raises(UserError, match=r"other options \(step\)"):
        extract_rig(list_videos(videos), out, Extraction(step=4, end=Moment(24), png=True))


def test_videos_of_different_lengths(videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"\(cam00 24, cam01 27\).*--shortest"):
        extract_rig(list_videos(videos), tmp_path / "out", Extraction())
    assert not (tmp_path / "out").exists()
    with caplog.at_level(logging.INFO):
        extract_rig(list_videos(videos), tmp_path / "out", Extraction(shortest=True, step=6))
    assert "cut to 4 frames" in caplog.text
    assert len(open_rig(tmp_path / "out")) == 4


def test_frames_are_undistorted_on_the_way(videos: Path, tmp_path: Path) -> None:
    entry = {"K": [[30.0, 0, 23.5], [0, 30, 15.5], [0, 0, 1]], "D": [0, 0, 0, 0], "width": 48, "height": 32}
    calibration = write_calibration(tmp_path / "c.json", [entry] * 2)
    options = Extraction(step=12, end=Moment(24))
    extract_rig(list_videos(videos), tmp_path / "out", options, calibration, (16, 24), 60)
    assert open_rig(tmp_path / "out").size == (16, 24)
    assert json.loads((tmp_path / "out/intrinsics.json").read_text())["cam00"]["width"] == 24
    with pytest.raises(UserError, match="calibrates 1 cameras, there are 2"):
        calibration = write_calibration(tmp_path / "one.json", [entry])
        extract_rig(list_videos(videos), tmp_path / "out2", options, calibration)


def test_unreadable_videos(videos: Path, tmp_path: Path) -> None:
    data = (videos / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "b.mp4").write_text("no video")
    for path in list_videos(tmp_path):
        with pytest.raises(UserError, match=rf"{path.name} is not a readable video \(.+\): replace"):
            probe(path)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(UserError, match=r"holds 1 video files .* at least 2 cameras"):
        list_videos(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        list_videos(tmp_path / "b.mp4")


def some_video(name: str, count: int = 20, fps: float = 30.0, size: tuple[int, int] = (4, 6)) -> Video:
    return Video(Path(f"clips/{name}.mp4"), count, fps, size)


def test_plans() -> None:
    both = [some_video("a"), some_video("b", fps=30.01)]
    assert plan(both, Extraction(step=3, start=Moment(1))) == [range(1, 20, 3)] * 2
    with pytest.raises(UserError, match=r"a\.mp4 has 30 frames per second, .*c\.mp4 60"):
        plan([*both, some_video("c", fps=60)], Extraction())
    with pytest.raises(UserError, match="no frame lies between --start and --end, there are 20"):
        plan(both, Extraction(start=Moment(20)))
    # a step may hide that one video is a frame longer
    assert plan([some_video("a"), some_video("b", 19)], Extraction(step=5)) == [
        range(0, 20, 5),
        range(0, 19, 5),
    ]


def test_moments() -> None:
    assert Moment.parse("2.5s").frame(30) == 75
    assert Moment.parse("75").frame(60) == 75
    for text in ("s", "2.5", "-3", "2m"):
        with pytest.raises(ValueError, match="write a frame number"):
            Moment.parse(text)


def test_names_sort_by_number() -> None:
    assert camera_names(3) == ["cam00", "cam01", "cam02"]
    assert camera_names(101) == sorted(camera_names(101))


def test_sizes_must_agree_without_a_calibration(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", counting_frames(4))
    write_video(tmp_path / "b.mp4", counting_frames(4, size=(32, 32)))
    with pytest.raises(UserError, match=r"b\.mp4 is 32x32, .*a\.mp4 is 48x32"):
        extract_rig(list_videos(tmp_path), tmp_path / "out", Extraction())


def test_frames_are_decoded_as_they_are_needed(videos: Path) -> None:
    frames = read_frames(probe(videos / "a.mp4"), range(24))
    assert next(frames).dtype == np.uint8
    frames.close()  # ends ffmpeg
