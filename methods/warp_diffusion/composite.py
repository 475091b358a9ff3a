"""Keeping what the warp shows: composited into the clean latents at every step, or into the final image.

The covered region is known; a diffusion model repaints it all the same (15 dB to the warp in the published
videos, specs/warp_diffusion 7). Both ways use the soft coverage as the weight.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geometry.warp import fill_nearest
from methods.warp_diffusion.model import LatentDiffusion


def keep_visible(
    model: LatentDiffusion, warp: Tensor, coverage: Tensor
) -> Callable[[Tensor, slice, int], Tensor]:
    """An `adjust` for `LatentDiffusion.sample` that puts the warp's latents where the warp covers.

    warp: canvases [N, 3, S, S] in [-1, 1]. coverage: [N, 1, S, S]. The samples are S times these N views, in
    that order. A latent pixel is kept in proportion to how much more than half of it is covered. Holes are
    filled with their nearest covered colours before the warp is encoded, so that black does not bleed.
    """
    filled = torch.stack([fill_nearest(w, c[0] > 0.5) for w, c in zip(warp, coverage, strict=True)])
    known = model.target_latents(filled, None)
    mask = torch.nn.functional.adaptive_avg_pool2d(coverage, (known.shape[-2], known.shape[-1]))
    mask = (2 * mask - 1).clamp(min=0)

    def adjust(clean: Tensor, part: slice, t: int) -> Tensor:
        rows = torch.arange(part.start, part.stop, device=clean.device) % len(known)
        return clean + mask[rows] * (known[rows] - clean)

    return adjust


def merge_pixels(samples: Tensor, warp: Tensor, coverage: Tensor) -> Tensor:
    """Samples [S, N, 3, H, W] with the warp [N, 3, H, W], of full colours, laid over by its coverage.

    coverage: [N, 1, H, W]. Pixels that are covered by half or more are the warp's, others in proportion.
    """
    return samples + (2 * coverage).clamp(max=1) * (warp - samples)
