"""The frames of RealEstate10K's clips, taken from their videos with ffmpeg."""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from dataloader.images import write_image
from dataloader.re10k.camera_files import Clip, read_clip
from dataloader.re10k.examples import encode
from dataloader.re10k.videos import Counts, video_file
from dataloader.scene import ImageSize

_SLACK = 0.1  # seconds between a time stamp and the nearest frame, at most
_MARGIN = 1.0  # seconds decoded before the first and after the last frame
_PATIENCE = 60  # seconds for ffmpeg to name a frame that it has sent


def extract_clips(
    files: Sequence[Path], videos: Path, frames: Path, size: ImageSize, quality: int = 95
) -> Counts:
    """Write `frames/CLIP/00000.jpg` ... for camera files whose video is there; see `extract`."""
    counts = Counts()
    for path in progress(files, "clips", len(files), "clip"):
        clip = read_clip(path)
        folder, video = frames / clip.key, video_file(videos, clip.video)
        if is_extracted(clip, folder):
            counts.present += 1
        elif video is None:
            counts.absent += 1
        else:
            try:
                counts.made += extract(clip, video, folder, size, quality)
            except UserError as error:
                counts.failed.append(str(error))
    return counts


def extract(clip: Clip, video: Path, folder: Path, size: ImageSize, quality: int = 95) -> bool:
    """Write a clip's frames as `folder/00000.jpg` ..., scaled to (height, width).

    Returns False where they are there. The folder appears when it is complete. Raises UserError when the
    video is unreadable or has no frame near a time stamp.
    """
    if is_extracted(clip, folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as partial:
        times = [stamp / 1e6 for stamp in clip.timestamps]
        for number, frame in enumerate(frames_at(video, times, size)):
            _write_jpeg(frame, Path(partial) / f"{number:05d}.jpg", quality)
        if folder.exists():
            shutil.rmtree(folder)
        made = Path(partial) / "whole"
        made.mkdir()
        for file in Path(partial).glob("*.jpg"):
            os.replace(file, made / file.name)
        os.replace(made, folder)
    return True


def is_extracted(clip: Clip, folder: Path) -> bool:
    """Whether a folder holds as many frames as the clip has."""
    return folder.is_dir() and len(list(folder.glob("*.jpg"))) == len(clip.timestamps)


def _write_jpeg(frame: NDArray[np.uint8], path: Path, quality: int) -> None:
    if quality == 95:
        write_image(frame, path)
    else:
        path.write_bytes(encode(frame, "JPEG", quality))


def frames_at(video: Path, times: Sequence[float], size: ImageSize) -> Iterator[NDArray[np.uint8]]:
    """The frames [height, width, 3] uint8 nearest to rising times in seconds.

    The video is decoded once from the first time to the last. Raises UserError when it cannot be read or has
    no frame within 0.1 s of a time.
    """
    before: tuple[float, NDArray[np.uint8]] | None = None
    wanted = list(times)
    for time, frame in _decode(video, wanted[0] - _MARGIN, wanted[-1] + _MARGIN, size):
        while wanted and wanted[0] <= time:
            near = before if before and wanted[0] - before[0] < time - wanted[0] else (time, frame)
            yield _near(near, wanted.pop(0), video)
        before = (time, frame)
        if not wanted:
            return
    while wanted:  # the video ends before the last time
        if before is None:
            raise UserError(f"{video} has no frame at {wanted[0]:.2f} s: get the video again")
        yield _near(before, wanted.pop(0), video)


def _near(frame: tuple[float, NDArray[np.uint8]], time: float, video: Path) -> NDArray[np.uint8]:
    if abs(frame[0] - time) > _SLACK:
        raise UserError(f"{video} has no frame at {time:.2f} s, the nearest is at {frame[0]:.2f} s")
    return frame[1]


def _decode(
    video: Path, start: float, end: float, size: ImageSize
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """(time, frame) of a stretch of a video. ffmpeg names each frame's time before it sends the frame."""
    import imageio_ffmpeg

    height, width = size
    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-ss", f"{max(start, 0):.6f}"]
    words += ["-copyts", "-i", str(video), "-to", f"{end:.6f}", "-an", "-sn", "-threads", "1"]
    words += ["-vf", f"showinfo,scale={width}:{height}:flags=lanczos", "-fps_mode", "passthrough"]
    words += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    times: queue.Queue[float | None] = queue.Queue()
    last: list[str] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        listener = threading.Thread(target=_listen, args=(process.stderr, times, last), daemon=True)
        listener.start()
        try:
            while len(data := process.stdout.read(height * width * 3)) == height * width * 3:
                yield _next_time(times, video), np.frombuffer(data, np.uint8).reshape(height, width, 3)
        finally:
            process.kill()
            listener.join()  # before the pipes are closed
    if process.returncode not in (0, -9) or not last:
        raise UserError(f"{video} cannot be decoded ({last[-1] if last else 'no output'}): get it again")


def _next_time(times: queue.Queue[float | None], video: Path) -> float:
    try:
        time = times.get(timeout=_PATIENCE)
    except queue.Empty:
        time = None
    if time is None:
        raise UserError(f"{video}: ffmpeg sent a frame without its time")
    return time


def _listen(messages: IO[bytes], times: queue.Queue[float | None], last: list[str]) -> None:
    """Collect the times that ffmpeg's showinfo writes, and what it said last."""
    for line in messages:
        text = line.decode(errors="replace").strip()
        found = re.search(r"showinfo.*pts_time:\s*(-?[\d.]+)", text)
        if found:
            times.put(float(found[1]))
        if text:
            last[:] = [text]
    times.put(None)
