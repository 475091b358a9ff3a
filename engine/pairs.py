"""Image pairs in evaluation: batches of them, and scores on the photo, not on its padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dataloader.pairs import Canvas, Pair, PairSet
from dataloader.scene import Batch
from engine.metrics import ImageMetrics, psnr, quantize
from geometry.cameras import Cameras, stack_cameras
from geometry.views import Rendering, Views


def pair_batches(
    pairs: PairSet, indices: Sequence[int], batch_size: int
) -> Iterator[tuple[list[int], Batch]]:
    """The pairs of `indices` in batches, with their indices."""
    for start in range(0, len(indices), batch_size):
        chosen = list(indices[start : start + batch_size])
        yield chosen, pair_batch([pairs.pair(i) for i in chosen])


def pair_batch(pairs: list[Pair]) -> Batch:
    """Pairs as one batch: canvases [N, 3, S, S], their cameras, and what the warps cover."""
    source = Views(
        torch.stack([pair.source for pair in pairs]),
        stack_cameras([_on_canvas(pair.source_camera, pair.source_canvas) for pair in pairs]),
        names=[pair.name for pair in pairs],
    )
    target = Views(
        torch.stack([pair.target for pair in pairs]),
        stack_cameras([_on_canvas(pair.target_camera, pair.target_canvas) for pair in pairs]),
        names=[pair.name for pair in pairs],
    )
    return Batch(source, target, [pair.scene for pair in pairs], pairs)


def _on_canvas(camera: Cameras, canvas: Canvas) -> Cameras:
    fitted = camera.resize(canvas.height, canvas.width)
    return fitted.crop(-canvas.top, -canvas.left, canvas.size, canvas.size)


def score_pairs(images: Tensor, batch: Batch, metrics: ImageMetrics) -> list[dict[str, float]]:
    """Scores of views [N, 3, S, S] in [0, 1] against the targets of `batch.pairs`, on the unpadded photos.

    '..._covered' counts the pixels of which the pair's warp covers at least half, 'psnr_uncovered' the
    others; without a warp everything counts as covered.
    """
    assert batch.pairs is not None
    return [
        _score(image, truth, pair, metrics)
        for image, truth, pair in zip(images, batch.target.images, batch.pairs, strict=True)
    ]


def _score(image: Tensor, truth: Tensor, pair: Pair, metrics: ImageMetrics) -> dict[str, float]:
    cut = pair.target_canvas.cut
    opacity = None if pair.coverage is None else cut(pair.coverage.to(image))[None]
    rendering = Rendering(cut(image)[None], opacity=opacity)
    target = Views(cut(truth)[None], pair.target_camera.resize(*rendering.image.shape[-2:])[None])
    row = metrics.score(rendering, target)[0]
    hidden = 1 - rendering.covered()
    row["psnr_uncovered"] = float(psnr(quantize(rendering.image), quantize(target.images), hidden))
    return row
