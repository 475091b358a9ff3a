"""Multi-plane images on disk: the folders of LLFF (`metadata.txt` and `mpi.b`; specs/mask_volume 6).

`metadata.txt` holds six lines of numbers with a space between: height, width, planes and focal length in
pixels; the camera-to-world axes right, up and backwards and the position, a line each; the depths of the
farthest and the nearest plane. `mpi.b` holds one byte per channel: planes far to near, rows, columns, RGBA
with colours that are not multiplied by alpha. Planes are evenly spaced in inverse depth.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from geometry.cameras import Cameras, pinhole
from geometry.planes import PlaneImage, plane_depths

METADATA, LAYERS = "metadata.txt", "mpi.b"
_OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)  # column signs, to OpenCV axes and back
_MAX_LOSS = 0.01  # pixels; for depths, of the distance in inverse depth between neighbouring planes
_RIGID = 1e-3  # by which the products of a pose's axes may differ from those of a rotation


def write_mpi(planes: PlaneImage, folder: Path) -> list[str]:
    """Write one multi-plane image [D, H, W, 4]. Returns, in words, what the format cannot hold.

    Colours that are multiplied by alpha are divided by it: where alpha changes, the file looks a little
    different between pixels, because colours are then interpolated without alpha. Channels are clamped to
    [0, 1] and rounded to 8 bits; a colour where alpha is 0 is black. Files of an MPI in `folder` are
    replaced, both or none; others stay.

    Raises UserError when the format would bend the camera by more than a hundredth of a pixel (fx and fy
    differ, principal point off the centre, skew), when depths are not evenly spaced in inverse depth, when a
    number is not finite, and when the folder cannot be written. Raises ValueError for several images.
    """
    folder = Path(folder)
    if planes.depths.dim() != 1:
        raise ValueError(f"a folder holds one multi-plane image, got {tuple(planes.layers.shape)}")
    text = _metadata(planes, folder)
    with replacing(folder / METADATA) as metadata, replacing(folder / LAYERS) as layers:
        metadata.write_text(text, encoding="ascii")
        with layers.open("wb") as file:
            for layer in planes.layers:
                file.write(_straight_bytes(layer, planes.premultiplied, folder))
        (folder / METADATA).unlink(missing_ok=True)  # so that a kill now leaves no MPI, not a mixed one
    return ["that the farthest plane goes on beyond its edges"] if planes.backdrop else []


def read_mpi(folder: Path) -> PlaneImage:
    """Read a folder: layers float32 [D, H, W, 4], not multiplied by alpha; depths and camera are float64.

    Raises UserError when a file is missing, cut off or malformed, or when the two do not fit each other.
    """
    folder = Path(folder)
    path = folder / METADATA
    rows = _rows(path)
    height, width, count = (_whole(path, number) for number in rows[0][:3])
    focal, (far, near) = rows[0][3], rows[5]
    if focal <= 0:
        raise UserError(f"{path}, line 1: the focal length is {focal:g}, it must be above 0")
    if not 0 < near < far or count < 2:
        raise UserError(
            f"{path}: {count} planes from {far:g} to {near:g}: there must be at least 2, and line 6 must be "
            "'far near' with 0 < near < far"
        )
    bounds = torch.tensor([near, far], dtype=torch.float64)
    depths = plane_depths(bounds[0], bounds[1], count)
    camera = pinhole(focal, height, width, _pose(path, rows[1:5]))
    return PlaneImage(_read_layers(folder / LAYERS, (count, height, width, 4)), depths, camera)


def _metadata(planes: PlaneImage, folder: Path) -> str:
    camera = planes.camera.to("cpu", torch.float64)
    _refuse_loss(camera, folder)
    far, near = _depth_range(planes.depths.detach().to("cpu", torch.float64), folder)
    columns = (camera.c2w * _OPENGL)[:3].T.tolist()
    size = [camera.height, camera.width, len(planes.depths), float(camera.focal.mean())]
    return "".join(" ".join(map(repr, row)) + "\n" for row in [size, *columns, [far, near]])


def _refuse_loss(camera: Cameras, folder: Path) -> None:
    """Raise UserError for a camera that one focal length and the image size cannot hold."""
    if not torch.isfinite(camera.K).all() or not torch.isfinite(camera.c2w).all():
        raise UserError(f"{folder} is not written: the reference camera is not finite")
    (fx, skew, cx), (_, fy, cy) = camera.K[:2].tolist()
    half = max(camera.height, camera.width) / 2
    loss = {
        "fx differs from fy": abs(fx / fy - 1) * half,
        "the principal point is not the image centre": max(
            abs(cx - camera.width / 2), abs(cy - camera.height / 2)
        ),
        "the pixels are skewed": abs(skew / fy) * half,
    }
    for what, pixels in loss.items():
        if pixels > _MAX_LOSS:
            raise UserError(
                f"{folder} cannot hold the reference camera: {what} ({pixels:.2f} px), and LLFF stores one "
                "focal length; resample the planes to such a camera first"
            )


def _depth_range(depths: Tensor, folder: Path) -> tuple[float, float]:
    """The farthest and the nearest of depths [D]; UserError unless the others follow from them."""
    disparity = 1 / depths
    count, first, last = len(depths), float(disparity[0]), float(disparity[-1])
    if count < 2 or not 0 < first < last < math.inf:
        raise UserError(f"{folder} cannot hold the planes: LLFF needs two or more, from far to near")
    steps = torch.linspace(first, last, count, dtype=torch.float64)
    if float((disparity - steps).abs().max()) > _MAX_LOSS * (last - first) / (count - 1):
        raise UserError(
            f"{folder} cannot hold the planes: they are not evenly spaced in inverse depth, and LLFF stores "
            "only the farthest and the nearest depth"
        )
    return float(depths[0]), float(depths[-1])


def _straight_bytes(layer: Tensor, premultiplied: bool, folder: Path) -> bytes:
    """One plane [H, W, 4] as bytes, its colours not multiplied by alpha."""
    layer = layer.detach().to("cpu", torch.float32)
    if not torch.isfinite(layer).all():
        raise UserError(f"{folder} is not written: the planes hold numbers that are not finite")
    color, alpha = layer[..., :3], layer[..., 3:]
    if premultiplied:
        color = torch.where(alpha > 0, color / alpha.clamp(min=1e-12), 0.0)
    straight = torch.cat([color, alpha], -1).clamp(0, 1)
    return (straight * 255).round().to(torch.uint8).numpy().tobytes()


def _rows(path: Path) -> list[list[float]]:
    """The numbers of the six lines."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a folder with {METADATA} and {LAYERS}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text: it must hold six lines of numbers") from None
    wanted = ["height width planes focal", *["x y z"] * 4, "far near"]
    if len(lines) < len(wanted):
        raise UserError(f"{path} has {len(lines)} of {len(wanted)} lines; is the file cut off?")
    return [_numbers(path, i, line, wanted[i]) for i, line in enumerate(lines[: len(wanted)])]


def _numbers(path: Path, index: int, line: str, wanted: str) -> list[float]:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) != len(wanted.split()) or not all(map(math.isfinite, numbers)):
        raise UserError(f"{path}, line {index + 1} is {line[:60]!r}, it must be the numbers '{wanted}'")
    return numbers


def _whole(path: Path, number: float) -> int:
    if number < 1 or number != int(number):
        raise UserError(f"{path}, line 1: {number:g} is no size, it must be 'height width planes focal'")
    return int(number)


def _pose(path: Path, columns: list[list[float]]) -> Tensor:
    """c2w [4, 4], OpenCV axes, from the columns right, up, backwards and position."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3] = torch.tensor(columns, dtype=torch.float64).T
    rotation = c2w[:3, :3]
    square = rotation @ rotation.T - torch.eye(3, dtype=torch.float64)
    if square.abs().max() > _RIGID or torch.linalg.det(rotation) < 0:
        raise UserError(
            f"{path}, lines 2 to 4 are no camera axes: right, up and backwards must be at right angles, each "
            "of length 1"
        )
    return c2w * _OPENGL


def _read_layers(path: Path, shape: tuple[int, int, int, int]) -> Tensor:
    """[D, H, W, 4] float32 in [0, 1]."""
    try:
        values = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: an MPI is {METADATA} and {LAYERS}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    if len(values) != math.prod(shape):
        count, height, width, _ = shape
        raise UserError(
            f"{path} has {len(values)} bytes, {count} planes of {width}x{height} RGBA are "
            f"{math.prod(shape)}: it is cut off or does not belong to {METADATA}"
        )
    return torch.from_numpy(values.reshape(shape)).float().div_(255)
