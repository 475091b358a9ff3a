"""The networks together: guidance, batches, predictions, losses; no geometry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from methods.warp_diffusion.config import SamplingConfig
from methods.warp_diffusion.model import Draws
from methods.warp_diffusion.schedule import make_schedule
from tests.methods.warp_diffusion.tiny import random_latents, tiny_condition, tiny_config, tiny_model


def close(actual: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_guidance_in_one_call_equals_two_calls(prediction: str) -> None:
    model = tiny_model(tiny_config(prediction=prediction))
    condition, x, t = tiny_condition(model, 3), random_latents(model, 3), 400
    steps = torch.full((3,), t)
    null = model.unet_output(x, steps, condition.null())
    given = model.unet_output(x, steps, condition)
    expected = null + 2.5 * (given - null)
    if prediction == "v_prediction":
        expected = model.schedule.noise_from_velocity(x, expected, steps)
    assert float((given - null).abs().max()) > 1e-2
    # guidance enlarges what float32 rounds in batches of another size (1.5 and 2.5 times 1e-5 at most)
    close(model.predictor(condition, 2.5)(x, t), expected, atol=4e-5)
    plain = given if prediction == "epsilon" else model.schedule.noise_from_velocity(x, given, steps)
    close(model.predictor(condition, 1)(x, t), plain)


@pytest.mark.parametrize("batch", [1, 2, 5, 16])
@torch.no_grad()
def test_batches_of_any_size_give_the_same_views(batch: int) -> None:
    model = tiny_model(tiny_config())
    condition, noise = tiny_condition(model, 5), random_latents(model, 5)
    seen: list[tuple[int, int]] = []

    def adjust(clean: Tensor, part: slice, t: int) -> Tensor:
        seen.append((part.start, part.stop))
        return clean * 0.9

    settings = SamplingConfig(steps=3, guidance=2.0, batch=batch)
    whole = model.sample(condition, noise, SamplingConfig(steps=3, guidance=2.0, batch=5), adjust=adjust)
    seen.clear()
    close(model.sample(condition, noise, settings, adjust=adjust), whole, 1e-4)
    assert max(stop - start for start, stop in seen) == min(batch, 5)
    assert {i for start, stop in seen for i in range(start, stop)} == set(range(5))
    close(model.decode(noise, batch), model.decode(noise, 5))


@torch.no_grad()
def test_an_adjustment_changes_the_clean_latents() -> None:
    """What it returns is what the step takes for the truth; returning its input changes nothing."""
    model = tiny_model(tiny_config())
    condition, x = tiny_condition(model, 2), random_latents(model, 2)
    plain = model.predictor(condition, 2.0)(x, 700)
    close(model.predictor(condition, 2.0, lambda clean, part, t: clean)(x, 700), plain, 1e-4)
    wanted = random_latents(model, 2, seed=9)
    noise = model.predictor(condition, 2.0, lambda clean, part, t: wanted[part])(x, 700)
    close(model.schedule.clean(x, noise, torch.full((2,), 700)), wanted, 1e-3)


def test_velocity_noise_and_clean_latents_imply_each_other() -> None:
    schedule, random = make_schedule(), torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 4, 8, 8, generator=random, dtype=torch.float64)
    t = torch.tensor([0, 1, 100, 500, 900, 999])
    x = schedule.add_noise(x0, noise, t)
    v = schedule.velocity(x0, noise, t)
    close(schedule.noise_from_velocity(x, v, t), noise, 1e-9)
    close(schedule.clean(x, noise, t), x0, 1e-9)
    close(schedule.noise_of(x, x0, t), noise, 1e-9)
    a = schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    close(a.sqrt() * x - (1 - a).sqrt() * v, x0, 1e-9)
    close(x.square() + v.square(), x0.square() + noise.square(), 1e-9)  # a rotation


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_the_mean_error_of_what_is_predicted(prediction: str) -> None:
    model = tiny_model(tiny_config(encoder=True, prediction=prediction))
    random = torch.Generator().manual_seed(1)
    target, source = torch.rand(2, 3, 3, 32, 32, generator=random) * 2 - 1
    pose, warp = torch.randn(3, 19, generator=random), torch.randn(3, 3, 16, 16, generator=random)
    draws = Draws(
        random_latents(model, 3),
        torch.tensor([0.5, 0.6, 0.7]),
        torch.tensor([3, 500, 990]),
        random_latents(model, 3, 2),
    )
    losses = model.losses(target, source, pose, warp, draws)
    latents = model.target_latents(target, None)  # pixels: there is nothing to draw
    noisy = model.schedule.add_noise(latents, draws.noise, draws.t)
    condition = model.condition(model.encode_source(source), pose, warp)
    predicted = model.unet_output(noisy, draws.t, condition)
    truth = draws.noise
    if prediction == "v_prediction":
        truth = model.schedule.velocity(latents, draws.noise, draws.t)
    close(losses["loss"], (predicted - truth).square().mean())
    losses["loss"].backward()
    assert float(model.cc_projection.weight.grad.abs().max()) > 0  # type: ignore[union-attr]
    assert all(p.grad is None for part in model.frozen_parts() for p in part.parameters())


def test_what_is_frozen() -> None:
    for freeze in (False, True):
        model = tiny_model(tiny_config(encoder=True, freeze_projection=freeze))
        assert model.image_encoder is not None
        assert not any(p.requires_grad for p in model.image_encoder.parameters())
        assert all(p.requires_grad for p in model.unet.parameters())
        assert {p.requires_grad for p in model.cc_projection.parameters()} == {not freeze}


@torch.no_grad()
def test_a_token_of_the_image_alone_ignores_the_pose() -> None:
    model = tiny_model(tiny_config(encoder=True, token="image"))
    code = model.encode_source(torch.rand(2, 3, 32, 32) * 2 - 1)
    for pose in (torch.zeros(2, 19), torch.ones(2, 19)):
        assert torch.equal(model.condition(code, pose, None).token, code.embedding[:, None])


@torch.no_grad()
def test_an_encoded_warp_brings_its_coverage() -> None:
    model = tiny_model(tiny_config(warp="latent"))
    warp, coverage = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 1, 16, 16)
    channels = model.warp_channels(warp, coverage)
    assert channels is not None
    close(channels[:, :12], model.target_latents(warp, None))
    close(channels[:, 12:], coverage * 2 - 1)
    assert model.config.in_channels == 12 + 12 + 13


@pytest.mark.parametrize("sampler", ["unipc", "dpmpp", "ddim", "original"])
@torch.no_grad()
def test_every_sampler_draws_finite_latents_by_its_number_of_calls(sampler: str) -> None:
    model = tiny_model(tiny_config())
    condition, noise = tiny_condition(model, 1), random_latents(model, 1)
    calls: list[int] = []

    def adjust(clean: Tensor, part: slice, t: int) -> Tensor:
        calls.append(t)
        return clean

    settings = SamplingConfig(sampler=sampler, steps=4, eta=0.5)  # type: ignore[arg-type]
    latents = model.sample(condition, noise, settings, lambda: torch.zeros_like(noise), adjust)
    assert latents.isfinite().all()
    assert len(calls) == (3 if sampler == "original" else 4)
    assert calls == sorted(calls, reverse=True)
