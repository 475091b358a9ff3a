"""A scene of a chunk as a `Scene`, and back: normalised intrinsics and w2c <-> `Cameras` in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from dataloader.images import EncodedImage, image_size
from dataloader.re10k.chunks import CAMERA_COLUMNS, Example
from dataloader.scene import ImageSize, Record, Scene
from geometry.cameras import Cameras

MAX_FOV = 100.0  # degrees; wider views are wrong calibrations (specs/lvsm 4.2)


def frame_name(index: int) -> str:
    """What a frame is called: its index with six digits."""
    return f"{index:06d}"


def encoded(example: Example, index: int, source: str) -> EncodedImage:
    """Frame `index` as it lies in the chunk. source: what messages call the scene."""
    return EncodedImage(example["images"][index].numpy().tobytes(), f"{source}, frame {index}")


def example_cameras(example: Example, size: ImageSize) -> Cameras:
    """[N] float64 cameras in pixels of images of `size`; `time` holds the time stamps in microseconds."""
    rows = example["cameras"].double()
    height, width = size
    K = torch.zeros(len(rows), 3, 3, dtype=torch.float64)
    K[:, 0, 0], K[:, 1, 1] = rows[:, 0] * width, rows[:, 1] * height
    K[:, 0, 2], K[:, 1, 2] = rows[:, 2] * width, rows[:, 3] * height
    K[:, 2, 2] = 1
    w2c = torch.eye(4, dtype=torch.float64).repeat(len(rows), 1, 1)
    w2c[:, :3] = rows[:, 6:].reshape(-1, 3, 4)
    return Cameras(K, torch.linalg.inv(w2c), height, width, time=example["timestamps"].double())


def camera_rows(cameras: Cameras) -> Tensor:
    """[N, 18] float32 rows of a chunk from cameras [N] in pixels. Raises UserError for skewed pixels."""
    if (cameras.K[:, 0, 1] != 0).any():
        raise UserError("cameras with skewed pixels cannot be stored in a chunk: rectify the photos first")
    rows = torch.zeros(len(cameras), CAMERA_COLUMNS, dtype=torch.float64)
    rows[:, 0], rows[:, 1] = cameras.K[:, 0, 0] / cameras.width, cameras.K[:, 1, 1] / cameras.height
    rows[:, 2], rows[:, 3] = cameras.K[:, 0, 2] / cameras.width, cameras.K[:, 1, 2] / cameras.height
    rows[:, 6:] = cameras.w2c[:, :3].reshape(-1, 12)
    return rows.float()


def fields_of_view(cameras: Cameras) -> Tensor:
    """[..., 2] horizontal and vertical angle in degrees between the rays through the middles of the edges."""
    inverse = torch.linalg.inv(cameras.K)
    w, h = float(cameras.width), float(cameras.height)
    ends = torch.tensor([[0, h / 2, 1], [w, h / 2, 1], [w / 2, 0, 1], [w / 2, h, 1]], dtype=cameras.K.dtype)
    rays = torch.nn.functional.normalize(ends @ inverse.transpose(-1, -2), dim=-1)  # [..., 4, 3]
    cosine = (rays[..., 0::2, :] * rays[..., 1::2, :]).sum(-1)
    return torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))


def scene_of(
    example: Example,
    source: str,
    expected: ImageSize | None = None,
    max_fov: float = MAX_FOV,
) -> Scene:
    """The scene, its photos still encoded.

    source: what messages call the chunk. expected: (height, width) that every photo must have; None asks only
    that they agree. max_fov: degrees. Raises UserError for a scene that cannot be used: photos that are
    unreadable or of other sizes, views wider than `max_fov`, broken cameras.
    """
    source = f"{source}, scene {example['key']}"
    images = [encoded(example, i, source) for i in range(len(example["images"]))]
    if not images:
        raise UserError(f"{source} has no frame: leave it out")
    size = _common_size(images, expected)
    cameras = example_cameras(example, size)
    check_cameras(cameras, source, max_fov)
    records = [Record(frame_name(i), cameras[i], image) for i, image in enumerate(images)]
    return Scene(str(example["key"]), records)


def _common_size(images: Sequence[EncodedImage], expected: ImageSize | None) -> ImageSize:
    wanted = expected or image_size(images[0])
    for image in images:
        height, width = image_size(image)
        if (height, width) != wanted:
            rule = "meta.json expects" if expected else "the first frame is"
            raise UserError(
                f"{image} is {width}x{height}, {rule} {wanted[1]}x{wanted[0]}: leave the scene out"
            )
    return wanted


def check_cameras(cameras: Cameras, source: str, max_fov: float) -> None:
    """Raise UserError for cameras [N] that are not finite or see more than `max_fov` degrees."""
    if not (cameras.K.isfinite().all() and cameras.c2w.isfinite().all()):
        raise UserError(f"{source}: a camera holds NaN or infinite numbers: leave the scene out")
    angles = fields_of_view(cameras).amax(-1)
    if bool((angles > max_fov).any()):
        frame = int(angles.argmax())
        raise UserError(
            f"{source}, frame {frame} sees {float(angles[frame]):.0f} degrees, more than {max_fov:g}: "
            "leave the scene out"
        )


def example_of(
    scene: Scene, timestamps: Sequence[int] | None = None, url: str = "", quality: int = 95
) -> Example:
    """A scene as it lies in a chunk. JPEG and PNG photos are taken over byte for byte, others become PNG.

    timestamps: microseconds; None takes the cameras' time, or counts frames. quality: of JPEG photos that
    have to be encoded anew, because their lens was removed.
    """
    cameras = scene.cameras()
    if timestamps is None:
        timestamps = range(len(scene)) if cameras.time is None else cameras.time.round().long().tolist()
    return {
        "url": url,
        "timestamps": torch.tensor(list(timestamps), dtype=torch.int64),
        "cameras": camera_rows(cameras),
        "images": [as_tensor(_stored_photo(record, quality)) for record in scene.records],
        "key": scene.name,
    }


def _stored_photo(record: Record, quality: int) -> bytes:
    """The photo as a file in memory; it is decoded once, so that a damaged one is noticed here."""
    pixels, image = record.load(), record.image
    jpeg = isinstance(image, Path) and image.suffix.lower() in (".jpg", ".jpeg")
    if isinstance(image, EncodedImage):
        return image.data
    if record.lens is None and isinstance(image, Path) and (jpeg or image.suffix.lower() == ".png"):
        return image.read_bytes()
    return encode(pixels, "JPEG" if jpeg else "PNG", quality)


def encode(pixels: np.ndarray[Any, Any], kind: str, quality: int = 95) -> bytes:
    """[H, W, 3] uint8 as a JPEG or PNG file in memory."""
    import io

    from PIL import Image

    file = io.BytesIO()
    options = {"quality": quality} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(file, format=kind, **options)
    return file.getvalue()


def as_tensor(data: bytes) -> Tensor:
    """Bytes as the uint8 tensor [n] that chunks hold."""
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


def latents_of(example: Example, source: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [N, C, h, w] of the frames' VAE posterior, as stored (bfloat16).

    Raises UserError where the chunk was not pre-encoded.
    """
    latents = example.get("vae_latents")
    if latents is None:
        raise UserError(
            f"{source}, scene {example['key']} holds no latents: make them with scripts/re10k.py pre-encode"
        )
    mean, std = latents["mean"], latents["std"]
    if mean.shape != std.shape or mean.ndim != 4 or len(mean) != len(example["images"]):
        raise UserError(
            f"{source}, scene {example['key']}: latents are {tuple(mean.shape)} and {tuple(std.shape)} for "
            f"{len(example['images'])} frames: make the chunk again"
        )
    return mean, std
