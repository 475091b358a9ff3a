"""Scenes grown on a GPU are those grown on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geometry.views import Views
from methods.scene_lifting.config import GenerationConfig, InpainterConfig, SceneLiftingConfig
from methods.scene_lifting.inpainters import load_inpainter
from methods.scene_lifting.making import make_scene
from tests.methods.scene_lifting.stand_ins import Completer, Painter, photo_camera, photo_image
from tests.methods.scene_lifting.tiny_inpainter import write_decoder, write_pipeline

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@cuda
def test_a_scene_grows_alike(tmp_path: Path) -> None:
    config = SceneLiftingConfig(generation=GenerationConfig(prompt="a"))
    photo = Views(photo_image()[None], photo_camera().reshape(1), names=["photo"])
    scenes = []
    for name in ("cpu", "cuda", "cuda"):  # the last one is read from the folder
        device, folder = torch.device(name), tmp_path / name
        painter = Painter()
        scenes.append(
            make_scene(photo.to(device), Completer(), config, device, folder, load=lambda c, d, p=painter: p)
        )
    assert painter.asked == []
    assert scenes[1].points.is_cuda
    assert torch.equal(scenes[1].points, scenes[2].points)
    assert len(scenes[1].points) == pytest.approx(len(scenes[0].points), rel=0.01)
    depths = [scene.views[1].depth.cpu() for scene in scenes]
    assert ((depths[1] / depths[0]).log().abs() < 1e-3).float().mean() > 0.98


@cuda
@pytest.mark.parametrize("offload", [False, True])
def test_a_pipeline_paints_in_half_precision(tmp_path: Path, offload: bool) -> None:
    place, decoder = write_pipeline(tmp_path / "pipeline"), write_decoder(tmp_path / "decoder")
    config = InpainterConfig(str(place), str(decoder), steps=2, offload=offload)
    inpaint = load_inpainter(config, torch.device("cuda"))
    assert inpaint is not None
    image = (photo_image().permute(1, 2, 0) * 255).byte().numpy()
    hole = torch.zeros(48, 64, dtype=torch.uint8)
    hole[:, 40:] = 255
    painted = inpaint(image, hole.numpy(), "a", "", 0)
    assert painted.shape == image.shape
    assert painted.std() > 0
