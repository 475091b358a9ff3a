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
from engine.sampling import key
from geometry.views import Rendering
from methods.warp_diffusion.best_frame import best_frame
from methods.warp_diffusion.composite import keep_visible, merge_pixels
from methods.warp_diffusion.data import needed, pair_pose, pair_warp

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
    """Views of the targets, canvases [N, 3, S, S] in [0, 1]."""
    config, model = method.config, method.networks

    def stack(values: list[Tensor]) -> Tensor:
        return torch.stack(values).to(device)

    source = stack([pair.source for pair in pairs]) * 2 - 1
    warp = small = coverage = None
    if config.warp != "none":
        small = stack([needed(pair.small_warp, pair, "warp") for pair in pairs]) * 2 - 1
    composites = config.sampling.composite != "none"
    if config.warp == "latent" or composites or config.sampling.samples > 1:
        warp = stack([pair_warp(pair, config) for pair in pairs]) * 2 - 1
        coverage = stack([needed(pair.coverage, pair, "coverage") for pair in pairs])
    channels = method._warp_channels(warp, small, coverage)
    pose = stack([pair_pose(pair, config) for pair in pairs])
    condition = model.condition(model.encode_source(source), pose, channels)
    shape = (config.sampling.samples, config.autoencoder.latent_channels, *(config.latent_size,) * 2)
    noises = [_noise(shape, config.sampling.seed, pair.name) for pair in pairs]
    adjust = None
    if config.sampling.composite in ("latent", "both"):
        assert coverage is not None
        adjust = keep_visible(model, stack([pair.full_warp() for pair in pairs]) * 2 - 1, coverage)
    step_noise = torch.Generator().manual_seed(key(config.sampling.seed, "steps", pairs[0].name))
    samples = method._decode(condition, torch.stack(noises, 1).to(device), adjust, step_noise)
    if coverage is None:
        return samples[0]
    seen = stack([pair.full_warp() for pair in pairs])
    if config.sampling.composite in ("pixels", "both"):
        samples = merge_pixels(samples, seen, coverage)
    covered = (coverage >= 0.5).float()
    chosen = [best_frame(samples[:, n], seen[n], covered[n]) for n in range(len(pairs))]
    return samples[chosen, torch.arange(len(pairs))]


def _noise(shape: tuple[int, ...], seed: int, name: str) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(key(seed, "pair", name)))
