"""Training samples: image pairs with the random numbers that their loss needs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.pairs import Pair, PairSet
from engine.sampling import generator
from geometry.warp import fill_nearest
from methods.warp_diffusion.config import WarpDiffusionConfig
from methods.warp_diffusion.model import Draws
from methods.warp_diffusion.pose_encoding import relative_pose, zeronvs_pose
from methods.warp_diffusion.schedule import TIMESTEPS
from methods.warp_diffusion.warps import to_canvas


@dataclass
class PairSample:
    """A batch of N pairs. source, target, warp: canvases [N, 3, S, S] in [-1, 1]. small_warp: [N, 3, s, s] in
    [-1, 1]. coverage: [N, 1, S, S] in [0, 1]. pose: [N, 19]. The rest: `Draws`.

    Warps are absent (None) for models that see none.
    """

    source: Tensor
    target: Tensor
    pose: Tensor
    posterior: Tensor
    uniform: Tensor
    t: Tensor
    noise: Tensor
    warp: Tensor | None = None
    small_warp: Tensor | None = None
    coverage: Tensor | None = None

    def to(self, device: torch.device) -> PairSample:
        """The batch on a device."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {n: None if v is None else v.to(device) for n, v in values.items()}
        return PairSample(**moved)

    @property
    def draws(self) -> Draws:
        """The random numbers of the loss."""
        return Draws(self.posterior, self.uniform, self.t, self.noise)


def pair_pose(pair: Pair, config: WarpDiffusionConfig) -> Tensor:
    """The target camera as the network is told of it, [19]."""
    encode = relative_pose if config.pose == "relative" else zeronvs_pose
    return encode(pair.source_camera, pair.target_camera, pair.scale)


def pair_warp(pair: Pair, config: WarpDiffusionConfig) -> Tensor:
    """The warp [3, S, S] in [0, 1] as the network is used to it: see `warps.Warps.shown`."""
    warp, coverage = needed(pair.warp, pair, "warp"), needed(pair.coverage, pair, "coverage")
    if config.warp != "latent":
        return pair.full_warp() if config.warp_edges == "full" else warp
    inside = pair.target_canvas
    filled = fill_nearest(inside.cut(pair.full_warp()), inside.cut(coverage)[0] >= 0.5)
    return to_canvas(filled[None], inside)[0]


@dataclass
class PairSamples:
    """Pairs as `engine.method.Samples`: an epoch visits each once."""

    pairs: PairSet
    config: WarpDiffusionConfig

    @property
    def size(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs.name(index)

    def draw(self, index: int, seed: int) -> PairSample:
        """The pair `index` as a batch of one. Raises UserError when it cannot be read."""
        pair, side = self.pairs.pair(index), self.config.latent_size
        shape = (1, self.config.autoencoder.latent_channels, side, side)
        noises = torch.randn(2, *shape, generator=generator(seed, "noise"))
        sample = PairSample(
            source=pair.source[None] * 2 - 1,
            target=pair.target[None] * 2 - 1,
            pose=pair_pose(pair, self.config)[None],
            posterior=noises[0],
            uniform=torch.rand(1, generator=generator(seed, "dropout")),
            t=torch.randint(TIMESTEPS, (1,), generator=generator(seed, "time step")),
            noise=noises[1],
        )
        if self.config.warp != "none":
            sample.small_warp = needed(pair.small_warp, pair, "warp")[None] * 2 - 1
        if self.config.warp == "latent":
            sample.warp = pair_warp(pair, self.config)[None] * 2 - 1
            sample.coverage = needed(pair.coverage, pair, "coverage")[None]
        return sample

    def collate(self, items: list[PairSample]) -> PairSample:
        """Batches of one -> a batch."""
        columns: dict[str, Any] = {}
        for item in fields(PairSample):
            values = [getattr(sample, item.name) for sample in items]
            columns[item.name] = None if values[0] is None else torch.cat(values)
        return PairSample(**columns)


def needed(value: Tensor | None, pair: Pair, what: str) -> Tensor:
    """A part of a pair that may be absent. Raises UserError where it is."""
    if value is None:
        raise UserError(
            f"pair {pair.name} has no {what}: name the folder of the warps (data.warps), or do without by "
            "model.warp=none model.sampling.samples=1 model.sampling.composite=none"
        )
    return value
