"""What the LVSM transformers compute, against their recorded outputs (specs/lvsm 2, 3, 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.plucker import ray_maps
from methods.lvsm.config import LatentConfig, LoraConfig, LvsmConfig, TransformerConfig
from methods.lvsm.latent import add_lora, build_autoencoder, lora_weights, merge_lora
from methods.lvsm.model import LvsmModel
from methods.lvsm.normalise import first_frame, official_frame, source_frame
from methods.lvsm.originals import Original, convert, infer_config
from tests.parity.cases import Case

_TIGHT = {"rtol": 1e-4, "atol": 2e-5}


def weights(case: Case, start: str = "weights.") -> dict[str, Tensor]:
    return {name.removeprefix(start): t for name, t in case.tensors.items() if name.startswith(start)}


def pixel_cameras(K: Tensor, c2w: Tensor, height: int, width: int) -> Cameras:
    """Cameras from intrinsics that are normalised by the image's width and height."""
    return Cameras(K * torch.tensor([width, height, 1.0], dtype=K.dtype)[:, None], c2w, height, width)


def official_cameras(fxfycxcy: Tensor, c2w: Tensor, height: int, width: int) -> Cameras:
    K = torch.zeros(*fxfycxcy.shape[:-1], 3, 3, dtype=fxfycxcy.dtype)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2] = fxfycxcy.unbind(-1)
    K[..., 2, 2] = 1
    return Cameras(K, c2w, height, width)


def unofficial_config(case: Case) -> LvsmConfig:
    """Our settings from the recorded ones, where shapes do not tell."""
    t = case.config["transformer"]
    return LvsmConfig(
        transformer=TransformerConfig(
            head_dim=t["d_k"], activation=t["activation"], pre_norm=t["pre_norm"], kind="masked"
        )
    )


def model_of(case: Case, base: LvsmConfig) -> tuple[LvsmModel, Original]:
    """The recorded model, built from the shapes of its weights as a published checkpoint is."""
    original = convert(weights(case), str(case.path))
    config = infer_config(original, base)
    model = LvsmModel(config).eval()
    model.load_state_dict(original.weights)
    return model, original


def check_attention_mask(case: Case) -> None:
    """Which tokens see which, from what changes: perturb every token and look at all others."""
    for name in case.outputs():
        sources, targets, tokens = (int(part[3:]) for part in name.split("_"))
        transformer = TransformerConfig(width=16, layers=1, heads=2, head_dim=8, mlp=16, patch=1)
        network = LvsmModel(LvsmConfig(transformer=transformer)).double().network
        case.close(name, attends(network, sources, targets, tokens))


def attends(network: torch.nn.Module, sources: int, targets: int, tokens: int) -> Tensor:
    """[N, N]: whether token i's result depends on what token j shows, by exact differences."""
    total = (sources + targets) * tokens
    x = torch.randn(1, total, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    block = network.blocks[0]

    def run(x: Tensor) -> Tensor:
        split = sources * tokens
        seen, shown = block(x[:, :split])
        own = x[:, split:].unflatten(1, (targets, tokens)).flatten(0, 1)
        made, _ = block(own, shown.repeated(targets))
        return torch.cat([seen, made.unflatten(0, (1, targets)).flatten(1, 2)], dim=1)

    before, rows = run(x), torch.zeros(total, total, dtype=torch.uint8)
    for j in range(total):
        changed = x.clone()
        changed[0, j] += torch.linspace(-1, 2, 16, dtype=torch.float64)
        rows[:, j] = ((run(changed) - before).abs().amax(-1)[0] > 0).to(torch.uint8)
    return rows


def check_kh_decoder(case: Case) -> None:
    model, _ = model_of(case, unofficial_config(case))
    assert model.config.transformer.patch == case.config["patch_size"]
    target = model.network.decode(
        model.network.encode(case.input("src_img"), case.input("src_rays")), case.input("tgt_rays")
    )
    case.close("image", target, **_TIGHT)
    height, width = case.input("src_img").shape[-2:]
    for b in range(len(target)):  # and from the cameras themselves
        sources, targets = (
            pixel_cameras(
                case.input(f"{v}_intrinsics")[b], case.input(f"{v}_extrinsics_c2w")[b], height, width
            ).to(torch.float64)
            for v in ("src", "tgt")
        )
        frame = source_frame(sources)
        made = model(case.input("src_img")[b : b + 1], frame(sources)[None], frame(targets)[None])
        torch.testing.assert_close(made[0], case.output("image")[b], rtol=1e-3, atol=2e-4)


def check_off_decoder(case: Case) -> None:
    t = case.config["model"]["transformer"]
    model, _ = model_of(case, LvsmConfig(transformer=TransformerConfig(head_dim=t["d_head"])))
    training = case.config["training"]
    given, made = training["num_input_views"], training["num_target_views"]
    images = case.input("image")
    cameras = official_cameras(case.input("fxfycxcy"), case.input("c2w"), *images.shape[-2:])
    sources, targets = cameras[:, :given], cameras[:, -made:]
    rendered = model(images[:, :given], sources, targets)
    case.close("render", rendered, **_TIGHT)
    truth = images[:, -made:]
    case.close("l2_loss", torch.nn.functional.mse_loss(rendered, truth), rtol=1e-4)
    case.close("psnr", -10 * (rendered.clamp(0, 1) - truth).square().mean().log10(), rtol=1e-4)
    encoded = model.encode(images[:, :given], sources)
    path = official_cameras(case.output("video_fxfycxcy"), case.output("video_c2w"), *images.shape[-2:])
    case.close("video", model.pixels(model.decode(encoded, path)), atol=1e-4)


def check_vae_latent(case: Case) -> None:
    vae = case.config["vae"]
    original = convert(weights(case), str(case.path))
    base = unofficial_config(case)
    base = replace(base, latent=LatentConfig(autoencoder="given", compat=True))
    config = infer_config(original, base)
    model = LvsmModel(config, settings=vae["config"]).eval()
    model.load_state_dict(original.weights)
    sources, rays = case.input("src_img"), case.input("src_rays")
    encoded = model.network.encode(model.image_inputs(sources), model.shrink(rays))
    latent = model.network.decode(encoded, model.shrink(case.input("tgt_rays")))
    case.close("latent", latent, atol=5e-5)
    case.close("image", model.pixels(latent), atol=1e-4)
    target = model.image_inputs(case.input("tgt_img"))
    case.close("latent_mse_loss", torch.nn.functional.mse_loss(latent, target), rtol=1e-4)


def check_vae_lora(case: Case) -> None:
    names = weights(case)
    names["tokenize_input.1.weight"] = torch.zeros(1)  # so that it counts as the unofficial code's
    original = convert(names, str(case.path))
    plain = {
        name.removeprefix("autoencoder."): value
        for name, value in original.weights.items()
        if name.startswith("autoencoder.")
    }
    autoencoder = build_autoencoder(case.config["vae"])
    own = autoencoder.state_dict()
    autoencoder.load_state_dict({**own, **plain})
    latent = case.input("latent")
    case.close("image_without_lora", autoencoder.decode(latent).sample, atol=1e-5)
    rank, alpha = case.config["lora_rank"], case.config["lora_alpha"]
    add_lora(autoencoder, LoraConfig(rank, alpha))
    with_lora = lora_weights({**own, **plain}, original.lora)
    autoencoder.load_state_dict(with_lora)
    case.close("image_with_lora", autoencoder.decode(latent).sample, atol=1e-5)
    merge_lora(autoencoder)
    for name in case.outputs():
        if name.startswith("merged."):
            layer = name.removeprefix("merged.vae.vae.").removesuffix(".weight")
            case.close(name, autoencoder.get_submodule(layer).base_layer.weight, atol=1e-5)


def check_rays_poses(case: Case) -> None:
    for name in [n for n in case.inputs() if n.startswith("case") and n.endswith("c2w")]:
        check_pose_case(case, name.split(".")[0])
    points = case.input("points")
    cameras = Cameras(case.input("points_K").double(), case.input("points_c2w").double(), 1, 1)
    pixels, depth = cameras.project(points[:, None].double())
    shift = depth / (depth + torch.finfo(torch.float32).eps)  # the original adds it to the depth
    case.close("project_xy", pixels[:, 0] * shift, atol=1e-5)
    case.close("project_in_front", depth[:, 0] >= 0)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    case.close("reflect_c2w", mirror @ cameras.c2w.float() @ mirror, atol=1e-5)
    for name in [n for n in case.outputs() if n.startswith("image_grid_")]:
        size, kind = name.removeprefix("image_grid_").split("_")
        case.close(name, image_grid(*map(int, size.split("x")), kind), atol=1e-6)


def image_grid(height: int, width: int, kind: str) -> Tensor:
    """Pixel centres, or the corners of pixels, as fractions of the image: [h, w, 2]."""
    if kind == "center":
        centers = Cameras(torch.eye(3), torch.eye(4), height, width).pixel_centers()
        return centers / torch.tensor([float(width), float(height)])
    x, y = torch.arange(width + 1) / width, torch.arange(height + 1) / height
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def check_pose_case(case: Case, name: str) -> None:
    _, ctx, _, size = name.split("_")
    count = int(ctx.removeprefix("ctx"))
    height, width = (int(n) for n in size.split("x"))
    cameras = pixel_cameras(case.input(f"{name}.intrinsics"), case.input(f"{name}.c2w"), height, width).to(
        torch.float64
    )
    sources, targets = cameras[:count], cameras[count:]
    for kind, frame in (("avgc", source_frame(sources)), ("firstcam", first_frame(sources))):
        for views, cameras_of in (("ctx", sources), ("tgt", targets)):
            recorded = case.tensors[f"mid.{name}.{kind}_{views}_c2w"]
            made = frame(cameras_of).c2w.float()
            torch.testing.assert_close(made, recorded, rtol=0, atol=1e-5)
    frame = source_frame(sources)
    case.close(f"{name}.ctx_plucker", ray_maps(frame(sources)), atol=1e-5)
    case.close(f"{name}.tgt_plucker", ray_maps(frame(targets)), atol=1e-5)
    case.close(f"{name}.plucker_unnormalised_poses", ray_maps(cameras), atol=1e-5)
    ends = torch.tensor([[0, 0.5], [1, 0.5], [0.5, 0], [0.5, 1]]).double() * torch.tensor([width, height])
    _, d = cameras.rays(ends.expand(len(cameras), -1, -1))
    horizontal = (d[:, 0] * d[:, 1]).sum(-1).acos()
    vertical = (d[:, 2] * d[:, 3]).sum(-1).acos()
    case.close(f"{name}.fov_rad", torch.stack([horizontal, vertical], -1), atol=1e-5)


def check_official_poses(case: Case) -> None:
    for name in case.outputs():
        c2w = case.input(f"c2w.{name.split('_')[0]}").double()
        K = torch.eye(3, dtype=torch.float64).expand(len(c2w), 3, 3)
        views = Cameras(K, c2w, 1, 1)
        margin = 1.0 if name.endswith("_scale1") else case.config["scene_scale_factor"]
        case.close(name, official_frame(views, margin)(views).c2w, atol=1e-5)


def check_official_rays(case: Case) -> None:
    layouts = {
        "default": ("moment", "direction"),
        "custom": ("direction", "nearest"),
        "aug": ("moment", "direction", "nearest"),
    }
    for name in sorted({output.split(".")[0] for output in case.outputs()}):
        height, width = (int(n) for n in name.split("_")[1].split("x"))
        cameras = official_cameras(case.input(f"{name}.fxfycxcy"), case.input(f"{name}.c2w"), height, width)
        origin, direction = (r.movedim(-1, -3) for r in cameras.rays())
        case.close(f"{name}.ray_o", origin, atol=1e-5)
        case.close(f"{name}.ray_d", direction, atol=1e-5)
        for kind, parts in layouts.items():
            case.close(f"{name}.{kind}_plucker", ray_maps(cameras, parts), atol=1e-5)  # type: ignore[arg-type]
        posed = torch.cat(
            [case.input(f"{name}.image") * 2 - 1, ray_maps(cameras, ("moment", "direction"))], dim=2
        )
        case.close(f"{name}.posed_default", posed, atol=1e-5)


CHECKS: Mapping[str, Callable[[Case], None]] = {
    "kh_attention_mask": check_attention_mask,
    "kh_decoder": check_kh_decoder,
    "off_decoder_only": check_off_decoder,
    "off_encoder_decoder": check_off_decoder,
    "kh_vae_latent": check_vae_latent,
    "kh_vae_lora": check_vae_lora,
    "kh_rays_poses": check_rays_poses,
    "off_preprocess_poses": check_official_poses,
    "off_rays": check_official_rays,
}
