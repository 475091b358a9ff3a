"""The scores of the published MegaScenes tables, as the original's evaluation computes them.

Only for comparison with those tables (Tung et al. 2024; specs/warp_diffusion 6.4): they are taken on whole
padded canvases, PSNR is pooled over all images, and the original's 'mask' is the warp's own colours, so that
dark pixels hardly count and everything masked out counts as perfect. `engine.metrics` is the protocol that
results are compared by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from engine.generative import ImageSetMetrics, unique_order
from engine.metrics import ssim

_RANGE = 2.0  # images are in [-1, 1]
_BORDER = 5  # half of SSIM's window of 11 pixels
_WHOLE = "whole padded canvas in [-1, 1]"
_MASKED = "whole canvas after multiplying both images by the mask"

DEFINITIONS = {
    "psnr_megascenes": f"dB, data range 2, from the MSE pooled over all images; {_WHOLE}",
    "ssim_megascenes": f"Gaussian 11x11, sigma 1.5, data range 2, mirrored borders; {_WHOLE}",
    "lpips_megascenes": f"LPIPS 0.1, VGG-16; {_WHOLE}",
    "mask_psnr_megascenes": f"psnr_megascenes, {_MASKED} (warp + 1) / 2",
    "mask_ssim_megascenes": f"ssim_megascenes, {_MASKED} (warp + 1) / 2",
    "mask_lpips_megascenes": f"lpips_megascenes, {_MASKED} (warp + 1) / 2",
    "fid_megascenes": "FID of images truncated to 8 bits",
    "kid_megascenes": "KID [mean, std] of images truncated to 8 bits",
    "masked_fid_megascenes": "fid_megascenes with the truth pasted in where the 8-bit mask is 1",
    "masked_kid_megascenes": "kid_megascenes with the truth pasted in where the 8-bit mask is 1",
}


def truncate(images: Tensor) -> Tensor:
    """Images [...] in [-1, 1] to uint8 as the original stores them: clipped and cut off, not rounded."""
    return (((images + 1) / 2).clamp(0, 1) * 255).to(torch.uint8)


def literal_mask(warp: Tensor) -> Tensor:
    """The original's 'mask', [N, 3, H, W] in [0, 1]: the colours of the warp, which is in [-1, 1]."""
    return (warp + 1) / 2


def binary_mask(warp: Tensor) -> Tensor:
    """[N, 1, H, W] {0, 1}: where any channel of the warp, [N, 3, H, W] in [-1, 1], is not black."""
    return (warp > -1).any(-3, keepdim=True).to(warp.dtype)


def composite(images: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """What `masked_fid_megascenes` scores: the image, with the truth pasted in where the 8-bit mask is 1.

    images, targets: [N, 3, H, W] uint8. mask: [N, 1 or 3, H, W] in [0, 1]; the cast to 8 bits turns its
    values below 1 to 0, so that with the literal mask the truth comes in only where a channel of the warp is
    exactly white.
    """
    return torch.where(mask.to(torch.uint8) > 0, targets, images)


def mirrored_ssim(images: Tensor, targets: Tensor) -> Tensor:
    """SSIM per image [N] with data range 2, borders included: images are mirrored outwards by half a window.

    images, targets: [N, 3, H, W] in [-1, 1].
    """
    # SSIM keeps its value when images and data range shrink alike: `ssim` takes a data range of 1
    padded = (
        torch.nn.functional.pad(batch / _RANGE, (_BORDER,) * 4, mode="reflect") for batch in (images, targets)
    )
    return ssim(*padded)


@dataclass
class MegascenesMetrics:
    """The original's scores, batch by batch; several processes score as one by `state` and `merge`.

    mask: `literal` as in the published tables, or `binary`, what was meant. quantize: score images that went
    through 8 bits, as read back from saved files. lpips: images in [-1, 1], [N, 3, H, W] x 2 -> [N].
    inception: for FID and KID, [N, 3, H, W] uint8 -> [N, D].
    """

    mask: Literal["literal", "binary"] = "literal"
    quantize: bool = False
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    inception: nn.Module | None = None
    sets: dict[str, ImageSetMetrics] = field(init=False, default_factory=dict)
    _indices: list[Tensor] = field(init=False, default_factory=list, repr=False)
    _rows: list[Tensor] = field(init=False, default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.inception is not None:
            self.sets = {prefix: ImageSetMetrics(self.inception) for prefix in ("", "masked_")}

    def update(self, images: Tensor, targets: Tensor, warp: Tensor, indices: Tensor) -> None:
        """Add a batch.

        images, targets, warp: [N, 3, H, W] in [-1, 1]; every batch of one size. indices: [N] int64, which
        image of the data set each is; images that a sampler repeats count once.
        """
        mask = literal_mask(warp) if self.mask == "literal" else binary_mask(warp)
        bytes_, truth = truncate(images), truncate(targets)
        if self.quantize:
            images, targets = bytes_ / 127.5 - 1, truth / 127.5 - 1
        columns = {**self._score(images, targets), **self._score(images * mask, targets * mask, "mask_")}
        self._indices.append(indices.long().cpu())
        self._rows.append(torch.stack([columns[name].double().cpu() for name in self._columns()], dim=1))
        self._update_sets(bytes_, truth, mask, indices)

    def _score(self, images: Tensor, targets: Tensor, prefix: str = "") -> dict[str, Tensor]:
        """Mean squared error, SSIM and LPIPS per image."""
        scores = {
            f"{prefix}mse": (images - targets).double().square().flatten(1).mean(1),
            f"{prefix}ssim": mirrored_ssim(images, targets),
        }
        if self.lpips is not None:
            scores[f"{prefix}lpips"] = self.lpips(images, targets)
        return scores

    def _columns(self) -> list[str]:
        names = ["mse", "ssim"] if self.lpips is None else ["mse", "ssim", "lpips"]
        return [prefix + name for prefix in ("", "mask_") for name in names]

    def _update_sets(self, images: Tensor, targets: Tensor, mask: Tensor, indices: Tensor) -> None:
        if not self.sets:
            return
        plain, masked = self.sets[""], self.sets["masked_"]
        real = plain.extract(targets)
        plain.add(plain.extract(images), real, indices)
        masked.add(masked.extract(composite(images, targets, mask)), real, indices)

    def state(self) -> dict[str, Tensor]:
        """Everything added so far, to be gathered: `indices` [N], `rows` [N, scores] and the features."""
        width = len(self._columns())
        state = {
            "indices": torch.cat([torch.empty(0, dtype=torch.int64), *self._indices]),
            "rows": torch.cat([torch.empty(0, width, dtype=torch.float64), *self._rows]),
        }
        for prefix, metrics in self.sets.items():
            state |= {f"{prefix}{key}": value for key, value in metrics.state().items() if key != "indices"}
        return state

    def merge(self, state: dict[str, Tensor]) -> None:
        """Add the `state` of another process."""
        self._indices.append(state["indices"].cpu())
        self._rows.append(state["rows"].cpu())
        for prefix, metrics in self.sets.items():
            features = {key: state[f"{prefix}{key}"] for key in ("real", "generated")}
            metrics.merge({"indices": state["indices"], **features})

    def compute(self) -> dict[str, float | list[float] | int]:
        """The scores by their names in `DEFINITIONS`, and `n`. Raises ValueError when nothing was added."""
        state = self.state()
        rows = state["rows"][unique_order(state["indices"])]
        if not len(rows):
            raise ValueError("no image was scored")
        means = dict(zip(self._columns(), rows.mean(0).tolist(), strict=True))
        scores: dict[str, float | list[float] | int] = {"n": len(rows)}
        for name, mean in means.items():
            if name.endswith("mse"):
                psnr = 10 * torch.log10(torch.tensor(_RANGE**2 / mean if mean else torch.inf))
                scores[f"{name.removesuffix('mse')}psnr_megascenes"] = float(psnr)
            else:
                scores[f"{name}_megascenes"] = mean
        for prefix, metrics in self.sets.items():
            found = metrics.compute()
            scores |= {f"{prefix}{key}_megascenes": found[key] for key in ("fid", "kid")}
        return scores
