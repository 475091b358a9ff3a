"""Depth scores while training, with sparse depth and without (specs/scene_lifting 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dataloader.depth.samples import SampleSettings
from dataloader.depth.teacher import DepthTestSet
from dataloader.images import to_tensor
from engine.depth_metrics import hidden_scores, validation_scores
from methods.scene_lifting.data import DepthData, DepthItems, held_out_sample
from methods.scene_lifting.losses import scale_and_shift

Predict = Callable[[Tensor, Tensor], Tensor]  # images [1, 3, H, W], sparse depth [1, 1, H, W] -> [1, 1, H, W]

_HIDDEN = ("mae", "abs_rel", "delta1")
_WHOLE = ("abs_rel", "rmse", "a1")


def validate(predict: Predict, data: DepthData, settings: SampleSettings, limit: int) -> dict[str, float]:
    """Mean scores over at most `limit` held-out items (0: all), evenly spread.

    hidden_*: on the pixels that are hidden, completed from the others. plain_*: on the same pixels without
    any sparse depth, scaled and shifted to it. nyu_*: on photos with measured depth, without sparse depth,
    scaled and shifted, on the crop of Eigen et al. Empty where there is nothing held out.
    """
    rows: list[dict[str, float]] = []
    if data.held_out is not None:
        chosen = _spread(len(data.held_out), limit)
        rows = list(_hidden_rows(predict, data.held_out, chosen, settings))
    means = _means(rows)
    if data.measured is not None:
        chosen = _spread(len(data.measured), limit)
        means |= _means([_measured_row(predict, data.measured, i) for i in chosen])
    return means


def _spread(count: int, limit: int) -> list[int]:
    if not 0 < limit < count:
        return list(range(count))
    return [i * count // limit for i in range(limit)]


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def _hidden_rows(
    predict: Predict, items: DepthItems, chosen: list[int], settings: SampleSettings
) -> Iterator[dict[str, float]]:
    """Scores of the items that have hidden pixels of known depth."""
    for index in chosen:
        sample = held_out_sample(items, index, settings)
        image, depth, sparse = sample.image[None], sample.depth[None], sample.masked_depth[None]
        hidden = ((sparse == 0) & (sample.valid[None] > 0)).float()
        known = sparse > 0
        if not hidden.any() or not known.any():
            continue
        completed, plain = predict(image, sparse), predict(image, torch.zeros_like(sparse))
        aligned = align(plain, sparse, known)
        yield {
            **{f"hidden_{k}": v for k, v in hidden_scores(completed, depth, hidden).items() if k in _HIDDEN},
            **{f"plain_{k}": v for k, v in hidden_scores(aligned, depth, hidden).items() if k in _HIDDEN},
        }


def _measured_row(predict: Predict, photos: DepthTestSet, index: int) -> dict[str, float]:
    photo, measured = photos.load(index)
    image = to_tensor(photo)[None]
    depth = torch.from_numpy(measured)[None, None]
    predicted = predict(image, torch.zeros_like(depth))
    scores = validation_scores(align(predicted, depth, depth > 0), depth, "eigen")
    return {f"nyu_{name}": scores[name] for name in _WHOLE}


def align(predicted: Tensor, depth: Tensor, known: Tensor) -> Tensor:
    """A prediction [B, 1, H, W] scaled and shifted to the known depth, by least squares."""
    scale, shift = scale_and_shift(predicted, depth, known)
    return scale[:, None, None, None] * predicted + shift[:, None, None, None]
