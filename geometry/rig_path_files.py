"""Camera paths of a rig on disk: `qual_path.txt` and `.npy` (specs/mask_volume 4.5).

The text file's first line is the number of poses. Each further line holds 15 numbers, the columns [right, up,
backwards, position, (height, width, focal)] of a pose one after the other. The `.npy` file holds [n, 3, 5]
with the columns [down, right, backwards, position, (height, width, focal)]. Neither knows a principal point
or pixels that are not square.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from geometry.cameras import Cameras
from geometry.path_files import refuse_loss
from geometry.poses import llff_from_pose, pose_from_llff

SUFFIXES = (".txt", ".npy")
_NUMBERS = 15  # of a pose
_RIGID = 1e-3  # of R R^T - I; files with four digits still pass


def read_rig_path(path: Path, size: tuple[int, int] | None = None) -> Cameras:
    """Read a path file: [n] float64 cameras (OpenCV axes), in the world frame of whoever wrote it.

    size: (height, width) to render at; x and y of the cameras are scaled to it, each by its own factor (the
    original scales both as the widths go). None keeps the file's. Raises UserError when the file is missing,
    malformed or empty, or holds a pose that is not rigid or images of several sizes.
    """
    path = Path(path)
    matrices = torch.from_numpy(_read_array(path) if path.suffix == ".npy" else _read_text(path))
    _check(matrices, path)
    height, width = (int(side) for side in matrices[0, :2, 4])
    K = torch.zeros(len(matrices), 3, 3, dtype=torch.float64)
    K[:, 0, 0] = K[:, 1, 1] = matrices[:, 2, 4]
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = width / 2, height / 2, 1
    cameras = Cameras(K, pose_from_llff(matrices[:, :, :4]), height, width)
    return cameras if size is None else cameras.resize(*size)


def write_rig_path(cameras: Cameras, path: Path) -> None:
    """Write cameras [n] as a `.txt` or `.npy` path file.

    Raises UserError when the format cannot hold them to a hundredth of a pixel (fx and fy differ, the
    principal point is not the image centre, skew), for another suffix, or when the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: paths of a rig end in {' or '.join(SUFFIXES)}")
    if len(cameras.shape) != 1 or not len(cameras):
        raise ValueError(f"need cameras [n], got {tuple(cameras.shape)}")
    cameras = cameras.to("cpu", torch.float64)
    refuse_loss(cameras, path, "the paths of a rig store only one focal length")
    size = torch.tensor([cameras.height, cameras.width]).expand(len(cameras), 2)
    sizes = torch.cat([size, cameras.focal.mean(-1, keepdim=True)], dim=-1)
    matrices = torch.cat([llff_from_pose(cameras.c2w), sizes[..., None]], dim=-1)
    with replacing(path) as partial:
        if path.suffix == ".npy":
            with partial.open("wb") as file:
                np.save(file, matrices.numpy())
        else:
            partial.write_text(_text(matrices), encoding="ascii")


def _text(matrices: Tensor) -> str:
    """[n, 3, 5] LLFF columns -> the content of a text file."""
    down, right, backwards, position, size = matrices.unbind(-1)
    rows = torch.cat([right, -down, backwards, position, size], dim=-1)
    lines = [" ".join(map(repr, row)) for row in rows.tolist()]
    return "\n".join([str(len(lines)), *lines]) + "\n"


def _read_text(path: Path) -> np.ndarray:
    """[n, 3, 5] LLFF columns of a text file."""
    try:
        words = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a path file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not words or len(words[0]) != 1 or not words[0][0].isdecimal():
        raise UserError(f"{path}: the first line must be the number of poses")
    if len(words) - 1 != int(words[0][0]):
        raise UserError(f"{path} announces {words[0][0]} poses and holds {len(words) - 1}: is it cut off?")
    rows = np.array([_numbers(row, f"{path}, pose {i}") for i, row in enumerate(words[1:])])
    right, up, *others = rows.reshape(-1, 5, 3).transpose(1, 0, 2)
    return np.stack([-up, right, *others], axis=-1)


def _numbers(words: list[str], source: str) -> list[float]:
    if len(words) != _NUMBERS:
        raise UserError(f"{source} has {len(words)} numbers: a pose has {_NUMBERS}, column by column")
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None


def _read_array(path: Path) -> np.ndarray:
    """[n, 3, 5] LLFF columns of an array file."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a path file") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a readable array ({error}): write it anew") from None
    shape = getattr(array, "shape", ())
    if len(shape) != 3 or shape[1:] != (3, 5) or array.dtype.kind not in "fiu":
        raise UserError(f"{path} has shape {list(shape)}: a path is numbers [poses, 3, 5]")
    return array.astype(np.float64)


def _check(matrices: Tensor, path: Path) -> None:
    """Raise UserError unless [n, 3, 5] are rigid poses of cameras of one image size."""
    if not len(matrices):
        raise UserError(f"{path} holds no pose: a path needs at least one")
    bad = (~torch.isfinite(matrices)).flatten(1).any(-1)
    if bad.any():
        raise UserError(f"{path}, pose {int(bad.float().argmax())}: a number is not finite")
    rotation = pose_from_llff(matrices[:, :, :4])[:, :3, :3]
    off = (rotation @ rotation.mT - torch.eye(3, dtype=rotation.dtype)).abs().amax((-1, -2))
    bad = (off > _RIGID) | (torch.linalg.det(rotation) < 0)
    if bad.any():
        raise UserError(
            f"{path}, pose {int(bad.float().argmax())} is no rotation with the columns "
            f"{'down, right' if path.suffix == '.npy' else 'right, up'}, backwards: write it anew"
        )
    height, width, focal = matrices[:, :, 4].unbind(-1)
    if (height != height[0]).any() or (width != width[0]).any():
        raise UserError(f"{path} has images of several sizes: the poses of a path share one")
    if min(height[0], width[0]) < 1 or height[0] % 1 or width[0] % 1 or (focal <= 0).any():
        raise UserError(f"{path}: {width[0]:g}x{height[0]:g} pixels or a focal length of it are no camera's")
