"""Depth networks: tiny random models in the format on disk of the real ones."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.depth_models import DEFAULT_DEPTH_MODEL, input_size, load_depth_model
from geometry.lifting import resize_disparity

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _backbone():
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=1,
        image_size=70,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )


def _save(folder: Path, kind: str, least: int = 70) -> Path:
    """A Depth Anything of 4 layers with random weights, with the image processor of the published ones."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

    config = DepthAnythingConfig(
        backbone_config=_backbone(),
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        depth_estimation_type=kind,
        max_depth=20 if kind == "metric" else 1,
    )
    torch.manual_seed(0)
    network = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(0.1, 0.3)
    network.save_pretrained(folder)
    DPTImageProcessor(
        size={"height": least, "width": least},
        keep_aspect_ratio=True,
        ensure_multiple_of=14,
        resample=3,
        image_mean=MEAN,
        image_std=STD,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("models") / "relative", "relative")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    return cv2.resize(noise, (180, 120), interpolation=cv2.INTER_CUBIC)


def test_relative_depth_is_the_inverse_of_the_resized_disparity(relative: Path, photo: np.ndarray) -> None:
    model = load_depth_model(str(relative))
    assert not model.metric
    depth = model(photo, (30, 45))
    assert depth.shape == (30, 45)
    assert depth.dtype == np.float32
    resized = cv2.resize(photo.astype(np.float32) / 255, (112, 70), interpolation=cv2.INTER_CUBIC)
    pixels = torch.from_numpy((resized - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        disparity = model.network(pixel_values=pixels).predicted_depth[0]
    assert disparity.shape == (70, 112)
    expected = 1 / resize_disparity(disparity, 30, 45).clamp(min=1e-3)
    np.testing.assert_allclose(depth, expected.numpy(), rtol=1e-3)


def test_metric_depth_stays_as_it_is(tmp_path: Path, photo: np.ndarray) -> None:
    model = load_depth_model(str(_save(tmp_path, "metric")))
    assert model.metric
    depth = model(photo, (120, 180))
    assert 0 < depth.min() < depth.max() <= 20
    own = model._predict(photo)
    assert own.min() - 1e-6 <= depth.min()
    assert depth.max() <= own.max() + 1e-6


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1170, 1800), (518, 798)),
        ((518, 518), (518, 518)),
        ((300, 501), (518, 868)),
        ((1000, 400), (1288, 518)),
    ],
)
def test_the_short_side_reaches_518(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert input_size(size, (518, 518), 14) == expected


def test_large_photos_get_the_size_of_the_library_processor(tmp_path: Path) -> None:
    model = load_depth_model(str(_save(tmp_path, "relative", least=518)))
    large = np.random.default_rng(0).integers(0, 256, (585, 900, 3), dtype=np.uint8)
    assert model.processor.resample == 3  # cubic
    assert (model.processor.size["height"], model.processor.ensure_multiple_of) == (518, 14)
    library = model.processor(images=large, return_tensors="pt")["pixel_values"]
    own = model._pixels(large)
    assert own.shape == library.shape == (1, 3, 518, 798)
    smooth = cv2.GaussianBlur(large, (0, 0), 8)  # where antialiasing does nothing
    library = model.processor(images=smooth, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(model._pixels(smooth), library, rtol=0, atol=0.03)


def test_zoedepth_is_metric(tmp_path: Path, photo: np.ndarray) -> None:
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

    backbone = BeitConfig(
        image_size=64,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        use_relative_position_bias=True,
    )
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=4,
        bin_embedding_dim=8,
        num_attractors=[2, 2, 2, 2],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
        num_patch_transformer_layers=1,
        patch_transformer_hidden_size=16,
        patch_transformer_intermediate_size=16,
        patch_transformer_num_attention_heads=2,
    )
    torch.manual_seed(0)
    ZoeDepthForDepthEstimation(config).save_pretrained(tmp_path)
    ZoeDepthImageProcessor(size={"height": 64, "width": 96}).save_pretrained(tmp_path)
    model = load_depth_model(str(tmp_path))
    assert model.metric
    depth = model(photo, (30, 45))
    assert depth.shape == (30, 45)
    assert depth.min() > 0
    assert depth.max() <= 10.1


def test_a_model_that_is_not_there_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=rf"scripts/download.py hub {DEFAULT_DEPTH_MODEL}x"):
        load_depth_model(DEFAULT_DEPTH_MODEL + "x")
    with pytest.raises(UserError, match="does not exist"):
        load_depth_model(str(tmp_path / "none"))


def test_incomplete_and_damaged_folders(relative: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no complete depth model"):
        load_depth_model(str(tmp_path))
    for lost in ("preprocessor_config.json", "model.safetensors"):
        folder = tmp_path / lost
        shutil.copytree(relative, folder)
        (folder / lost).unlink()
        with pytest.raises(UserError, match="no complete depth model"):
            load_depth_model(str(folder))
    damaged = tmp_path / "damaged"
    shutil.copytree(relative, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match="no complete depth model"):
        load_depth_model(str(damaged))


def test_missing_weights_are_not_made_up(relative: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "lacking"
    shutil.copytree(relative, folder)
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "head.conv1" not in k},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UserError, match="lacks 2 of its weights"):
        load_depth_model(str(folder))


def test_other_families_are_refused(tmp_path: Path) -> None:
    _backbone().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'dinov2'"):
        load_depth_model(str(tmp_path))


def test_depth_that_is_not_finite_is_an_error(relative: Path, photo: np.ndarray) -> None:
    model = load_depth_model(str(relative))
    with torch.no_grad():
        model.network.head.conv3.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="no finite depth"):
        model(photo, (30, 45))
