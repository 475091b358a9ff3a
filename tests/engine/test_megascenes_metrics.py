"""The original's scores: their literal meaning, against torchmetrics; processes that score as one."""

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio

from engine.megascenes_metrics import (
    DEFINITIONS,
    MegascenesMetrics,
    binary_mask,
    composite,
    literal_mask,
    mirrored_ssim,
    truncate,
)


class _Means(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().flatten(2).mean(2) / 255


def _batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images that overshoot [-1, 1] a little, their targets, and a warp with black and white parts."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(n, 3, 24, 32, generator=generator) * 2 - 1
    images = targets + 0.1 * torch.randn(targets.shape, generator=generator)
    warp = targets.clone()
    warp[:, :, :6], warp[:, :, 18:] = -1, 1
    return images, targets, warp


def test_truncation_cuts_down() -> None:
    levels = torch.tensor([-1.2, -1.0, 0.0, 0.999, 1.0, 1.3])
    assert truncate(levels).tolist() == [0, 0, 127, 254, 255, 255]


def test_scores_equal_torchmetrics() -> None:
    images, targets, warp = _batch()
    metrics = MegascenesMetrics()
    psnr = PeakSignalNoiseRatio(data_range=2.0)
    for chosen in (torch.arange(3), torch.arange(3, 5)):
        metrics.update(images[chosen], targets[chosen], warp[chosen], chosen)
        psnr.update(images[chosen], targets[chosen])
    found = metrics.compute()
    assert found["n"] == 5
    assert found["psnr_megascenes"] == pytest.approx(float(psnr.compute()), abs=1e-4)
    ssim = structural_similarity_index_measure(images, targets, data_range=2.0, reduction="none")
    torch.testing.assert_close(mirrored_ssim(images, targets), ssim, rtol=0, atol=1e-5)
    assert found["ssim_megascenes"] == pytest.approx(float(ssim.mean()), abs=1e-5)


def test_pooled_psnr_is_not_the_mean_of_psnrs() -> None:
    targets = torch.zeros(2, 3, 16, 16)
    images = torch.stack([targets[0] + 0.2, targets[1] + 0.02])
    metrics = MegascenesMetrics()
    metrics.update(images, targets, targets, torch.arange(2))
    pooled = 10 * torch.log10(torch.tensor(4 / ((0.2**2 + 0.02**2) / 2)))
    assert metrics.compute()["psnr_megascenes"] == pytest.approx(float(pooled), abs=1e-4)


def test_masked_out_pixels_count_as_perfect() -> None:
    images, targets, warp = _batch()
    scores = {}
    for mask in ("literal", "binary"):
        metrics = MegascenesMetrics(mask=mask)
        metrics.update(images, targets, warp, torch.arange(5))
        scores[mask] = metrics.compute()
    shown = binary_mask(warp)
    assert shown[:, :, :6].max() == 0
    error = ((images - targets) * shown).square().mean()
    expected = float(10 * torch.log10(4 / error))
    assert scores["binary"]["mask_psnr_megascenes"] == pytest.approx(expected, abs=1e-4)
    assert scores["binary"]["mask_psnr_megascenes"] > scores["binary"]["psnr_megascenes"]
    assert scores["literal"]["mask_psnr_megascenes"] > scores["binary"]["mask_psnr_megascenes"]


def test_compositing_pastes_the_truth_only_where_the_warp_is_white() -> None:
    images, targets, warp = _batch()
    made = composite(truncate(images), truncate(targets), literal_mask(warp))
    assert torch.equal(made[:, :, 18:], truncate(targets)[:, :, 18:])
    assert torch.equal(made[:, :, :18], truncate(images)[:, :, :18])


def _metrics() -> MegascenesMetrics:
    return MegascenesMetrics(
        quantize=True,
        lpips=lambda a, b: (a - b).abs().flatten(1).mean(1),
        inception=_Means(),
    )


def test_processes_score_as_one() -> None:
    images, targets, warp = _batch()
    alone, first, second = _metrics(), _metrics(), _metrics()
    alone.update(images, targets, warp, torch.arange(5))
    for metrics, numbers in ((first, [1, 3, 1]), (second, [0, 2, 4])):
        chosen = torch.tensor(numbers)
        metrics.update(images[chosen], targets[chosen], warp[chosen], chosen)
    first.merge(second.state())
    first.merge(_metrics().state())
    expected, found = alone.compute(), first.compute()
    assert set(expected) == {*DEFINITIONS, "n"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_quantising_scores_what_the_files_hold() -> None:
    images, targets, warp = _batch()
    stored = MegascenesMetrics(quantize=True)
    stored.update(images, targets, warp, torch.arange(5))
    read = MegascenesMetrics()
    read.update(*(truncate(x) / 127.5 - 1 for x in (images, targets)), warp, torch.arange(5))
    assert stored.compute() == read.compute()


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image"):
        MegascenesMetrics().compute()


def test_identical_images_have_an_infinite_psnr() -> None:
    _, targets, warp = _batch()
    metrics = MegascenesMetrics()
    metrics.update(targets, targets, warp, torch.arange(5))
    assert metrics.compute()["psnr_megascenes"] == float("inf")
