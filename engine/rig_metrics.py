"""Scores of clips: the regions of a rig's held-out cameras, one by one, and how still the static parts are.

Images are rounded to 8 bits, as in `engine.metrics`. Pooled scores are over all pixels of all images at once,
not means of scores per image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from engine.metrics import psnr, quantize
from engine.rig_regions import Regions

DEFINITIONS = {
    "psnr_dynamic": "dB, per image over the pixels that show something that moves (the target's matte)",
    "psnr_static": "dB, per image over all other pixels",
    "psnr_disoccluded": "dB, per image over static pixels that no source camera sees at that moment",
    "psnr_recoverable": "dB, per image over those of them that are on a source's background plate",
    "flicker": "mean |frame - the moment before| * 255 over pixels static at both moments, same camera",
    "flicker_true": "the same of the true frames",
    "psnr_dynamic_pooled": "dB of the squared error pooled over all dynamic pixels of all images",
    "psnr_static_pooled": "dB of the squared error pooled over all static pixels of all images",
    "psnr_disoccluded_pooled": "dB of the squared error pooled over all static, unseen pixels of all images",
    "psnr_recoverable_pooled": "dB of the squared error pooled over those on a source's background plate",
    "flicker_pooled": "flicker pooled over all such pixels of all pairs of moments",
    "flicker_true_pooled": "the same of the true frames",
    "pooled_pixels": "how many pixels each pooled score is over",
}

_REGIONS = {  # score -> the attribute of `Regions`
    "psnr_dynamic": "dynamic",
    "psnr_static": "static",
    "psnr_disoccluded": "unseen",
    "psnr_recoverable": "recoverable",
}
_TINY = 1e-12  # of squared errors, so that a perfect region has a finite score (120 dB)


@dataclass
class Pool:
    """A sum over pixels and their number."""

    total: float = 0.0
    pixels: int = 0

    def add(self, total: float, pixels: int) -> None:
        self.total += total
        self.pixels += pixels

    @property
    def mean(self) -> float:
        return self.total / self.pixels if self.pixels else math.nan


@dataclass
class Frame:
    """What is kept of an image until the next moment: the render and the truth [3, H, W], rounded; static:
    [1, H, W] bool.
    """

    moment: int
    image: Tensor
    truth: Tensor
    static: Tensor


@dataclass
class ClipScores:
    """Scores of one method's renders of clips, in the order of the moments; one moment is remembered."""

    pools: dict[str, Pool] = field(default_factory=dict)
    before: dict[tuple[Any, ...], Frame] = field(default_factory=dict)

    def add(
        self,
        place: tuple[int, int],
        cameras: Sequence[Any],
        images: Tensor,
        truth: Tensor,
        regions: Regions,
        counts: bool = True,
    ) -> list[dict[str, float]]:
        """Score targets [N, 3, H, W] of one moment; a dict per image, nan for what is undefined.

        place: clip and moment. cameras: what tells the targets apart, [N]. counts: False takes the images as
        the moment before only.
        """
        images, truth = quantize(images), quantize(truth)
        self.before = {key: frame for key, frame in self.before.items() if key[0] == place[0]}
        rows: list[dict[str, float]] = [{} for _ in range(len(images))]
        for name, attribute in _REGIONS.items():
            mask = getattr(regions, attribute)
            values = [math.nan] * len(images)
            if mask is not None and counts:
                values = psnr(images, truth, mask.float()).tolist()
                self._pool_errors(name, images, truth, mask)
            for row, value in zip(rows, values, strict=True):
                row[name] = value
        for i, row in enumerate(rows):
            row["flicker"] = row["flicker_true"] = math.nan
            if regions.static is not None:
                frame = Frame(place[1], images[i], truth[i], regions.static[i])
                row |= self._flicker((place[0], cameras[i]), frame, counts)
        return rows

    def _pool_errors(self, name: str, images: Tensor, truth: Tensor, mask: Tensor) -> None:
        squared = ((images - truth) ** 2).mean(1, keepdim=True)
        self._pool(name).add(float(squared[mask].double().sum()), int(mask.sum()))

    def _flicker(self, key: tuple[Any, ...], frame: Frame, counts: bool) -> dict[str, float]:
        """How a frame differs from the one of the moment before, where that was scored; keeps it."""
        last = self.before.get(key)
        self.before[key] = frame
        if last is None or last.moment != frame.moment - 1 or not counts:
            return {}
        still = (frame.static & last.static)[0]
        scores = {}
        for name, now, then in (
            ("flicker", frame.image, last.image),
            ("flicker_true", frame.truth, last.truth),
        ):
            change = (now - then).abs().mean(0)[still].double() * 255
            self._pool(name).add(float(change.sum()), len(change))
            scores[name] = float(change.mean())  # nan where no pixel is static
        return scores

    def _pool(self, name: str) -> Pool:
        return self.pools.setdefault(name, Pool())

    def merge(self, pools: dict[str, Pool]) -> None:
        """Take in what another process has pooled."""
        for name, pool in pools.items():
            self._pool(name).add(pool.total, pool.pixels)

    def pooled(self) -> dict[str, Any]:
        """Scores over all pixels at once, by name, of what has pixels; and the numbers of pixels."""
        scores: dict[str, Any] = {}
        for name in (*_REGIONS, "flicker", "flicker_true"):
            pool = self.pools.get(name)
            if pool is not None and pool.pixels:
                error = name in _REGIONS
                scores[f"{name}_pooled"] = -10 * math.log10(max(pool.mean, _TINY)) if error else pool.mean
        pixels = {f"{name}_pooled": pool.pixels for name, pool in self.pools.items() if pool.pixels}
        return {**scores, "pooled_pixels": pixels} if scores else {}


def region_picture(truth: Tensor, regions: Regions, index: int) -> Tensor | None:
    """The regions of target `index` over its darkened true image [3, H, W]: red moves, green is unseen but on
    a plate, blue is unseen otherwise. None where there is no matte.
    """
    if regions.dynamic is None:
        return None
    picture = truth.mean(0, keepdim=True).expand(3, -1, -1) * 0.5
    colors = {"dynamic": (1.0, 0.25, 0.2), "unseen": (0.25, 0.45, 1.0), "recoverable": (0.2, 0.9, 0.3)}
    for name, color in colors.items():
        mask = getattr(regions, name)
        if mask is not None:
            tint = torch.tensor(color).to(truth)[:, None, None]
            picture = torch.where(mask[index].to(truth.device), 0.5 * picture + 0.6 * tint, picture)
    return picture.clamp(0, 1)
