"""Videos of rendered frames: GIF and MP4, chosen by the file's suffix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError
from engine.outputs import prepare_folder

Frame = NDArray[np.uint8]  # [H, W, 3]


def write_video(frames: Sequence[Frame], path: Path, fps: float = 10.0) -> None:
    """Write frames [H, W, 3] uint8 of one size as `path`: .gif (endless loop) or .mp4 (H.264, 4:2:0).

    An MP4 of odd height or width is padded by one repeated row or column: H.264 needs even sizes. The file
    appears under its name only when complete. Raises UserError for another suffix or an unwritable folder.
    """
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise UserError(f"{path}: a video ends in {' or '.join(writers)}")
    if not frames:
        raise ValueError("a video needs at least one frame")
    partial = prepare_folder(path.parent) / f".{path.stem}.partial{path.suffix}"
    try:
        writers[path.suffix](frames, partial, fps)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _write_gif(frames: Sequence[Frame], path: Path, fps: float) -> None:
    """One palette per frame; durations are multiples of 10 ms, as the format stores them."""
    images = [Image.fromarray(frame).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    duration = max(20, round(100 / fps) * 10)
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0, disposal=1)


def _write_mp4(frames: Sequence[Frame], path: Path, fps: float) -> None:
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    size = (width + width % 2, height + height % 2)
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=fps, codec="libx264", quality=8, macro_block_size=1, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge").tobytes())
    finally:
        writer.close()
