"""Chunk files: a list of scenes, each a dictionary of cameras and encoded photos (specs/lvsm 4.1).

`.torch` is what `torch.save` writes, `.bl2` the same bytes compressed with Blosc2. Nothing in a file is run.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import replacing

SUFFIXES = (".torch", ".bl2")
CAMERA_COLUMNS = 18  # fx, fy, cx, cy (over width or height), 0, 0, then w2c 3x4 row by row

Example = dict[str, Any]  # key, url, timestamps [N], cameras [N, 18], images (N encoded files), vae_latents


def read_chunk(path: Path) -> list[Example]:
    """The scenes of a chunk. Raises UserError when the file is missing, cut off or something else."""
    try:
        data = path.read_bytes()
        if path.suffix == ".bl2":
            data = _decompress(data)
        scenes = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: get the chunk again, or take its scenes out of index.json"
        ) from None
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        zipfile.BadZipFile,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise UserError(f"{path} is not a readable chunk ({reason}): get it again") from None
    if not isinstance(scenes, list) or not all(isinstance(scene, dict) for scene in scenes):
        raise UserError(f"{path} is no chunk: it must hold a list of scenes")
    for number, scene in enumerate(scenes):
        _check(scene, f"{path}, scene {scene.get('key', number)}")
    return scenes


def write_chunk(scenes: list[Example], path: Path) -> None:
    """Write a chunk, compressed where the name ends in `.bl2`; nothing is left when it fails."""
    file = io.BytesIO()
    torch.save(scenes, file)
    data = _compress(file.getvalue()) if path.suffix == ".bl2" else file.getvalue()
    with replacing(path) as partial:
        partial.write_bytes(data)


def convert_chunk(source: Path, target: Path) -> None:
    """Compress or decompress a chunk, by the suffixes of the two files; its content stays as it is.

    Raises UserError when the source is damaged.
    """
    read_chunk(source)
    data = source.read_bytes()
    if source.suffix == ".bl2":
        data = _decompress(data)
    if target.suffix == ".bl2":
        data = _compress(data)
    with replacing(target) as partial:
        partial.write_bytes(data)


def size_in_bytes(scene: Example) -> int:
    """What a scene adds to its chunk, within some kilobytes."""
    latents = scene.get("vae_latents", {})
    tensors = [scene["cameras"], scene["timestamps"], *scene["images"], *latents.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check(scene: Example, source: str) -> None:
    """Raise UserError unless a scene has what every reader needs, in the right shapes."""
    missing = [name for name in ("key", "cameras", "images", "timestamps") if name not in scene]
    if missing:
        raise UserError(f"{source} lacks {', '.join(missing)}: make the chunk again")
    cameras, images = scene["cameras"], scene["images"]
    if not isinstance(cameras, torch.Tensor) or cameras.shape[1:] != (CAMERA_COLUMNS,):
        raise UserError(f"{source}: cameras must be a tensor [N, {CAMERA_COLUMNS}]: make the chunk again")
    if not len(cameras) == len(images) == len(scene["timestamps"]):
        raise UserError(
            f"{source} has {len(cameras)} cameras, {len(images)} photos and {len(scene['timestamps'])} time "
            "stamps: make the chunk again"
        )


def _decompress(data: bytes) -> bytes:
    import blosc2

    return blosc2.decompress2(data)


def _compress(data: bytes) -> bytes:
    import blosc2

    return blosc2.compress2(data)
