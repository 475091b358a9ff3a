"""Checks of the decoder, the whole model, its training and its checkpoints against XScale-NVS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataloader.formats.mvsnet import parse_camera
from engine.config import TrainingConfig
from geometry.cameras import Cameras
from geometry.mesh_files import read_mesh
from geometry.meshes import Mesh
from methods.hash_manifold.colour import display, quantize_original, srgb
from methods.hash_manifold.config import HashManifoldConfig
from methods.hash_manifold.decoder import Decoder, Film, Mapping
from methods.hash_manifold.method import HashManifold
from methods.hash_manifold.originals import convert, find_checkpoint, read_checkpoint
from methods.hash_manifold.surface import see
from tests.parity.cases import Case


def weights(case: Case, prefix: str = "") -> dict[str, Tensor]:
    """The case's weights below a prefix, without it."""
    prefix = f"weights.{prefix}"
    return {
        name.removeprefix(prefix): value for name, value in case.tensors.items() if name.startswith(prefix)
    }


def config_of(case: Case) -> HashManifoldConfig:
    """The original's parameters -> our settings."""
    values = case.config
    return HashManifoldConfig(
        levels=values["hash_n_levels"],
        features=values["z_length_s"],
        log2_table=values["log2_hashmap_size"],
        base_resolution=values["hash_base_resol"],
        level_growth=values["hash_per_level_scale"],
        box="mesh",
        width=values["descriptor_dim"],
        lighting=values["z_length_l"],
        lights=values["num_lit"],
        exposure="code" if values["use_exp_emb"] else "none",
        exposure_length=values["z_length_x"],
        supersample=values["ss_ratio"],
        original_colours=True,
        original_camera=True,
        sparse_optimizer=False,
        beta2=0.999,
        eps=1e-8,
        background="white",
    )


def saved_form(case: Case) -> dict[str, Any]:
    """The case's weights as the dictionary that the original saves."""
    groups: dict[str, Any] = {}
    for name, value in weights(case).items():
        group, _, key = name.partition(".")
        group = {"shading_machine": "shading_machine_dict", "spatial_encoding": "spatial_encoding_dict"}.get(
            group, group
        )
        groups.setdefault(group, {})[key] = value.clone()
    return groups


def build(case: Case, mesh: Mesh | None = None) -> HashManifold:
    """Our method with the case's weights, through the reader of the original's checkpoints."""
    saved = saved_form(case)
    codes = saved.get("x_embeddings_list")
    photos = 1 if codes is None else len(codes["0.weight"])
    config = config_of(case)
    method = HashManifold(config, mesh or a_triangle(), photos)
    found = convert(saved, case.path, config.features)
    missing, unexpected = method.load_state_dict(found, strict=False)
    assert not missing
    assert not unexpected
    return method


def a_triangle() -> Mesh:
    vertices = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, 1]], dtype=torch.float64)
    return Mesh(vertices, torch.tensor([[0, 1, 2]]))


def original_name(name: str) -> str:
    """The original's name of one of our weights, as its gradients are called."""
    table = {
        "field.grid.params": "spatial_encoding.spatial_enc.params",
        "field.lighting.weight": "l_embeddings_list.0.weight",
        "field.exposure.weight": "x_embeddings_list.0.weight",
    }
    return table.get(name) or "shading_machine.render_net_c." + name.removeprefix("field.decoder.")


def check_colour_transfer(case: Case) -> None:
    linear = case.input("linear")
    case.close("srgb", srgb(linear), **case.meta["tolerance"]["srgb"])
    widened = display(linear, widen=True)
    case.close("widened", widened, **case.meta["tolerance"]["widened"])
    scaled = 256 * case.output("widened").double()
    steady = (scaled - scaled.round()).abs() > 1e-3
    assert steady.any()
    assert torch.equal(quantize_original(widened)[steady], case.output("uint8")[steady])


def check_film_layer(case: Case) -> None:
    values = case.config
    film = Film(values["input_dim"], values["hidden_dim"])
    mapping = Mapping(values["z_dim"], values["map_hidden_dim"], values["map_output_dim"])
    film.load_state_dict(weights(case, "film."))
    mapping.load_state_dict(weights(case, "mapping."))
    frequency, phase = mapping(case.input("z"))
    width = values["hidden_dim"]
    y = film(case.input("x"), frequency[..., :width], phase[..., :width])
    case.close("y", y.detach(), **case.meta["tolerance"]["y"])


def check_decoder(case: Case) -> None:
    values, tolerance = case.config, case.meta["tolerance"]
    exposure = values["z_length_x"] if values["use_exp_emb"] else 0
    features = values["z_length_s"] * values["hash_n_levels"]
    decoder = Decoder(features, values["descriptor_dim"], values["z_length_l"], exposure)
    decoder.load_state_dict(weights(case))
    leaves = {
        name: case.input(name).requires_grad_()
        for name in ("s_feat", "l_emb", "x_emb")
        if name in case.inputs()
    }
    shift = decoder.exposure(leaves["x_emb"]) if exposure else None
    color = decoder(leaves["s_feat"], case.input("v"), decoder.mapping_network(leaves["l_emb"]), shift)
    case.close("c", color.detach(), **tolerance["c"])
    (color * case.input("cotangent")).sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items()}
    gradients |= {name: parameter.grad for name, parameter in decoder.named_parameters()}
    for name, gradient in gradients.items():
        case.close(f"grad.{name}", gradient, **tolerance["grad"])


def shade(
    method: HashManifold, case: Case, xyz: Tensor, toward: Tensor, photo: Tensor, light: Tensor
) -> Tensor:
    """The original's forward on [V, R, S, 3] points and directions -> [V, R, 3] colours."""
    views, rays, samples = xyz.shape[:3]
    center, scale = case.input("center"), case.input("scale")
    unit = ((2 * (xyz - center) / scale) * 0.5 + 0.5).flatten(0, 1)
    ones = torch.ones(views * rays, samples)
    seen = see(toward.flatten(0, 1), ones, torch.zeros(views * rays, 3), unit)
    rows = photo.repeat_interleave(rays) if method.field.exposure is not None else None
    colors = method.field(seen.points, seen.direction, rows, light.repeat_interleave(rays), seen.covered)
    return colors.reshape(views, rays, 3)


def check_model(case: Case) -> None:
    tolerance = case.meta["tolerance"]
    method = build(case)
    rgb = shade(
        method,
        case,
        case.input("xyz"),
        case.input("view_dir"),
        case.input("view_index"),
        case.input("lit_index"),
    )
    case.close("rgb", rgb.detach(), **tolerance["rgb"])
    case.close("l_embeddings_after_lookup", method.field.lighting.weight.detach(), rtol=1e-6, atol=1e-6)
    if method.field.exposure is not None:
        case.close("x_embeddings_after_lookup", method.field.exposure.weight.detach(), rtol=1e-6, atol=1e-6)
    case.close("normal", case.input("normal"))  # passed through by the original, not used by us
    (rgb * case.input("cotangent")).sum().backward()
    for name, parameter in method.field.named_parameters(prefix="field"):
        recorded = case.output(f"grad.{original_name(name)}")
        torch.testing.assert_close(parameter.grad.reshape(recorded.shape), recorded, **tolerance["grad"])


def check_train_steps(case: Case) -> None:
    method = build(case).train()
    values = case.config
    config = TrainingConfig(steps=values["iterations"], learning_rate=values["lr"])
    optimizer = method.optimization(config).optimizer
    losses = []
    for i in range(values["iterations"]):
        rgb = shade(
            method, case, *(case.input(f"{name}_{i}") for name in ("xyz", "viewdr", "view_index", "lit"))
        )
        loss = (rgb - case.input(f"colour_{i}")).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if f"after{i}.{original_name('field.lighting.weight')}" in case.outputs():
            compare_weights(case, method, f"after{i}.")
    case.close("losses", torch.stack(losses), **case.meta["tolerance"]["losses"])


def compare_weights(case: Case, method: HashManifold, prefix: str) -> None:
    """Within the tolerance; Adam steps of near-zero gradients may flip on 1 % of the entries."""
    for name, parameter in method.field.named_parameters(prefix="field"):
        recorded = case.output(prefix + original_name(name))
        error = (parameter.detach().reshape(recorded.shape) - recorded).abs()
        assert error.max() <= 4e-4, name
        assert (error > case.meta["tolerance"]["weights"]["atol"]).double().mean() <= 0.01, name


def check_checkpoint_layout(case: Case, folder: Path) -> None:
    """A file as the original writes it loads strictly into our module, found by the original's name."""
    top = case.config["top_level"]
    saved = saved_form(case) | {name: top[name] for name in ("epoch", "lr", "iteration")}
    for group, keys in top.items():
        if isinstance(keys, list):
            assert sorted(saved[group]) == sorted(keys)
    for name in case.config["file_names"]:
        torch.save(saved, folder / name)
    found = find_checkpoint(folder)
    assert found is not None
    assert found.name == max(name for name in case.config["file_names"] if name.startswith("epoch"))
    config = config_of(case)
    method = HashManifold(config, a_triangle(), len(saved["x_embeddings_list"]["0.weight"]))
    method.load_state_dict(read_checkpoint(found, config.features), strict=True)
    case.compared.add("weights")  # the case has no outputs
    for name, parameter in method.field.named_parameters(prefix="field"):
        group, _, key = original_name(name).partition(".")
        group = {"shading_machine": "shading_machine_dict", "spatial_encoding": "spatial_encoding_dict"}.get(
            group, group
        )
        assert torch.equal(parameter.detach().reshape(saved[group][key].shape), saved[group][key])


def check_render_test_view(case: Case, folder: Path) -> None:
    values = case.config
    (folder / "mesh.obj").write_bytes(bytes(case.input("obj").numpy()))
    mesh = read_mesh(folder / "mesh.obj")
    method = build(case, mesh).eval()
    K, w2c, _ = parse_camera(case.text("text"), "text")
    pose = torch.from_numpy(np.linalg.inv(w2c))
    camera = Cameras(torch.from_numpy(K.copy()), pose, values["height"], values["width"])
    with torch.no_grad():
        rendering = method.render(camera.reshape(1), camera.reshape(1))
    image = (rendering.image[0] * 255).round().movedim(0, -1)  # [H, W, 3]
    kept = ~case.output("exclude")
    assert kept.any()
    difference = (image - case.output("image_uint8").float()).abs()[kept]
    assert difference.max() <= 1
    if method.field.exposure is not None:
        mean = method.field.mean_exposure().detach()
        case.close("x_embedding_mean", mean.reshape(case.output("x_embedding_mean").shape), atol=1e-6)
    check_rows(case, method, camera, kept)


def check_rows(case: Case, method: HashManifold, camera: Cameras, kept: Tensor) -> None:
    """The values before rounding, on covered pixels; the original's background rows mean nothing."""
    method.config.original_colours = False  # leaves out the rounding to 8 bits, the transfer stays widened
    with torch.no_grad():
        rendering = method.render(camera.reshape(1), camera.reshape(1))
    covered = (rendering.opacity[0, 0] == 1) & kept
    recorded = case.output("rgb_rows").reshape(*kept.shape, 3).clamp(0, 1)
    error = (rendering.image[0].movedim(0, -1) - recorded)[covered].abs().max()
    assert error <= 2e-3, error  # a hit point's rounding, times the gradient of the finest level


CHECKS: dict[str, Callable[..., None]] = {
    "colour_transfer": check_colour_transfer,
    "film_layer": check_film_layer,
    "decoder": check_decoder,
    "model": check_model,
    "train_steps": check_train_steps,
    "checkpoint_layout": check_checkpoint_layout,
    "render_test_view": check_render_test_view,
}
WITH_FOLDER = {"checkpoint_layout", "render_test_view"}
