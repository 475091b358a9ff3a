import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from common.errors import UserError
from engine import metrics
from geometry.cameras import pinhole
from geometry.views import Rendering, Views


def _pair(seed: int = 0, size: tuple[int, int] = (40, 52)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 3, *size, generator=generator)
    noisy = (target + 0.1 * torch.randn(2, 3, *size, generator=generator)).clamp(0, 1)
    return metrics.quantize(noisy), metrics.quantize(target)


def _views(images: torch.Tensor, coverage: torch.Tensor | None = None) -> Views:
    height, width = images.shape[-2:]
    camera = pinhole(50.0, height, width)
    return Views(
        images,
        camera.with_poses(torch.eye(4, dtype=torch.float64).repeat(len(images), 1, 1)),
        coverage=coverage,
    )


def test_psnr_and_ssim_equal_scikit_image() -> None:
    images, targets = _pair()
    for i in range(2):
        a, b = images[i].permute(1, 2, 0).numpy(), targets[i].permute(1, 2, 0).numpy()
        assert metrics.psnr(images, targets)[i].item() == pytest.approx(
            peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4
        )
        reference = structural_similarity(
            b,
            a,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        assert metrics.ssim(images, targets)[i].item() == pytest.approx(reference, abs=2e-5)


def test_masked_psnr_scores_only_the_masks_pixels() -> None:
    images, targets = _pair()
    mask = torch.zeros(2, 1, 40, 52)
    mask[:, :, 5:20, 7:30] = 1
    cropped = metrics.psnr(images[..., 5:20, 7:30], targets[..., 5:20, 7:30])
    spoiled = torch.where(mask.bool(), images, 1 - targets)
    torch.testing.assert_close(metrics.psnr(spoiled, targets, mask), cropped)


def test_masked_ssim_of_a_full_mask_is_ssim() -> None:
    images, targets = _pair()
    torch.testing.assert_close(
        metrics.ssim(images, targets, torch.ones(2, 1, 40, 52)), metrics.ssim(images, targets)
    )


def test_soft_masks_are_refused() -> None:
    images, targets = _pair()
    with pytest.raises(ValueError, match="0 or 1"):
        metrics.psnr(images, targets, torch.full((2, 1, 40, 52), 0.5))


def test_rounding_to_eight_bits_happens_before_scoring() -> None:
    target = torch.full((1, 3, 16, 16), 100 / 255)
    rendering = Rendering(target + 0.4 / 255)
    assert metrics.ImageMetrics().score(rendering, _views(target))[0]["psnr"] == float("inf")


def test_score_uses_the_common_part_of_the_methods_and_the_surfaces_coverage() -> None:
    images, targets = _pair()
    opacity, surface = torch.zeros(2, 1, 40, 52), torch.zeros(2, 1, 40, 52)
    opacity[..., :30], surface[..., 20:] = 0.7, 1
    rows = metrics.ImageMetrics().score(Rendering(images, opacity=opacity), _views(targets, surface))
    assert rows[0]["coverage"] == pytest.approx(10 / 52)
    expected = metrics.psnr(images[..., 20:30], targets[..., 20:30])
    assert rows[1]["psnr_covered"] == pytest.approx(expected[1].item(), abs=1e-4)


def test_depth_scores_against_hand_values() -> None:
    depth, target = torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.tensor([1.0, 4.0, 5.0, 1.0])
    valid = torch.tensor([1.0, 1.0, 1.0, 0.0])
    scores = metrics.depth_scores(depth, target, valid)
    assert scores["mae"] == pytest.approx(1.0)
    assert scores["abs_rel"] == pytest.approx((0 + 0.5 + 0.2) / 3)
    assert scores["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert scores["delta1"] == pytest.approx(1 / 3)  # 1.25 itself is not below 1.25
    assert scores["delta2"] == pytest.approx(2 / 3)
    logs = np.log([1, 0.5, 0.8])
    assert scores["silog"] == pytest.approx(100 * logs.std())
    assert scores["log10"] == pytest.approx(np.abs(logs).mean() / np.log(10))


def test_silog_ignores_a_global_scale() -> None:
    target = torch.rand(100) + 1
    assert metrics.depth_scores(3 * target, target, torch.ones(100))["silog"] == pytest.approx(0, abs=1e-5)


def test_lpips_without_weights_is_missing_and_says_why(tmp_path, caplog) -> None:
    loaded = metrics.load_image_metrics(tmp_path)
    assert not loaded.networks
    assert set(loaded.missing) == {"lpips_vgg", "lpips_alex"}
    assert "--weights_dir" in loaded.missing["lpips_vgg"]
    images, targets = _pair()
    assert "lpips_vgg" not in loaded.score(Rendering(images), _views(targets))[0]


def test_images_below_a_window_are_refused() -> None:
    with pytest.raises(UserError, match=r"12x10 .* 11 pixels"):
        metrics.ssim(*_pair(size=(10, 12)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no weights at all"])
def test_broken_lpips_weights_are_named(tmp_path, content: bytes) -> None:
    pytest.importorskip("lpips")
    (tmp_path / "vgg16.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"vgg16\.pth is not a readable weights file") as caught:
        metrics.load_image_metrics(tmp_path)
    assert "\n" not in str(caught.value)


def test_foreign_lpips_weights_are_named(tmp_path) -> None:
    pytest.importorskip("lpips")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "vgg16.pth")
    with pytest.raises(UserError, match=r"vgg16\.pth does not hold the convolutions"):
        metrics.load_image_metrics(tmp_path)


def test_lpips_from_a_local_torchvision_file_equals_the_lpips_package(tmp_path) -> None:
    lpips = pytest.importorskip("lpips")
    import torchvision

    torch.manual_seed(0)
    backbone = torchvision.models.alexnet(weights=None)
    torch.save(backbone.state_dict(), tmp_path / "alexnet-tiny.pth")
    loaded = metrics.load_image_metrics(tmp_path)
    images, targets = _pair(size=(64, 64))
    scores = loaded.score(Rendering(images), _views(targets))
    reference = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval()
    convolutions = [m for m in backbone.features if isinstance(m, torch.nn.Conv2d)]
    own = [m for m in reference.net.modules() if isinstance(m, torch.nn.Conv2d)]
    for ours, theirs in zip(own, convolutions, strict=True):
        ours.load_state_dict(theirs.state_dict())
    expected = reference(images * 2 - 1, targets * 2 - 1).flatten()
    assert [row["lpips_alex"] for row in scores] == pytest.approx(expected.tolist(), abs=1e-6)
    assert expected.min() > 0
