"""Scoring the views of image pairs: each against its target, on the photo and not on its padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dataloader.pairs import Pair
from dataloader.scene import Batch
from engine.device import clock
from engine.method import Evaluation
from engine.metrics import ImageMetrics
from engine.pairs import score_pairs
from geometry.views import Rendering
from methods.warp_diffusion.composite import merge_pixels
from methods.warp_diffusion.data import needed, pair_pose, pair_warp
from methods.warp_diffusion.noise import step_noise, unit_noise

if TYPE_CHECKING:
    from methods.warp_diffusion.method import WarpDiffusion


def evaluate_pairs(method: WarpDiffusion, batch: Batch, metrics: ImageMetrics) -> Evaluation:
    """Draw and score the views of `batch.pairs`; the noise of a pair depends on its name alone."""
    assert batch.pairs is not None
    started = clock(batch.target.images.device)
    images = draw_pairs(method, batch.pairs, batch.target.images.device)
    seconds = clock(batch.target.images.device) - started
    return Evaluation(score_pairs(images, batch, metrics), seconds, Rendering(images))


@torch.no_grad()
def draw_pairs(method: WarpDiffusion, pairs: list[Pair], device: torch.device) -> Tensor:
    """One view of each target, canvases [N, 3, S, S] in [0, 1]."""
    config, model = method.config, method.networks

    def stack(values: list[Tensor]) -> Tensor:
        return torch.stack(values).to(device)

    warp = small = coverage = None
    if config.warp == "pixels":
        small = stack([needed(pair.small_warp, pair, "warp") for pair in pairs]) * 2 - 1
    if config.warp == "latent":
        warp = stack([pair_warp(pair, config) for pair in pairs]) * 2 - 1
    if config.warp == "latent" or config.sampling.composite != "none":
        coverage = stack([needed(pair.coverage, pair, "coverage") for pair in pairs])
    channels = method.warp_channels(warp, small, coverage)
    source = stack([pair.source for pair in pairs]) * 2 - 1
    pose = stack([pair_pose(pair, config) for pair in pairs])
    condition = model.condition(model.encode_source(source), pose, channels)
    seen = None if config.sampling.composite == "none" else stack([pair.full_warp() for pair in pairs])
    names, shape, seed = [pair.name for pair in pairs], config.latent_shape, config.sampling.seed
    noise = torch.stack([unit_noise(shape, seed, "pair", name) for name in names])[None].to(device)
    images = method.draw(condition, noise, step_noise(names, 1, shape, seed), seen, coverage)[0]
    if seen is not None and coverage is not None and config.sampling.composite in ("pixels", "both"):
        images = merge_pixels(images, seen, coverage)
    return images
