"""The sampling benchmark: counts, errors and switches of a small model."""

from __future__ import annotations

import torch

from benchmarks.diffusion_sampling import compare, make_task, measure_switches, switch_table, table
from methods.warp_diffusion.config import (
    AutoencoderConfig,
    ImageEncoderConfig,
    SamplingConfig,
    UNetConfig,
    WarpDiffusionConfig,
)
from methods.warp_diffusion.method import WarpDiffusion


def small_method() -> WarpDiffusion:
    config = WarpDiffusionConfig(
        warp="latent",
        resolution=32,
        autoencoder=AutoencoderConfig(kind="pixels", patch=4),
        image_encoder=ImageEncoderConfig(layers=0),
        unet=UNetConfig(width=32, multipliers=(1, 1), blocks=1, attention=(2,), heads=2, context=16),
        sampling=SamplingConfig(steps=2, guidance=1.0),
    )
    torch.manual_seed(0)
    method = WarpDiffusion.create(config)
    method.initialise()
    return method.eval()


def test_the_ways_are_counted_and_compared() -> None:
    method = small_method()
    task = make_task(method, 1, 1, 3.0)
    with torch.no_grad():
        lines = compare(task, SamplingConfig(steps=8, batch=4), 1, 1, reference_steps=125)
    assert [line.evaluations for line in lines] == [98, 98, 16]
    assert lines[0].faster == 1
    assert lines[2].faster > 1
    # the solver follows the equation that many small steps solve; fresh noise does not
    assert lines[2].error < lines[0].error
    assert "ours: unipc, 8 steps" in table(lines)


def test_every_switch_is_measured() -> None:
    switches = measure_switches(small_method(), 2)
    assert len(switches) == len({s.setting for s in switches}) == 9
    by_name = {s.setting: s for s in switches}
    assert by_name["composite: pixels"].covered > by_name["as is"].covered + 3
    assert all(s.setting in switch_table(switches) for s in switches)
