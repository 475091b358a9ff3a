"""From photos of any size to the size that a model takes, cameras in step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.images import resize_image
from dataloader.scene import ImageSize, Record
from geometry.cameras import Cameras

_Framed = tuple[NDArray[np.uint8], Cameras]


@dataclass(frozen=True)
class Framing:
    """How photos are resized and cropped.

    style: 'cover' scales a photo (up or down) until it covers `height` x `width` and cuts out the middle,
    principal points and rounded sizes accounted for. 'unofficial' does so as the unofficial implementation:
    only downwards, principal points left in proportion, 8-bit values truncated once (specs/lvsm 3).
    'official' scales to `height` and to the nearest width that is a multiple of `patch`, and with `square`
    cuts out the middle square; `width` plays no part.
    """

    height: int = 256
    width: int = 256
    style: Literal["cover", "unofficial", "official"] = "cover"
    patch: int = 8
    square: bool = True

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.patch) < 1:
            raise UserError(
                f"framing: height {self.height}, width {self.width}, patch {self.patch} must be at least 1"
            )

    def size(self, height: int, width: int) -> ImageSize:
        """(height, width) that a photo of a size comes to."""
        if self.style != "official":
            return self.height, self.width
        scaled = self.scaled_size(height, width)
        return (min(scaled), min(scaled)) if self.square else scaled

    def scaled_size(self, height: int, width: int) -> ImageSize:
        """(height, width) to which a photo is resampled before anything is cut off."""
        if self.style == "official":
            patches = round(int(self.height / height * width) / self.patch)
            return self.height, max(1, patches) * self.patch
        scale = max(self.height / height, self.width / width)
        return max(self.height, round(height * scale)), max(self.width, round(width * scale))


def frame_image(image: NDArray[np.uint8], camera: Cameras, framing: Framing) -> _Framed:
    """Resize and crop [H, W, 3] uint8 and its camera(s), of any leading shape.

    Raises UserError where the style 'unofficial' would have to enlarge the image.
    """
    framed = frame_camera(camera, framing)
    if framing.style == "unofficial":
        image = (image.astype(np.float32) / 255 * 255).astype(np.uint8)
    image = resize_image(image, framing.scaled_size(camera.height, camera.width))
    top, left = (image.shape[0] - framed.height) // 2, (image.shape[1] - framed.width) // 2
    return image[top : top + framed.height, left : left + framed.width], framed


def frame_camera(camera: Cameras, framing: Framing) -> Cameras:
    """The camera(s) of a photo as `frame_image` gives them."""
    height, width = camera.height, camera.width
    scaled, size = framing.scaled_size(height, width), framing.size(height, width)
    if framing.style != "unofficial":
        top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
        return camera.resize(*scaled).crop(top, left, *size)
    if size[0] > height or size[1] > width:
        raise UserError(
            f"a photo of {width}x{height} is smaller than {size[1]}x{size[0]}, and the framing 'unofficial' "
            "does not enlarge: use 'cover'"
        )
    return _unofficial_camera(camera, scaled, size)


def _unofficial_camera(camera: Cameras, scaled: ImageSize, size: ImageSize) -> Cameras:
    """Focal lengths follow the resampling, principal points stay at their fraction of the image."""
    K = camera.K.clone()
    K[..., 0, 0] *= scaled[1] / camera.width
    K[..., 1, 1] *= scaled[0] / camera.height
    K[..., 0, 2] *= size[1] / camera.width
    K[..., 1, 2] *= size[0] / camera.height
    return replace(camera, K=K, height=size[0], width=size[1])


def frame_record(record: Record, framing: Framing) -> _Framed:
    """A record's photo [H, W, 3] uint8 and camera at the framing's size. Raises UserError."""
    return frame_image(record.load(), record.camera, framing)
