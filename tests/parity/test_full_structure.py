"""The published checkpoints' full list of names and shapes, against the full-size models of all variants."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.checkpoint import assign
from geometry.cameras import pinhole
from geometry.views import Views
from methods.warp_diffusion.config import SamplingConfig, WarpDiffusionConfig
from methods.warp_diffusion.method import WarpDiffusion
from methods.warp_diffusion.originals import convert_state_dict
from methods.warp_diffusion.weights import build_empty
from tests.methods.warp_diffusion.original_files import (
    full_shapes,
    original_shapes,
    original_state_dict,
    write_accelerate,
)

FIRST = "model.diffusion_model.input_blocks.0.0.weight"
FIRST_AVERAGED = "model_ema.diffusion_modelinput_blocks00weight"


def variant_shapes(channels: int) -> dict[str, list[int]]:
    """The file of a variant: only the first convolution and its average depend on it."""
    narrow = [320, channels, 3, 3]
    return full_shapes() | {FIRST: narrow, FIRST_AVERAGED: narrow}


@pytest.mark.parametrize(("warp", "channels"), [("pixels", 11), ("none", 8)])
@pytest.mark.parametrize("averaged", [False, True])
def test_every_name_and_shape_fits_the_full_size_model(warp: str, channels: int, averaged: bool) -> None:
    shapes = variant_shapes(channels)
    assert len(shapes) == 1938
    assert full_shapes()[FIRST] == [320, 11, 3, 3]
    stored = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    found = convert_state_dict(stored, 4, 2, 4, "the list", averaged)
    own = build_empty(WarpDiffusionConfig(warp=warp)).state_dict()  # type: ignore[arg-type]
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in own.items()}


def test_the_reduced_files_have_every_name_of_the_full_ones() -> None:
    config = WarpDiffusionConfig()
    own = original_shapes(config)
    full = full_shapes()
    assert own.keys() == full.keys()
    kept = [name for name in full if not name.startswith("cond_stage_model.model.t")]  # text, cut short
    assert {name: list(own[name]) for name in kept} == {name: full[name] for name in kept}


@pytest.mark.slow
def test_a_full_size_file_loads_and_draws_a_view(tmp_path: Path) -> None:
    """1.25 billion random weights in the original's layout, through the path that published ones take."""
    weights = original_state_dict(WarpDiffusionConfig(), dtype=torch.float16)
    folder = write_accelerate(tmp_path / "iter_112000", weights)
    del weights
    config = WarpDiffusionConfig(sampling=SamplingConfig(steps=2, sampler="original"))
    method = WarpDiffusion.create(config)
    assign(method, method.load_original(folder) or {}, folder)
    assert {value.dtype for value in method.state_dict().values()} == {torch.float32}
    assert sum(p.numel() for p in method.networks.unet.parameters()) == pytest.approx(859.5e6, rel=1e-3)
    method.prepare_inference()
    camera = pinhole(200.0, 192, 256)[None]
    image = torch.rand(1, 3, 192, 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = method.encode(Views(image, camera, depth=torch.full((1, 1, 192, 256), 2.0)))
        view = method.render(state, camera).image
    assert view.shape == (1, 3, 192, 256)
    assert view.isfinite().all()
