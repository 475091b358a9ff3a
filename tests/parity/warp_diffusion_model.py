"""Checks of the latent diffusion model's kinds of cases: networks, schedule, samplers, the whole."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from methods.warp_diffusion.conditioning import Condition, draw_dropped
from methods.warp_diffusion.config import SamplingConfig, UNetConfig, WarpDiffusionConfig
from methods.warp_diffusion.model import Draws, LatentDiffusion
from methods.warp_diffusion.network import ImageEncoder, KLAutoencoder, clip_pixels, make_unet
from methods.warp_diffusion.original_configs import (
    autoencoder_settings,
    image_encoder_settings,
    model_settings,
    unet_settings,
)
from methods.warp_diffusion.originals import convert_state_dict, widen
from methods.warp_diffusion.sampling import ddim_steps, sample_original
from methods.warp_diffusion.schedule import make_schedule, per_item_mse, warm_up_rate
from tests.parity.cases import Case


def weights(case: Case) -> dict[str, Tensor]:
    """The stored weights by the original's names, as float32."""
    prefix = "weights."
    return {n.removeprefix(prefix): t.float() for n, t in case.tensors.items() if n.startswith(prefix)}


def middle(case: Case, name: str, actual: Tensor, atol: float) -> None:
    """Compare an intermediate value."""
    torch.testing.assert_close(actual, case.tensors[f"mid.{name}"], atol=atol, rtol=0)


def loaded(case: Case, module: torch.nn.Module, part: str, unet: UNetConfig, levels: int = 1) -> None:
    """Load one network's weights strictly. part: its name with the dot."""
    names = convert_state_dict(weights(case), len(unet.multipliers), unet.blocks, levels, case.path.name)
    module.load_state_dict({name.removeprefix(part): value for name, value in names.items()}, strict=True)
    module.eval()


@torch.no_grad()
def check_unet(case: Case) -> None:
    config = unet_settings(case.config)
    unet = make_unet(config, case.config["in_channels"], case.config["out_channels"], 8)
    loaded(case, unet, "unet.", config)
    seen = record(unet, config)
    eps = unet(case.input("x"), case.input("t"), encoder_hidden_states=case.input("context")).sample
    case.close("eps", eps, atol=1e-4)
    for name, value in seen.items():
        if f"mid.{name}" in case.tensors:
            middle(case, name, value[:1], 1e-4)


def record(unet: Any, config: UNetConfig) -> dict[str, Tensor]:
    """Collects what the network's first and middle layers put out, by the original's names, as it runs."""
    seen: dict[str, Tensor] = {}
    for name, module in (
        ("time_embed", unet.time_embedding),
        ("input_blocks.0", unet.conv_in),
        ("middle_block", unet.mid_block),
    ):
        module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o))
    return seen


@torch.no_grad()
def check_vae(case: Case) -> None:
    config = autoencoder_settings(case.config)
    vae = KLAutoencoder(config, case.config["ddconfig"]["resolution"])
    loaded(case, vae, "autoencoder.", UNetConfig(), len(config.multipliers))
    posterior = vae.network.encode(case.input("x")).latent_dist
    for name in ("mean", "logvar", "std"):
        case.close(name, getattr(posterior, name), atol=1e-4)
    mode, sample = vae.encode(case.input("x")), vae.encode(case.input("x"), case.input("noise"))
    case.close("mode", mode, atol=1e-4)
    case.close("sample", sample, atol=1e-4)
    case.close("decoded_mode", vae.decode(mode), atol=1e-4)
    case.close("decoded_sample", vae.decode(sample), atol=1e-4)


@torch.no_grad()
def check_clip_image_embedder(case: Case) -> None:
    encoder = ImageEncoder(image_encoder_settings(case.config))
    loaded(case, encoder, "image_encoder.", UNetConfig())
    images = channels_first(case.input("image_u8"))
    middle(case, "preprocessed_stride7", clip_pixels(images)[:, :, ::7, ::7], 1e-4)
    embedding = encoder(images)[:, None]
    case.close("embedding", embedding, atol=1e-4)
    null = Condition(embedding[:1], torch.zeros(1, 1, 1, 1)).null().token
    case.close("null_embedding", null, atol=0)


def channels_first(images: Tensor) -> Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def schedule_of(settings: dict[str, Any]) -> Any:
    assert settings["beta_schedule"] == "linear"  # the original's name for evenly spaced square roots
    return make_schedule(settings["timesteps"], settings["linear_start"], settings["linear_end"])


def check_schedule(case: Case) -> None:
    for name, settings in case.config["schedules"].items():
        schedule = schedule_of(settings)
        a = schedule.alphas_cumprod
        buffers = {
            "betas": schedule.betas,
            "alphas_cumprod": a,
            "alphas_cumprod_prev": schedule.alphas_cumprod_prev,
            "sqrt_alphas_cumprod": a.sqrt(),
            "sqrt_one_minus_alphas_cumprod": (1 - a).sqrt(),
            "log_one_minus_alphas_cumprod": (1 - a).log(),
            "sqrt_recip_alphas_cumprod": (1 / a).sqrt(),
            "sqrt_recipm1_alphas_cumprod": (1 / a - 1).sqrt(),
            "posterior_variance": schedule.posterior_variance,
            "posterior_log_variance_clipped": schedule.posterior_log_variance,
            "posterior_mean_coef1": schedule.posterior_mean_coef1,
            "posterior_mean_coef2": schedule.posterior_mean_coef2,
            "lvlb_weights": schedule.vlb_weights,
        }
        for buffer, value in buffers.items():
            case.close(f"{name}.{buffer}", value, rtol=1e-6)
        check_sub_schedules(case, name, schedule)
    check_embeddings(case)
    check_rates(case)


def check_sub_schedules(case: Case, name: str, schedule: Any) -> None:
    for output in case.outputs():
        match = re.fullmatch(rf"{name}\.ddim(\d+)\.(\w+?)(?:_eta([\d.]+))?", output)
        if match is None:
            continue
        steps = ddim_steps(schedule, int(match[1]))
        if match[2] == "timesteps":
            case.close(output, steps.timesteps)
        elif match[2] == "sigmas":
            case.close(output, steps.sigmas(float(match[3])), rtol=1e-6)
        else:
            values = {"alphas": steps.alphas, "alphas_prev": steps.alphas_previous}
            case.close(output, values[match[2]], rtol=1e-6)


def check_embeddings(case: Case) -> None:
    """The UNet's time embedding, as the library computes it with our settings."""
    from diffusers.models.embeddings import get_timestep_embedding

    for output in case.outputs():
        if output.startswith("timestep_embedding."):
            width = int(output.rpartition(".")[2])
            embedding = get_timestep_embedding(
                case.input("embedding_t"), width, flip_sin_to_cos=True, downscale_freq_shift=0
            )
            case.close(output, embedding, rtol=1e-6, atol=1e-6)


def check_rates(case: Case) -> None:
    settings = case.config["lr"]
    rates = [warm_up_rate(int(n), settings["warm_up_steps"][0]) for n in case.input("lr_n")]
    case.close("lr_multiplier", torch.tensor(rates, dtype=torch.float64), rtol=1e-6)


def stand_in(x: Tensor, t: Tensor | int, condition: Condition) -> Tensor:
    """The noise prediction that the fixtures use in place of a network."""
    steps = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1)
    channels = condition.channels.mean(1, keepdim=True)
    token = condition.token.mean((1, 2)).reshape(-1, 1, 1, 1)
    return 0.5 * x.tanh() + 0.3 * (steps / 1000).sin() + 0.2 * channels + 0.1 * token


def check_diffusion_steps(case: Case) -> None:
    schedule = schedule_of(case.config["schedule"])
    condition = Condition(case.input("c_crossattn"), case.input("c_concat"))
    x0, noise, t = (case.input(name) for name in ("x0", "noise", "t"))

    def close(name: str, actual: Tensor) -> None:
        case.close(name, actual, atol=1e-5 * max(1.0, float(case.output(name).abs().max())))

    noisy = schedule.add_noise(x0, noise, t)
    eps = stand_in(noisy, t, condition)
    clean = schedule.clean(noisy, eps, t)
    mean, variance, log_variance = schedule.posterior(clean, noisy, t)
    errors = per_item_mse(eps, noise)
    close("x_noisy", noisy)
    close("eps", eps)
    close("loss", errors.mean())
    close("loss_simple", errors.mean())
    close("loss_vlb", (schedule.vlb_weights.float()[t] * errors).mean())
    close("pred_x0", clean)
    close("posterior_mean", mean)
    close("posterior_variance", variance)
    close("posterior_log_variance_clipped", log_variance)
    close("p_sample", schedule.ancestral_step(noisy, eps, t, case.input("p_sample_noise")))


def check_ddim(case: Case) -> None:
    schedule = schedule_of(case.config["schedule"])
    condition = Condition(case.input("c_crossattn"), case.input("c_concat"))
    used: list[int] = []

    def predict(x: Tensor, t: int) -> Tensor:
        used.append(t)
        null, given = stand_in(x, t, condition.null()), stand_in(x, t, condition)
        return null + case.config["guidance_scale"] * (given - null)

    draws = iter(case.input("step_noise"))
    sample = sample_original(
        predict,
        case.input("x_T"),
        schedule,
        case.config["steps_requested"],
        case.config["eta"],
        lambda: next(draws),
    )
    case.close("sample", sample, atol=1e-4)
    case.close("timesteps_used", torch.tensor(used))


def tiny_model(case: Case) -> LatentDiffusion:
    """The whole model of a case, with its weights."""
    settings: WarpDiffusionConfig = model_settings(case.config["model"], case.config["clip"])
    model = LatentDiffusion(settings)
    unet, levels = settings.unet, len(settings.autoencoder.multipliers)
    names = convert_state_dict(weights(case), len(unet.multipliers), unet.blocks, levels, case.path.name)
    model.load_state_dict(names, strict=True)
    return model.eval()


def check_full_model(case: Case) -> None:
    model = tiny_model(case)
    source, target = (channels_first(case.input(f"image_{name}_u8")) for name in ("ref", "target"))
    warp = channels_first(case.input("warped_u8")) if "warped_u8" in case.inputs() else None
    pose = case.input("rel_pose")
    check_training(case, model, source, target, pose, warp)
    check_inference(case, model, source, pose, warp)


def check_training(
    case: Case, model: LatentDiffusion, source: Tensor, target: Tensor, pose: Tensor, warp: Tensor | None
) -> None:
    draws = Draws(
        posterior=case.input("train_vae_noise"),
        uniform=case.input("train_drop_uniform"),
        t=case.input("train_t"),
        noise=case.input("train_noise"),
    )
    code = model.encode_source(source)
    condition = model.hidden_condition(code, pose, warp, draw_dropped(draws.uniform, "original"))
    case.close("train_z", model.target_latents(target, draws.posterior), atol=1e-4)
    case.close("train_c_concat", condition.channels, atol=1e-4)
    case.close("train_c_crossattn", condition.token, atol=1e-4)
    loss = model.losses(target, source, pose, warp, draws)["loss"]
    case.close("train_loss", loss, rtol=1e-4)
    loss.backward()
    unet = list(model.unet.parameters())
    norm = torch.nn.utils.get_total_norm([p.grad for p in unet if p.grad is not None])
    case.close("train_grad_norm_total", norm, rtol=1e-3)
    for name, weight in (("conv_in", model.unet.conv_in.weight), ("out_conv", model.unet.conv_out.weight)):
        recorded = case.output(f"train_grad_{name}")
        case.close(f"train_grad_{name}", weight.grad, rtol=1e-3, atol=1e-3 * float(recorded.abs().max()))


@torch.no_grad()
def check_inference(
    case: Case, model: LatentDiffusion, source: Tensor, pose: Tensor, warp: Tensor | None
) -> None:
    condition = model.condition(model.encode_source(source), pose, warp)
    case.close("infer_c_concat", condition.channels, atol=1e-4)
    case.close("infer_c_crossattn", condition.token, atol=1e-4)
    noises = iter(case.input("infer_step_noise"))
    config = SamplingConfig(
        sampler="original", steps=case.config["ddim_steps"], guidance=case.config["guidance_scale"], batch=3
    )
    latents = model.sample(condition, case.input("infer_x_T"), config, lambda: next(noises))
    case.close("infer_image", model.decode(latents), atol=2e-3)


def check_weight_port(case: Case) -> None:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    ours = {"unet.conv_in.weight": first, "cc_projection.weight": "cc_projection.weight"}
    values = {name: case.input(old) for name, old in ours.items()}
    widened = widen(values, {name: case.output(old).shape for name, old in ours.items()})
    assert set(widened) == set(ours)
    for name, old in ours.items():
        case.close(old, values[name])


CHECKS = {
    "unet": check_unet,
    "vae": check_vae,
    "clip_image_embedder": check_clip_image_embedder,
    "schedule": check_schedule,
    "diffusion_steps": check_diffusion_steps,
    "ddim": check_ddim,
    "full_model": check_full_model,
    "weight_port": check_weight_port,
}
