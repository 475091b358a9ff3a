"""RealEstate10K's camera files: one clip of a video each, its cameras and time stamps, without pictures.

First line: the address of the video. Then a line per frame: time stamp in microseconds, fx fy cx cy over
width and height, k1 k2 (0), and the world-to-camera matrix 3x4 row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.formats.shared import read_text
from dataloader.re10k.chunks import CAMERA_COLUMNS

_NUMBERS = 1 + CAMERA_COLUMNS


@dataclass
class Clip:
    """A clip. key: the file's name. timestamps: microseconds. cameras: [N, 18] float32, as in chunks."""

    key: str
    url: str
    timestamps: list[int]
    cameras: Tensor

    @property
    def video(self) -> str:
        """What the video's file is called: its id at the site, the last part of the address elsewhere."""
        parts = urlsplit(self.url)
        named = parse_qs(parts.query).get("v")
        return named[0] if named else Path(parts.path).stem


@dataclass
class ClipRows:
    """A camera file as it is written. rows: [N, 18] float64 fx fy cx cy k1 k2 and w2c [3, 4] row by row."""

    url: str
    timestamps: list[int]
    rows: Tensor


def read_rows(path: Path) -> ClipRows:
    """Read a camera file, exactly. Raises UserError when it is missing or malformed."""
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if len(lines) < 2:
        raise UserError(f"{path} holds no camera: it must be an address and a line per frame")
    timestamps, rows = [], []
    for number, line in enumerate(lines[1:], 2):
        words = line.split()
        try:
            timestamps.append(int(words[0]))
            rows.append([float(word) for word in words[1:]])
        except ValueError:
            raise UserError(f"{path}, line {number}: {line[:40]!r} is no line of numbers") from None
        if len(words) != _NUMBERS:
            raise UserError(f"{path}, line {number} has {len(words)} numbers, a camera has {_NUMBERS}")
    if timestamps != sorted(set(timestamps)):
        raise UserError(f"{path}: the time stamps must rise from line to line")
    return ClipRows(lines[0], timestamps, torch.tensor(rows, dtype=torch.float64))


def read_clip(path: Path) -> Clip:
    """Read a camera file, as chunks hold it. Raises UserError when it is missing or malformed."""
    found = read_rows(path)
    if bool((found.rows[:, 4:6] != 0).any()):  # k1, k2: chunks have no room for them
        raise UserError(f"{path} has lens distortion (columns 6, 7): undistort the frames first")
    return Clip(path.stem, found.url, found.timestamps, found.rows.float())


def read_clips(folder: Path) -> list[Path]:
    """The camera files of a folder, sorted. Raises UserError when there is none."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise UserError(f"{folder} holds no camera file (*.txt): get them from RealEstate10K's page")
    return files
