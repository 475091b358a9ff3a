"""Contact sheets: pictures side by side with captions, for people who look rather than read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dataloader.images import to_uint8, write_image

_GAP, _CAPTION, _FONT_SIZE = 6, 18, 13
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def contact_sheet(
    rows: Sequence[Sequence[Tensor]],
    titles: Sequence[str] = (),
    captions: Sequence[Sequence[str]] | None = None,
    height: int = 220,
) -> NDArray[np.uint8]:
    """Lay images [3, H, W] in [0, 1] out as a table.

    titles: one per column, above the first row. captions: one per image, below it. height: of every image, in
    pixels; columns are as wide as their widest image or text. Returns [H, W, 3] uint8.
    """
    thumbs = [[_thumbnail(image, height) for image in row] for row in rows]
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [titles, *(captions or ())]
    widths = [
        max(
            *(row[c].width for row in thumbs if c < len(row)),
            *(math.ceil(font.getlength(row[c])) + 4 for row in texts if c < len(row)),
            1,
        )
        for c in range(max(map(len, thumbs)))
    ]
    top = _CAPTION if titles else 0
    row_height = height + _GAP + (_CAPTION if captions else 0)
    sheet = Image.new(
        "RGB", (sum(widths) + _GAP * (len(widths) + 1), top + _GAP + row_height * len(rows)), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    lefts = [_GAP + sum(widths[:c]) + _GAP * c for c in range(len(widths))]
    for left, title in zip(lefts, titles, strict=False):
        draw.text((left + 2, 2), title, fill=_INK, font=font)
    for r, row in enumerate(thumbs):
        y = top + _GAP + r * row_height
        for c, thumb in enumerate(row):
            sheet.paste(thumb, (lefts[c], y))
            if captions:
                draw.text((lefts[c] + 2, y + height + 1), captions[r][c], fill=_INK, font=font)
    return np.asarray(sheet)


def _thumbnail(image: Tensor, height: int) -> Image.Image:
    picture = Image.fromarray(to_uint8(image))
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def error_map(image: Tensor, target: Tensor, full_scale: float = 0.25) -> Tensor:
    """Mean absolute error per pixel as a colour map: black 0, red, yellow, white at `full_scale`.

    [3, H, W] in and out.
    """
    error = ((image - target).abs().mean(0) / full_scale).clamp(0, 1)
    return torch.stack([(error * 3 - shift).clamp(0, 1) for shift in (0, 1, 2)])


def depth_map(depth: Tensor) -> Tensor:
    """Z-depth [1, H, W] (0 = nothing) as a colour map: near bright, far dark, by inverse depth.

    Returns [3, H, W].
    """
    known = depth[0] > 0
    if not known.any():
        return torch.zeros(3, *depth.shape[-2:])
    inverse = torch.where(known, 1 / depth[0].clamp(min=1e-12), 0.0)
    low, high = inverse[known].quantile(torch.tensor([0.02, 0.98], dtype=inverse.dtype))
    value = ((inverse - low) / (high - low).clamp(min=1e-12)).clamp(0, 1) * known
    return (
        torch.stack([(value * 2 - 0.4), value**0.7, (0.35 + 0.5 * value - value**3 * 0.6)]).clamp(0, 1)
        * known
    )


def write_sheet(sheet: NDArray[np.uint8], path: Path) -> None:
    """Write a contact sheet as an image file. Raises UserError where it cannot be written."""
    write_image(sheet, path)
