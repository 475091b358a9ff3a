"""Frames of a rig's videos, one file per camera, decoded with ffmpeg as they are needed."""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from dataloader.rig.prepare.folders import claim, completing, digest, in_order
from dataloader.rig.prepare.frames import check_counts, one_size, write_frame
from dataloader.rig.prepare.undistort import Pinhole, undistorters, write_intrinsics
from dataloader.scene import ImageSize

logger = logging.getLogger(__name__)

SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".m4v", ".webm", ".mts", ".m2ts", ".mpg", ".mpeg", ".wmv", ".mxf"}
_SAME_RATE = 0.005  # relative difference


@dataclass(frozen=True)
class Video:
    """A video file. count: its frames. fps: per second. size: (height, width) as it is shown."""

    path: Path
    count: int
    fps: float
    size: ImageSize


@dataclass(frozen=True)
class Moment:
    """A place in a video: a frame number, or a time in seconds."""

    value: float
    seconds: bool = False

    @classmethod
    def parse(cls, text: str) -> Moment:
        """'75' is a frame, '2.5s' a time. Raises ValueError for anything else."""
        match = re.fullmatch(r"(\d+)|(\d+(?:\.\d*)?)s", text.strip())
        if match is None:
            raise ValueError(f"{text!r}: write a frame number as 75, or seconds as 2.5s")
        return cls(float(match[1] or match[2]), match[2] is not None)

    def frame(self, fps: float) -> int:
        return round(self.value * fps) if self.seconds else int(self.value)


@dataclass(frozen=True)
class Extraction:
    """step: every n-th frame. start, end: the first frame, and the one after the last (None: all that
    follow). quality: of JPEG files. png: write PNG instead. shortest: cut all cameras to the shortest.
    """

    step: int = 1
    start: Moment = Moment(0)
    end: Moment | None = None
    quality: int = 95
    png: bool = False
    shortest: bool = False

    def chosen(self, count: int, fps: float) -> range:
        """The frame numbers to take of a video of `count` frames."""
        end = count if self.end is None else min(self.end.frame(fps), count)
        return range(self.start.frame(fps), end, self.step)


def list_videos(folder: Path) -> list[Path]:
    """The video files of a folder by name, one per camera. Raises UserError for fewer than two."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder that holds one video file per camera")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if len(found) < 2:
        raise UserError(
            f"{folder} holds {len(found)} video files ({' '.join(sorted(SUFFIXES))}): a rig has at least 2 "
            "cameras, one file each"
        )
    return found


def probe(path: Path) -> Video:
    """Count the frames of a video, without decoding it. Raises UserError when it is no readable video."""
    import imageio_ffmpeg

    try:
        count, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
        reader = imageio_ffmpeg.read_frames(str(path))
        facts = next(reader)
        reader.close()
    except (RuntimeError, OSError, ValueError, KeyError, StopIteration) as error:
        reason = (str(error).strip().splitlines() or ["no picture"])[-1].strip()
        raise UserError(f"{path} is not a readable video ({reason}): replace the file") from None
    if count < 1:
        raise UserError(f"{path} holds no frame: replace the file")
    return Video(path, count, float(facts["fps"]), (facts["size"][1], facts["size"][0]))


def read_frames(video: Video, chosen: range) -> Iterator[NDArray[np.uint8]]:
    """The frames [H, W, 3] uint8 with these numbers, decoded one after the other from the beginning.

    Raises UserError when the video gives fewer.
    """
    import imageio_ffmpeg

    if not chosen:
        return
    kept = rf"between(n\,{chosen.start}\,{chosen[-1]})*not(mod(n-{chosen.start}\,{chosen.step}))"
    words = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-nostdin",
        "-hide_banner",
        "-v",
        "error",
        "-i",
        str(video.path),
    ]
    words += ["-map", "0:v:0", "-vf", f"select={kept}", "-fps_mode", "passthrough", "-frames:v"]
    words += [str(len(chosen)), "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "pipe:1"]
    given = 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            while (frame := _read_ppm(process.stdout)) is not None:
                given += 1
                yield frame
        finally:
            process.kill()
    if given < len(chosen):
        raise UserError(
            f"{video.path} gives {given} of {len(chosen)} frames, then no more: it is damaged or cut off; "
            "copy it again, or encode it anew with ffmpeg"
        )


def _read_ppm(stream: IO[bytes]) -> NDArray[np.uint8] | None:
    """The next picture of a stream of binary PPM files, which say their own size; None at its end."""
    if stream.readline() != b"P6\n":
        return None
    width, height = map(int, stream.readline().split())
    stream.readline()
    data = stream.read(width * height * 3)
    return (
        np.frombuffer(data, np.uint8).reshape(height, width, 3) if len(data) == width * height * 3 else None
    )


def plan(videos: Sequence[Video], options: Extraction) -> list[range]:
    """The frame numbers to take of each video, as many of each.

    Raises UserError where frame rates differ, where counts do (unless `options.shortest`), and where nothing
    is left.
    """
    names = camera_names(len(videos))
    slowest, *_, fastest = sorted(videos, key=lambda video: video.fps)
    if fastest.fps > slowest.fps * (1 + _SAME_RATE):
        raise UserError(
            f"{slowest.path} has {slowest.fps:g} frames per second, {fastest.path} {fastest.fps:g}: the "
            "videos of a rig must have one rate; encode them anew with ffmpeg -r"
        )
    chosen = [options.chosen(video.count, video.fps) for video in videos]
    counts = dict(zip(names, map(len, chosen), strict=True))
    if not options.shortest:
        check_counts(counts, str(videos[0].path.parent))
    elif len(set(counts.values())) > 1:
        logger.info("cut to %d frames, which the shortest camera has", min(counts.values()))
    if not min(counts.values()):
        raise UserError(
            f"{videos[0].path.parent}: no frame lies between --start and --end, there are {videos[0].count}"
        )
    return [frames[: min(counts.values())] for frames in chosen]


def camera_names(count: int) -> list[str]:
    """cam00, cam01, ...: wide enough that they sort by number."""
    digits = max(2, len(str(count - 1)))
    return [f"cam{i:0{digits}d}" for i in range(count)]


def extract_rig(
    paths: Sequence[Path],
    out: Path,
    options: Extraction,
    calibration: Path | None = None,
    size: ImageSize | None = None,
    fov: float = 90.0,
) -> dict[str, Path]:
    """Write `out/cam00/00000.jpg` ... of every video, and undistort on the way with a calibration.

    size, fov: of the pinholes that a calibration makes; None keeps the videos' size. A killed run continues
    with the first unfinished camera. Returns camera name -> video. Raises UserError as `probe`, `plan` and
    `undistorters`, where sizes differ, and when `out` holds anything else.
    """
    with progress(paths, "videos", len(paths), "video", leave=False) as bar:
        videos = [probe(path) for path in bar]
    chosen, names = plan(videos, options), camera_names(len(videos))
    converters: Sequence[Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = [np.asarray] * len(videos)
    target = None
    if calibration is None or size is None:
        size = one_size({f"{video.path}": video.size for video in videos})
    if calibration is not None:
        target = Pinhole(size, fov)
        converters = undistorters(calibration, [video.size for video in videos], names, target)
    known = {
        "videos": [[video.path.name, video.path.stat().st_size] for video in videos],
        "calibration": None if calibration is None else digest(calibration),
        "target": target and asdict(target),
    }
    claim(out, {"made_by": "from-videos", **known, **asdict(options)})
    for name, video, frames, convert in zip(names, videos, chosen, converters, strict=True):
        if not (out / name).is_dir():
            logger.info("%s <- %s", name, video.path)
            _extract(video, frames, out / name, convert, options)
    if target is not None:
        write_intrinsics(names, target, out)
    return dict(zip(names, paths, strict=True))


def _extract(
    video: Video, chosen: range, folder: Path, convert: Callable[..., NDArray[np.uint8]], options: Extraction
) -> None:
    suffix = ".png" if options.png else ".jpg"
    with completing(folder) as partial:

        def write(numbered: tuple[int, NDArray[np.uint8]]) -> None:
            target = partial / f"{numbered[0]:05d}{suffix}"
            if not target.exists():
                write_frame(convert(numbered[1]), target, options.quality)

        with progress(read_frames(video, chosen), folder.name, len(chosen), "frame") as bar:
            for _ in in_order(write, enumerate(bar)):
                pass
