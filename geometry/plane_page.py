"""Multi-plane images as one HTML page that shows them with parallax: plain WebGL 2, no library, no network.

The page (`plane_page.html`, with its script and shader beside it) follows the ray of each pixel through the
planes, by the rules of `geometry.planes`, and holds them as loss-free pictures of 8 bits per channel.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

from common.errors import UserError
from common.files import replacing
from geometry.planes import PlaneImage, plane_weights

_MAX_SIDE = 4096  # pixels; the largest texture that phones draw
_MAX_PLANES = 200  # WebGL 2 promises 224 numbers for a shader, and layers enough
_PARTING = 1.0  # pixels by which neighbouring planes part at the end of the way (specs/mask_volume 8)
_PARALLAX = 0.03, 0.06  # of the width: least and most parallax between far and near at the end of the way
_SEEN = 0.02, 0.98  # these parts of what is seen lie beyond 'far', and beyond 'near'
_UPWARDS = 0.6  # of the way sideways
_FORWARD, _BACK = 0.4, 0.1  # of the distance to the nearest plane


def write_page(planes: PlaneImage, path: Path, title: str) -> None:
    """Write one multi-plane image [D, H, W, 4] as a page that needs nothing but a browser with WebGL 2.

    Pointer, touch, wheel and keys move the camera within a range around the reference: as far as neighbouring
    planes part by about a pixel, and forward two fifths of the way to the nearest plane. Meanwhile the mean
    depth of what is seen stays in place, and the picture is magnified enough to hide the edges of the planes
    (not when the farthest goes on beyond its edges). Until someone takes it, the camera sways.

    An address that ends in `#x=0.1&y=0&z=0` holds the camera still at that place instead, in world units
    along the reference camera's axes (x right, y down, z forward), turned and magnified as the reference is;
    with `&size=native` one pixel of the planes is one pixel of the screen, from the top left corner on. The
    document's element has the attribute `data-state`: 'drawn' once a picture stands, 'failed' where a
    sentence stands in its place.

    Channels are clamped to [0, 1] and rounded to 8 bits. Raises UserError for planes above 4096 pixels a
    side or more than 200 of them, for skewed pixels and numbers that are not finite, and when the file cannot
    be written; ValueError for several images.
    """
    path = Path(path)
    if planes.depths.dim() != 1:
        raise ValueError(f"a page shows one multi-plane image, got {tuple(planes.layers.shape)}")
    planes = planes.to("cpu")
    _refuse(planes, path)
    values = {
        "TITLE": html.escape(title),
        "NOTE": html.escape(_note(planes)),
        "SCENE": json.dumps(_scene(planes), separators=(",", ":")),
        "SHADER": _source("glsl"),
        "SCRIPT": _source("js"),
    }
    page = re.sub(f"__({'|'.join(values)})__", lambda found: values[found[1]], _source("html"))
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _source(kind: str) -> str:
    """The page's own text: html, js or glsl."""
    return files("geometry").joinpath(f"plane_page.{kind}").read_text(encoding="utf-8")


def _refuse(planes: PlaneImage, path: Path) -> None:
    """Raise UserError for what a page cannot show."""
    camera, count = planes.camera, len(planes.depths)
    if max(camera.height, camera.width) > _MAX_SIDE or count > _MAX_PLANES:
        raise UserError(
            f"{path} cannot hold {count} planes of {camera.width}x{camera.height}: at most {_MAX_PLANES} of "
            f"{_MAX_SIDE} pixels a side can be drawn everywhere; make a smaller multi-plane image"
        )
    if abs(float(camera.K[0, 1])) > 1e-6 * float(camera.K[0, 0]):
        raise UserError(
            f"{path} cannot hold the reference camera: its pixels are skewed; resample the planes"
        )
    finite = torch.isfinite(planes.layers).all() and torch.isfinite(camera.K).all()
    if not finite or not (planes.depths > 0).all():
        raise UserError(f"{path} is not written: planes or camera are not finite, or depths not above 0")


def _note(planes: PlaneImage) -> str:
    """One line on what the page shows."""
    camera, depths = planes.camera, planes.depths
    size = f"{camera.width} × {camera.height} pixels"
    return f"{size}, {len(depths)} planes, near {float(depths[-1]):.3g}, far {float(depths[0]):.3g}"


def _scene(planes: PlaneImage) -> dict[str, Any]:
    """What the page's script reads: numbers and pictures. Planes that are empty everywhere are left out."""
    layers = (planes.layers.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)  # [D, H, W, 4]
    filled = layers.flatten(1).any(1) if planes.premultiplied else layers[..., 3].flatten(1).any(1)
    if not filled.any():
        filled[0] = True
    kept = filled.nonzero()[:, 0]
    camera, disparity = planes.camera, (1 / planes.depths.detach().double())
    pictures = [_pictures(layers[k], planes.premultiplied) for k in kept]
    return {
        "size": [camera.width, camera.height],
        "focal": camera.focal.tolist(),
        "center": camera.K[:2, 2].tolist(),
        "disparity": disparity[kept].tolist(),
        "premultiplied": planes.premultiplied,
        "backdrop": planes.backdrop and bool(filled[0]),
        **_range(planes, disparity, kept),
        "colors": [color for color, _ in pictures],
        "alphas": [alpha for _, alpha in pictures],
    }


def _range(planes: PlaneImage, disparity: Tensor, kept: Tensor) -> dict[str, Any]:
    """How far the camera may go, which inverse depth stays in place on the way, and the magnification.

    disparity: [D], far to near. kept: [planes] indices of those that are not empty.
    """
    seen = plane_weights(planes.layers[..., 3].detach().float().clamp(0, 1)).mean((1, 2)).double()  # [D]
    seen = seen / seen.sum() if seen.sum() > 0 else torch.full_like(seen, 1 / len(seen))
    upto = seen.cumsum(0)
    far, near = (float(disparity[int((upto < part).sum())]) for part in _SEEN)
    pivot, nearest = float((seen * disparity).sum()), float(disparity[kept].max())
    width, height, focal = planes.camera.width, planes.camera.height, float(planes.camera.K[0, 0])
    between = int(((disparity > far) & (disparity <= near)).sum())
    least, most = (part * width for part in _PARALLAX)
    parallax = min(max(_PARTING * between, least), most)  # pixels
    sideways = parallax / (focal * max(near - far, 0.1 * nearest))
    hidden = focal * sideways * max(near - pivot, pivot - far)
    return {
        "reach": {"x": sideways, "y": min(_UPWARDS, height / width) * sideways, "z": _FORWARD / nearest},
        "back": _BACK / nearest if planes.backdrop else 0.0,  # else edges would show
        "pivot": pivot,
        "zoom": 1.0 if planes.backdrop else width / (width - 2 * hidden),
    }


def _pictures(layer: Tensor, premultiplied: bool) -> tuple[str, str]:
    """Colours and alpha of one plane [H, W, 4] uint8 as `data:` addresses.

    Apart from each other, so that no browser multiplies or divides colours by alpha. Colours that touch no
    pixel with alpha are never seen: black, they take no room.
    """
    alpha = layer[..., 3]
    near = max_pool2d(alpha[None].float(), 3, 1, 1)[0] > 0
    color = layer[..., :3] if premultiplied else layer[..., :3] * near[..., None]
    return _data_address(color.numpy()), _data_address(alpha.numpy())


def _data_address(pixels: NDArray[np.uint8]) -> str:
    """[H, W] or [H, W, 3] as a loss-free picture in a `data:` address."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", lossless=True, quality=20, method=1)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
