"""ScanNet's .sens files: one scan's photos, depth maps and poses in a single stream.

Layout of version 4, little endian, as ScanNet's SensReader documents it: version; length and text of the
sensor's name; four 4x4 matrices (intrinsics and extrinsics of colour, then of depth); compressions of colour
and depth; widths and heights of colour and depth; units of depth per metre; number of frames. Each frame:
camera-to-world 4x4, two time stamps, byte counts of colour and depth, then those bytes. What follows the
frames (inertial data) is not read.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from dataloader.images import UNREADABLE

VERSION = 4
COLOR_KINDS = {0: "raw", 1: "png", 2: "jpeg"}
DEPTH_KINDS = {0: "raw_ushort", 1: "zlib_ushort"}
_LONGEST_NAME = 1 << 12  # bytes; a longer one means that the file is something else
_MATRIX, _FRAME = 64, 96  # bytes: 16 floats; pose, two time stamps, two sizes


@dataclass(frozen=True)
class SensHeader:
    """What a .sens file says about all its frames.

    intrinsics are [4, 4] in pixels of their images; depth_shift: units of depth per metre.
    """

    sensor: str
    color_intrinsic: NDArray[np.float32]
    depth_intrinsic: NDArray[np.float32]
    color_kind: str
    depth_kind: str
    color_size: tuple[int, int]  # height, width
    depth_size: tuple[int, int]
    depth_shift: float
    frames: int


@dataclass(frozen=True)
class SensFrame:
    """One frame, still compressed. c2w: [4, 4] in metres, not finite where tracking was lost."""

    index: int
    c2w: NDArray[np.float32]
    color: bytes
    depth: bytes


class SensFile:
    """An open .sens file; made by `open_sens`."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._size = path.stat().st_size
        self.header = self._read_header()

    def frames(self) -> Iterator[SensFrame]:
        """The frames in order. Raises UserError, naming frame and byte, where the file is cut off."""
        for index in range(self.header.frames):
            where = f"frame {index} of {self.header.frames}"
            head = self._take(_FRAME, where)
            color_bytes, depth_bytes = struct.unpack_from("<2Q", head, 80)
            color, depth = self._take(color_bytes, where), self._take(depth_bytes, where)
            yield SensFrame(index, _matrix(head, 0), color, depth)

    def photo(self, frame: SensFrame) -> NDArray[np.uint8]:
        """The frame's photo [H, W, 3]. Raises UserError when its bytes are damaged."""
        height, width = self.header.color_size
        if self.header.color_kind == "raw":
            if len(frame.color) != height * width * 3:
                raise self._damaged(frame, f"{len(frame.color)} bytes of colour for {width}x{height}")
            return np.frombuffer(frame.color, np.uint8).reshape(height, width, 3)
        try:
            with Image.open(io.BytesIO(frame.color)) as image:
                return np.asarray(image.convert("RGB"))
        except UNREADABLE as error:
            raise self._damaged(frame, f"its photo is unreadable ({error})") from None

    def depth(self, frame: SensFrame) -> NDArray[np.uint16]:
        """The frame's depth [H, W], in 1 / depth_shift metres. Raises UserError when damaged."""
        data = frame.depth
        if self.header.depth_kind == "zlib_ushort":
            try:
                data = zlib.decompress(data)
            except zlib.error as error:
                raise self._damaged(frame, f"its depth does not unpack ({error})") from None
        height, width = self.header.depth_size
        if len(data) != height * width * 2:
            raise self._damaged(frame, f"{len(data)} bytes of depth for {width}x{height}")
        return np.frombuffer(data, "<u2").reshape(height, width)

    def _read_header(self) -> SensHeader:
        version, name_bytes = struct.unpack("<IQ", self._take(12, "the header"))
        if version != VERSION or name_bytes > _LONGEST_NAME:
            raise UserError(f"{self.path} is no .sens file of version {VERSION}: take the scan's .sens")
        sensor = self._take(name_bytes, "the header").decode("utf-8", errors="replace")
        rest = self._take(4 * _MATRIX + struct.calcsize("<2i4IfQ"), "the header")
        fields = struct.unpack_from("<2i4IfQ", rest, 4 * _MATRIX)
        color_kind, depth_kind, color_width, color_height, depth_width, depth_height, shift, frames = fields
        if color_kind not in COLOR_KINDS or depth_kind not in DEPTH_KINDS or not shift > 0:
            raise UserError(
                f"{self.path}: colour compression {color_kind}, depth compression {depth_kind}, depth shift "
                f"{shift:g} is not understood: take colour {sorted(COLOR_KINDS)}, depth {sorted(DEPTH_KINDS)}"
            )
        return SensHeader(
            sensor,
            _matrix(rest, 0),
            _matrix(rest, 2 * _MATRIX),
            COLOR_KINDS[color_kind],
            DEPTH_KINDS[depth_kind],
            (color_height, color_width),
            (depth_height, depth_width),
            shift,
            frames,
        )

    def _take(self, count: int, where: str) -> bytes:
        """The next bytes. They are asked for only if the file has them: a damaged size may be absurd."""
        start = self._stream.tell()
        if start + count > self._size:
            raise UserError(
                f"{self.path} is cut off or damaged in {where}: it needs {count} bytes at byte {start}, the "
                f"file has {self._size}; fetch it again"
            )
        return self._stream.read(count)

    def _damaged(self, frame: SensFrame, why: str) -> UserError:
        end = self._stream.tell()
        return UserError(
            f"{self.path} is damaged in frame {frame.index} of {self.header.frames}, before byte {end}: {why}"
            "; fetch it again"
        )


def _matrix(data: bytes, start: int) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4", 16, start).reshape(4, 4)


@contextmanager
def open_sens(path: Path) -> Iterator[SensFile]:
    """Open a .sens file and read its header. Raises UserError when it is missing or none."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give a scan's .sens file") from None
    with stream:
        yield SensFile(path, stream)
