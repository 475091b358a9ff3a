"""How alike two sets of images are: Fréchet and kernel Inception distance.

FID (Heusel et al. 2017) and KID (Binkowski et al. 2018) through torchmetrics, on 8-bit images and the 2048
pooled features of the Inception network of the original FID. Both depend on how many images there are, so
`n` always stands beside them. Features are kept and can be gathered, so that several processes score as one.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import UserError

log = logging.getLogger(__name__)

DEFINITIONS = {
    "fid": "Frechet distance of Gaussians fitted to 2048 Inception features; 8-bit images; depends on n",
    "kid": "[mean, std] of squared MMD, cubic kernel, 100 subsets of min(1000, n - 1) images",
}

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity publishes it
INCEPTION_HASH = "6726825d"  # its SHA-256 starts so
_OTHER_FILE = "pt_inception-2015-12-05-6726825d.pth"  # the same network under an older name
_FEATURES = "2048"
_KID_SUBSETS, _KID_SUBSET_SIZE, _KID_DEGREE = 100, 1000, 3


@dataclass
class ImageSetMetrics:
    """FID and KID of generated against real images, batch by batch.

    extractor: images [N, 3, H, W] uint8 -> features [N, D]. seed: draws the subsets of KID.
    """

    extractor: nn.Module
    seed: int = 0
    _indices: list[Tensor] = field(default_factory=list, repr=False)
    _real: list[Tensor] = field(default_factory=list, repr=False)
    _generated: list[Tensor] = field(default_factory=list, repr=False)

    def update(self, generated: Tensor, real: Tensor, indices: Tensor | None = None) -> None:
        """Add a batch of images. Arguments as `add`, with images [N, 3, H, W] uint8 for features."""
        self.add(self.extract(generated), self.extract(real), indices)

    @torch.no_grad()
    def extract(self, images: Tensor) -> Tensor:
        """Features [N, D] float32, on the CPU, of images [N, 3, H, W] uint8.

        Raises ValueError for other types: scores of images that were not rounded to 8 bits differ.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be [N, 3, H, W] uint8, not {tuple(images.shape)} {images.dtype}")
        weight = next(self.extractor.parameters(), images)
        features = self.extractor(images.to(weight.device))
        features = features[0] if isinstance(features, tuple) else features
        return features.float().cpu()

    def add(self, generated: Tensor, real: Tensor, indices: Tensor | None = None) -> None:
        """Add features.

        generated, real: [N, D]. indices: [N] int64, which image of the data set each is, so that the
        processes' batches can be put in order and the images that a sampler repeats count once; None numbers
        them on.
        """
        if len(generated) != len(real):
            raise ValueError(f"{len(generated)} generated images, {len(real)} real ones")
        if indices is None:
            start = sum(len(batch) for batch in self._indices)
            indices = torch.arange(start, start + len(real))
        self._indices.append(indices.long().cpu())
        self._real.append(real.float().cpu())
        self._generated.append(generated.float().cpu())

    def state(self) -> dict[str, Tensor]:
        """Everything added so far: `indices` [N], `real` [N, D], `generated` [N, D], to be gathered."""
        if not self._indices:
            empty = torch.empty(0, 0)
            return {"indices": torch.empty(0, dtype=torch.int64), "real": empty, "generated": empty}
        return {
            "indices": torch.cat(self._indices),
            "real": torch.cat(self._real),
            "generated": torch.cat(self._generated),
        }

    def merge(self, state: dict[str, Tensor]) -> None:
        """Add the `state` of another process."""
        if len(state["indices"]):
            self.add(state["generated"], state["real"], state["indices"])

    def compute(self) -> dict[str, float | list[float] | int]:
        """`fid`, `kid` as [mean, std] and `n`. The same images give the same numbers in any order.

        Raises UserError for fewer than 3 images: a subset of KID holds two or more.
        """
        state = self.state()
        order = unique_order(state["indices"])
        real, generated = state["real"][order], state["generated"][order]
        if len(order) < 3:
            raise UserError(f"FID and KID need 3 images or more, there are {len(order)}: evaluate more views")
        return {
            "fid": frechet_distance(generated, real),
            "kid": list(kernel_distance(generated, real, self.seed)),
            "n": len(order),
        }


def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """FID of features [N, D] against features [M, D], N and M at least 2."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return float(metric.compute())


def kernel_distance(
    generated: Tensor, real: Tensor, seed: int = 0, subset_size: int | None = None
) -> tuple[float, float]:
    """KID of features [N, D] against features [M, D], N and M above 2: mean and deviation over 100 subsets.

    subset_size: features per subset; None takes min(1000, N - 1, M - 1). The subsets are drawn from `seed`;
    the caller's random state is kept.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = subset_size or min(_KID_SUBSET_SIZE, len(real) - 1, len(generated) - 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(
            feature=_Given(real.shape[1]), subsets=_KID_SUBSETS, subset_size=size, degree=_KID_DEGREE
        )
    metric.update(real, real=True)
    metric.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, std = metric.compute()
    return float(mean), float(std)


class _Given(nn.Module):
    """The 'extractor' for torchmetrics of features that are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features  # torchmetrics asks for it

    def forward(self, features: Tensor) -> Tensor:
        return features


def unique_order(indices: Tensor) -> Tensor:
    """Positions that sort image numbers [N] int64, the first of equal ones only."""
    order = indices.argsort(stable=True)
    ranked = indices[order]
    fresh = torch.ones(len(ranked), dtype=torch.bool)
    fresh[1:] = ranked[1:] != ranked[:-1]
    return order[fresh]


def load_inception(
    weights_dir: Path | None = None, device: torch.device | None = None
) -> tuple[nn.Module | None, str]:
    """The Inception network of FID, and an empty text; or None and one line that says why there is none.

    weights_dir: folder with `INCEPTION_FILE`; None asks the torch hub cache. Nothing is downloaded. The line
    is logged too. Raises UserError for a damaged file.
    """
    folder = weights_dir or Path(torch.hub.get_dir()) / "checkpoints"
    path = next((folder / name for name in (INCEPTION_FILE, _OTHER_FILE) if (folder / name).is_file()), None)
    if path is None:
        where = weights_dir or "the torch hub cache"
        why = (
            f"no Inception weights in {where}: put torch-fidelity's release file {INCEPTION_FILE} there, or "
            "pass --weights_dir"
        )
        log.info("fid and kid are not reported: %s", why)
        return None, why
    _check_inception(path)
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", [_FEATURES], feature_extractor_weights_path=str(path)
    )
    return network.to(device or torch.device("cpu")).eval().requires_grad_(False), ""


def _check_inception(path: Path) -> None:
    """Raises UserError unless the file is the published one, and nothing but tensors."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(INCEPTION_HASH):
        raise UserError(
            f"{path} is not the published file (SHA-256 starts with {found[:8]}, not {INCEPTION_HASH}): "
            "download it again"
        )
    try:  # the library reads it with a loader that would run code
        torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise UserError(f"{path} is not a readable weights file ({reason}): download it again") from None
