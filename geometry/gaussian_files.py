"""3D Gaussians as the .ply files that splat viewers read (Kerbl et al. 2023; specs/scene_lifting 3.5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from geometry.gaussians import REST, Gaussians, rotate_gaussians

_POSITION, _NORMAL = ("x", "y", "z"), ("nx", "ny", "nz")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALES = ("scale_0", "scale_1", "scale_2")
_QUATERNION = ("rot_0", "rot_1", "rot_2", "rot_3")
_REST_COUNTS = (0, 9, 24, 45)  # of degrees 0 to 3, all three channels


def write_gaussians(path: Path, gaussians: Gaussians, original_axes: bool = False) -> None:
    """Write a binary .ply of float32 numbers: positions, normals (0), colours, opacity logits, log-scales,
    quaternions (w, x, y, z); of the coefficients beyond the constant first all of red, then green, then blue.

    The world is written as it is. original_axes: with positions as they are, but axes and colours for a world
    whose y and z point the other way; such inconsistent files are what the original of scene lifting writes.
    Raises UserError when the file cannot be written.
    """
    if original_axes:
        gaussians = _flip_contents(gaussians)
    count, rest = len(gaussians), gaussians.sh_rest.shape[1] * 3
    columns = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        gaussians.sh_dc.reshape(count, 3),
        gaussians.sh_rest.transpose(1, 2).reshape(count, rest),
        gaussians.opacity_logits,
        gaussians.log_scales,
        gaussians.quaternions,
    ]
    names = [*_POSITION, *_NORMAL, *_DC, *_rest_names(rest), "opacity", *_SCALES, *_QUATERNION]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    table = torch.cat([column.detach().cpu().float() for column in columns], dim=1).numpy().astype("<f4")
    with replacing(path) as partial, partial.open("wb") as file:
        file.write("\n".join(header).encode())
        file.write(table.tobytes())


def read_gaussians(path: Path, original_axes: bool = False) -> Gaussians:
    """Read such a file, of colours up to degree 3; missing coefficients are 0.

    original_axes: the file is one of the original of scene lifting (`write_gaussians`), and is put right.
    Raises UserError for a file that is missing, cut off, no .ply, or holds no Gaussians.
    """
    import plyfile

    try:
        elements = {element.name: element.data for element in plyfile.PlyData.read(str(path), mmap=False)}
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from None
    except (plyfile.PlyParseError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} is not a readable PLY file ({error}); is the file cut off?") from None
    if "vertex" not in elements:
        raise UserError(f"{path} holds no vertices: is it a file of 3D Gaussians?")
    gaussians = _from_vertices(path, elements["vertex"])
    return _flip_contents(gaussians) if original_axes else gaussians


def _from_vertices(path: Path, vertex: NDArray[np.void]) -> Gaussians:
    """Gaussians of the vertices of a file, which is named in errors."""
    present = set(vertex.dtype.names or ())
    missing = [name for name in (*_POSITION, *_DC, "opacity", *_SCALES, *_QUATERNION) if name not in present]
    if missing:
        raise UserError(f"{path} holds no 3D Gaussians: its vertices lack {', '.join(missing)}")
    rest = sum(name.startswith("f_rest_") for name in present)
    if rest not in _REST_COUNTS or not set(_rest_names(rest)) <= present:
        raise UserError(f"{path} has {rest} coefficients f_rest_*: 0, 9, 24 or 45 are expected")

    def columns(names: tuple[str, ...]) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(vertex[name], np.float32) for name in names], axis=1))

    count = len(vertex)
    sh_rest = torch.zeros(count, REST, 3)
    if rest:
        sh_rest[:, : rest // 3] = columns(_rest_names(rest)).reshape(count, 3, -1).transpose(1, 2)
    made = Gaussians(
        means=columns(_POSITION),
        log_scales=columns(_SCALES),
        quaternions=columns(_QUATERNION),
        opacity_logits=columns(("opacity",)),
        sh_dc=columns(_DC)[:, None],
        sh_rest=sh_rest,
    )
    if not all(bool(tensor.isfinite().all()) for tensor in vars(made).values()):
        raise UserError(f"{path} holds numbers that are not finite: write it anew")
    return made


def _rest_names(count: int) -> tuple[str, ...]:
    return tuple(f"f_rest_{i}" for i in range(count))


def _flip_contents(gaussians: Gaussians) -> Gaussians:
    """Axes and colours turned by half a revolution about x, positions kept; twice changes nothing."""
    flip = torch.diag(gaussians.means.new_tensor([1.0, -1.0, -1.0]))
    turned = rotate_gaussians(gaussians, flip)
    turned.means = gaussians.means
    return turned
