"""Camera paths on disk: nerfstudio's `camera_path.json`.

A path file names one image size and the frames per second; each frame has a camera-to-world matrix with
OpenGL axes (x right, y up, z backwards) and its vertical field of view in degrees. It knows neither a
principal point nor pixels that are not square.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from geometry.cameras import Cameras

_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)  # column signs, to OpenCV axes and back
_MAX_LOSS = 0.01  # pixels by which a written camera may differ from the given one


def read_camera_path(path: Path) -> tuple[Cameras, float]:
    """Read a camera_path.json: [n] float64 cameras (OpenCV axes) and the frames per second.

    Both focal lengths follow from `fov` and `render_height`, the principal point is the image centre. As in
    nerfstudio, `aspect`, `keyframes` and `is_cycle` play no part, `fps` may be absent if `seconds` is there,
    and `render_time` becomes the cameras' time when every frame has it. The world frame is that of whoever
    wrote the file.

    Raises UserError when the file is missing, malformed, empty, not of perspective cameras, or holds a number
    that is not finite or a matrix that is not a rigid pose.
    """
    path = Path(path)
    content = _load(path)
    if content.get("camera_type", "perspective") != "perspective":
        raise UserError(
            f"{path}: camera_type is {content['camera_type']!r}, only 'perspective' can be rendered"
        )
    height, width = (_size(path, content, key) for key in ("render_height", "render_width"))
    frames = _key(path, content, "camera_path")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: camera_path must be a list of at least one frame")
    focal = torch.tensor(
        [height / 2 / math.tan(math.radians(_fov(path, frame, i)) / 2) for i, frame in enumerate(frames)],
        dtype=torch.float64,
    )
    K = torch.zeros(len(frames), 3, 3, dtype=torch.float64)
    K[:, 0, 0] = K[:, 1, 1] = focal
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    c2w = torch.stack([_pose(path, frame, i) for i, frame in enumerate(frames)])
    return Cameras(K, c2w, height, width, time=_times(path, frames)), _fps(path, content, len(frames))


def write_camera_path(cameras: Cameras, path: Path, fps: float) -> None:
    """Write cameras [n] as camera_path.json; times become `render_time`, `keyframes` is left empty.

    Raises UserError when the format cannot hold the cameras to a hundredth of a pixel (fx and fy differ, the
    principal point is not the image centre, skew), when a pose is not finite, or the file cannot be written.
    """
    path = Path(path)
    if len(cameras.shape) != 1 or not len(cameras):
        raise ValueError(f"need cameras [n], got {tuple(cameras.shape)}")
    cameras = cameras.to("cpu", torch.float64)
    refuse_loss(cameras, path, "camera_path.json stores only a vertical field of view")
    fov = torch.rad2deg(2 * torch.atan(cameras.height / 2 / cameras.K[:, 1, 1])).tolist()
    matrices = (cameras.c2w * _OPENGL).flatten(1).tolist()
    frames: list[dict[str, Any]] = [
        {"camera_to_world": matrix, "fov": angle, "aspect": cameras.width / cameras.height}
        for matrix, angle in zip(matrices, fov, strict=True)
    ]
    if cameras.time is not None:
        for frame, time in zip(frames, cameras.time.tolist(), strict=True):
            frame["render_time"] = time
    content = {
        "camera_type": "perspective",
        "render_height": cameras.height,
        "render_width": cameras.width,
        "camera_path": frames,
        "fps": fps,
        "seconds": len(frames) / fps,
        "keyframes": [],
        "is_cycle": False,
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a camera_path.json") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); is the file cut off?") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a camera path: it must be a JSON object with the key 'camera_path'")
    return content


def _key(path: Path, holder: Any, key: str, frame: int | None = None) -> Any:
    """holder[key]; `frame` is its place in camera_path, for the message."""
    if not isinstance(holder, dict) or key not in holder:
        raise UserError(f"{path}{'' if frame is None else f', frame {frame}'}: the key {key!r} is missing")
    return holder[key]


def _number(path: Path, value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"{path}: {what} is {value!r}, it must be a finite number")
    return float(value)


def _size(path: Path, content: dict[str, Any], key: str) -> int:
    size = _number(path, _key(path, content, key), key)
    if size < 1 or size != int(size):
        raise UserError(f"{path}: {key} is {size}, it must be a whole number of pixels")
    return int(size)


def _fov(path: Path, frame: Any, i: int) -> float:
    fov = _number(path, _key(path, frame, "fov", i), f"fov of frame {i}")
    if not 0 < fov < 180:
        raise UserError(f"{path}, frame {i}: fov is {fov}, it must lie between 0 and 180 degrees")
    return fov


def _pose(path: Path, frame: Any, i: int) -> Tensor:
    """[4, 4] camera-to-world, OpenCV axes, from 16 numbers in rows (nested or not)."""
    value = _key(path, frame, "camera_to_world", i)
    try:
        matrix = torch.tensor(value, dtype=torch.float64).reshape(4, 4)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{path}, frame {i}: camera_to_world must be 16 numbers, row by row") from None
    if not torch.isfinite(matrix).all():
        raise UserError(f"{path}, frame {i}: camera_to_world holds a number that is not finite")
    rotation, last = matrix[:3, :3], matrix.new_tensor([0.0, 0.0, 0.0, 1.0])
    square = rotation @ rotation.T - torch.eye(3, dtype=torch.float64)
    if square.abs().max() > 1e-3 or torch.linalg.det(rotation) < 0 or (matrix[3] - last).abs().max() > 1e-6:
        raise UserError(
            f"{path}, frame {i}: camera_to_world is not a rigid pose (rotation, translation and the last row "
            f"0 0 0 1, row by row)"
        )
    return matrix * _OPENGL


def _times(path: Path, frames: list[Any]) -> Tensor | None:
    if not all("render_time" in frame for frame in frames):
        return None
    times = [
        _number(path, frame["render_time"], f"render_time of frame {i}") for i, frame in enumerate(frames)
    ]
    return torch.tensor(times, dtype=torch.float64)


def _fps(path: Path, content: dict[str, Any], frames: int) -> float:
    if "fps" in content:
        fps = _number(path, content["fps"], "fps")
    else:
        seconds = _number(path, _key(path, content, "seconds"), "seconds")
        fps = frames / seconds if seconds else 0.0
    if fps <= 0:
        raise UserError(f"{path}: fps is {fps}, it must be above 0")
    return fps


def refuse_loss(cameras: Cameras, path: Path, stored: str) -> None:
    """Raise UserError naming a camera [n] that its size and one focal length cannot hold.

    stored: what the format has instead, for the message.
    """
    if not torch.isfinite(cameras.c2w).all() or not torch.isfinite(cameras.K).all():
        raise UserError(f"{path} is not written: a camera of the path is not finite")
    K, half = cameras.K, max(cameras.height, cameras.width) / 2
    center = K.new_tensor([cameras.width / 2, cameras.height / 2])
    loss = {
        "fx differs from fy": (K[:, 0, 0] / K[:, 1, 1] - 1).abs() * half,
        "the principal point is not the image centre": (K[:, :2, 2] - center).abs().amax(-1),
        "the pixels are skewed": (K[:, 0, 1] / K[:, 1, 1]).abs() * half,
    }
    for what, pixels in loss.items():
        if pixels.max() > _MAX_LOSS:
            raise UserError(
                f"{path} cannot hold camera {int(pixels.argmax())} of the path: {what} "
                f"({pixels.max():.2f} px), and {stored}"
            )
