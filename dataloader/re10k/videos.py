"""RealEstate10K's videos, fetched with yt-dlp."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.cli import progress
from common.errors import UserError

_GONE = re.compile(  # what the site says of videos that will not come back
    r"unavailable|private|removed|terminated|not available|no longer|copyright|deleted|does not exist"
    r"|HTTP Error 4(04|10)",
    re.I,
)
_IN_A_ROW = 20  # failed downloads that end the run: the network, or the site, is closed to us
_UNFINISHED = {".part", ".ytdl", ".tmp", ".txt"}


@dataclass
class Counts:
    """What a run did. present: there already. absent: had no input. failed: why things could not be done."""

    made: int = 0
    present: int = 0
    absent: int = 0
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


def _silent() -> logging.Logger:
    """A logger for yt-dlp, whose errors are counted and reported by us."""
    silent = logging.getLogger("yt_dlp")
    silent.setLevel(logging.CRITICAL)
    return silent


def _download(name: str, url: str, folder: Path, height: int) -> str | None:
    """Fetch one video, going on where an earlier run stopped. Returns why it failed, None if it did not."""
    import yt_dlp

    options: dict[str, Any] = {
        "format": "/".join(f"{kind}[height<=?{height}]" for kind in ("bv[ext=mp4]", "bv", "b")),
        "outtmpl": str(folder / f"{name}.%(ext)s"),
        "continuedl": True,
        "quiet": True,
        "noprogress": True,
        "no_warnings": True,
        "logger": _silent(),
    }
    try:
        with yt_dlp.YoutubeDL(options) as site:
            site.download([url])
    except yt_dlp.utils.DownloadError as error:
        return " ".join(str(error).split()).removeprefix("ERROR: ")
    return None if video_file(folder, name) else "nothing was written"
