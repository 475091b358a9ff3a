"""Videos of rendered frames: GIF and MP4, chosen by the file's suffix."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import getdata

from common.errors import UserError
from engine.outputs import prepare_folder

Frame = NDArray[np.uint8]  # [H, W, 3]


def write_video(frames: Iterable[Frame], path: Path, fps: float = 10.0) -> None:
    """Write frames [H, W, 3] uint8 of one size as `path`: .gif (endless loop) or .mp4 (H.264, 4:2:0).

    Frames are taken one at a time and not kept. An MP4 of odd height or width is padded by one repeated row
    or column: H.264 needs even sizes. The file appears under its name only when complete. Raises UserError
    for another suffix or an unwritable folder, ValueError without frames.
    """
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise UserError(f"{path}: a video ends in {' or '.join(writers)}")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    partial = prepare_folder(path.parent) / f".{path.stem}.partial{path.suffix}"
    try:
        writers[path.suffix](first.shape[:2], chain([first], frames), partial, fps)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _write_gif(size: tuple[int, ...], frames: Iterable[Frame], path: Path, fps: float) -> None:
    """One palette per frame; durations are multiples of 10 ms, as the format stores them.

    Pillow keeps all frames of a GIF that it writes: here it only encodes them, each into a block of its own.
    """
    duration = max(20, round(100 / fps) * 10)
    with path.open("wb") as stream:
        # signature; size, no global palette; loop for ever
        stream.write(b"GIF89a" + struct.pack("<HHBBB", size[1], size[0], 0, 0, 0))
        stream.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")
        for frame in frames:
            image = Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
            for block in getdata(image, duration=duration, disposal=1, include_color_table=True):
                stream.write(block)
        stream.write(b";")


def _write_mp4(size: tuple[int, ...], frames: Iterable[Frame], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    height, width = size
    padded = (width + width % 2, height + height % 2)
    writer = imageio_ffmpeg.write_frames(
        str(path), padded, fps=fps, codec="libx264", quality=8, macro_block_size=1, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").tobytes())
    finally:
        writer.close()
