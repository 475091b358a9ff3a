"""Built-in scenes, opened by name: a real stereo pair and procedural rooms. Nothing is downloaded.

`builtin:motorcycle` is Middlebury 2014 'Motorcycle' as it ships inside scikit-image, with its true disparity.
`builtin:room` or `builtin:room:SEED` is a procedural room (`dataloader.toy`).
"""

from __future__ import annotations

import numpy as np
import torch

from common.errors import UserError
from dataloader.scene import Record, Scene
from geometry.cameras import Cameras

# calibration of the downsampled pair (scikit-image, data.stereo_motorcycle)
_FOCAL = 994.978  # pixels
_CENTER = (311.193, 254.877)  # principal point of the left image, pixels
_OFFSET = 31.086  # the right image's principal point lies so much further right, pixels
_BASELINE = 0.193001  # metres


def open_builtin(name: str) -> Scene:
    """The built-in scene called `name` (without 'builtin:'). Raises UserError for an unknown one."""
    kind, _, argument = name.partition(":")
    if kind == "motorcycle" and not argument:
        return motorcycle()
    if kind == "room" and (not argument or argument.isdecimal()):
        from dataloader.toy import make_scene

        return make_scene(int(argument or 0))
    raise UserError(f"no built-in scene {name!r}: choose motorcycle, room or room:SEED")


def motorcycle() -> Scene:
    """The stereo pair: left with metric depth = f B / (disparity + offset) ('train'), right ('test').

    741x500.
    """
    from skimage.data import stereo_motorcycle

    left, right, disparity = stereo_motorcycle()
    known = np.isfinite(disparity)
    depth = np.where(known, _FOCAL * _BASELINE / (np.where(known, disparity, 1.0) + _OFFSET), 0.0)
    bounds = (float(depth[known].min()), float(depth[known].max()))
    records = [
        Record("left", _camera(left, _CENTER[0], 0.0), left, depth=depth.astype(np.float32), bounds=bounds),
        Record("right", _camera(right, _CENTER[0] + _OFFSET, _BASELINE), right, bounds=bounds),
    ]
    return Scene("motorcycle", records, splits={"train": [0], "test": [1]})


def _camera(image: np.ndarray, cx: float, x: float) -> Cameras:
    """A rectified camera of the pair at (x, 0, 0) metres; the left one is the world frame."""
    K = torch.tensor([[_FOCAL, 0, cx], [0, _FOCAL, _CENTER[1]], [0, 0, 1]], dtype=torch.float64)
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[0, 3] = x
    return Cameras(K, c2w, image.shape[0], image.shape[1])
