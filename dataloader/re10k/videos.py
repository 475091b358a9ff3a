"""RealEstate10K's videos: fetched with yt-dlp, and the frames of its clips taken from them with ffmpeg."""

from __future__ import annotations

import logging
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.cli import progress
from common.errors import UserError
from dataloader.images import write_image
from dataloader.re10k.camera_files import Clip
from dataloader.scene import ImageSize

logger = logging.getLogger(__name__)

_GONE = re.compile(  # what the site says of videos that will not come back
    r"unavailable|private|removed|terminated|not available|no longer|copyright|deleted|does not exist", re.I
)
_IN_A_ROW = 20  # failed downloads that end the run: the network, or the site, is closed to us
_UNFINISHED = {".part", ".ytdl", ".tmp", ".txt"}
_SLACK = 0.1  # seconds between a time stamp and the nearest frame, at most
_MARGIN = 1.0  # seconds decoded before the first and after the last frame
_PATIENCE = 60  # seconds for ffmpeg to name a frame that it has sent


@dataclass
class Counts:
    """What a run did. present: was there already. failed: sentences on what could not be done."""

    made: int = 0
    present: int = 0
    failed: list[str] = field(default_factory=list)


def video_file(folder: Path, video: str) -> Path | None:
    """The file of a video; None where it was not fetched (whole)."""
    found = [path for path in folder.glob(f"{_literal(video)}.*") if path.suffix not in _UNFINISHED]
    return found[0] if found else None


def _literal(name: str) -> str:
    import glob

    return glob.escape(name)


def download(videos: dict[str, str], folder: Path, record: Path, height: int, retry: bool = False) -> Counts:
    """Fetch videos (name -> address) as `folder/NAME.SUFFIX`; those that are there are kept.

    record: text file that lists the videos that are gone, which later runs leave alone unless `retry`.
    height: rows of the picture, at most. Failures that may pass are counted, to be tried by the next run.
    Raises UserError when many fail in a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gone = set() if retry or not record.is_file() else {row.split("\t")[0] for row in _rows(record)}
    counts, in_a_row = Counts(), 0
    for name, url in progress(videos.items(), "videos", len(videos), "video"):
        if name in gone or video_file(folder, name):
            counts.present += name not in gone
            continue
        reason = _download(name, url, folder, height)
        if reason is None:
            counts.made, in_a_row = counts.made + 1, 0
            continue
        counts.failed.append(f"{url}: {reason}")
        if _GONE.search(reason):
            in_a_row = 0
            with record.open("a", encoding="utf-8") as file:
                file.write(f"{name}\t{url}\t{reason}\n")
        elif (in_a_row := in_a_row + 1) >= _IN_A_ROW:
            raise UserError(f"{in_a_row} downloads in a row failed ({reason}): try again later")
    return counts


def _rows(record: Path) -> list[str]:
    return [line for line in record.read_text(encoding="utf-8").splitlines() if line.strip()]


def _download(name: str, url: str, folder: Path, height: int) -> str | None:
    """Fetch one video, going on where an earlier run stopped. Returns why it failed, None if it did not."""
    import yt_dlp

    options: dict[str, Any] = {
        "format": f"bestvideo[height<={height}][ext=mp4]/bestvideo[height<={height}]/best[height<={height}]",
        "outtmpl": str(folder / f"{name}.%(ext)s"),
        "continuedl": True,
        "quiet": True,
        "noprogress": True,
        "no_warnings": True,
        "logger": logging.getLogger("yt_dlp"),
    }
    try:
        with yt_dlp.YoutubeDL(options) as site:
            site.download([url])
    except yt_dlp.utils.DownloadError as error:
        return " ".join(str(error).split()).removeprefix("ERROR: ")
    return None if video_file(folder, name) else "nothing was written"


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
    from dataloader.re10k.examples import encode

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
        raise UserError(
            f"{video} has no frame at {time:.2f} s, the nearest is at {frame[0]:.2f} s: leave it out"
        )
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
                time = times.get(timeout=_PATIENCE)
                if time is None:
                    raise UserError(f"{video}: ffmpeg sent a frame without its time")
                yield time, np.frombuffer(data, np.uint8).reshape(height, width, 3)
        finally:
            process.kill()
        listener.join()
    if process.returncode not in (0, -9) or not last:
        raise UserError(f"{video} cannot be decoded ({last[-1] if last else 'no output'}): get it again")


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
