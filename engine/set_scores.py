"""Scores of a whole set of image pairs: FID and KID, and those of MegaScenes' tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.files import replacing
from dataloader.pairs import PairSet
from engine.generative import ImageSetMetrics, load_inception
from engine.megascenes_metrics import MegascenesMetrics
from engine.metrics import ImageMetrics

_FEWEST = 3  # images that FID and KID need


class Accumulator(Protocol):
    """A score of a set, batch by batch; several processes' are merged."""

    def update(self, images: Tensor, targets: Tensor, warp: Tensor, indices: Tensor) -> None: ...

    def state(self) -> dict[str, Tensor]: ...

    def merge(self, state: dict[str, Tensor]) -> None: ...

    def compute(self) -> dict[str, Any]: ...


@dataclass
class SetScores:
    """FID and KID of images rounded to 8 bits, whatever the warps."""

    sets: ImageSetMetrics

    def update(self, images: Tensor, targets: Tensor, warp: Tensor, indices: Tensor) -> None:
        """images, targets: [N, 3, H, W] in [-1, 1]. indices: [N], which pair each is."""
        self.sets.update(_rounded(images), _rounded(targets), indices)

    def state(self) -> dict[str, Tensor]:
        return self.sets.state()

    def merge(self, state: dict[str, Tensor]) -> None:
        self.sets.merge(state)

    def compute(self) -> dict[str, Any]:
        return self.sets.compute()


def _rounded(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)


def load_set_network(
    metrics: ImageMetrics, weights_dir: Path | None, device: torch.device
) -> nn.Module | None:
    """The network of FID and KID; without its weights None, and `metrics.missing` says why."""
    network, why = load_inception(weights_dir, device)
    if network is None:
        metrics.missing |= dict.fromkeys(("fid", "kid"), why)
    return network


def set_scores(pairs: PairSet, metrics: ImageMetrics, inception: nn.Module | None) -> list[Accumulator]:
    """What is scored over all pairs: FID and KID with their network, MegaScenes' own scores with warps."""
    network = inception if len(pairs) >= _FEWEST else None
    found: list[Accumulator] = [] if network is None else [SetScores(ImageSetMetrics(network))]
    if pairs.has_warps:
        lpips = metrics.networks.get("lpips_vgg")
        found.append(MegascenesMetrics(lpips=lpips, inception=network))
    return found


def write_original_scores(pooled: dict[str, Any], folder: Path) -> list[Path]:
    """MegaScenes' own scores as its test script writes them: reconmetrics.txt and, where there are some,
    genmetrics.txt. Returns the files.
    """
    suffix = "_megascenes"
    scores = {name.removesuffix(suffix): value for name, value in pooled.items() if name.endswith(suffix)}
    made = {name: value for name, value in scores.items() if name.endswith(("fid", "kid"))}
    recon = {name: value for name, value in scores.items() if name not in made}
    files = []
    for name, content in (("reconmetrics.txt", recon), ("genmetrics.txt", made)):
        if content:
            with replacing(folder / name) as path:
                path.write_text(json.dumps(content) + "\n")
            files.append(folder / name)
    return files
