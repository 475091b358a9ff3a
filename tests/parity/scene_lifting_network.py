"""The depth-completion network of scene_lifting and its layers (specs/scene_lifting 2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from methods.scene_lifting.completion import complete_depth, predict_at_size
from methods.scene_lifting.config import NetworkConfig
from methods.scene_lifting.network import (
    DepthCompletion,
    build_zoedepth,
    input_size,
    network_inputs,
    prepare,
    zoedepth_config,
)
from methods.scene_lifting.originals import convert_state_dict, infer_config
from tests.parity.cases import Case, parity_folder

TINY = NetworkConfig(  # the size of the recorded networks, for tests that have no weights of theirs
    height=64,
    width=96,
    hidden=32,
    layers=4,
    heads=2,
    mlp=64,
    window=4,
    hooks=(1, 2, 3, 4),
    reassemble=(8, 12, 16, 16),
    features=16,
)
ASPECTS = ("minimal", "lower_bound", "upper_bound")


@cache
def tiny_file() -> dict[str, Tensor]:
    """The tensors of the case that the others take their weights from."""
    return load_file(parity_folder() / "scene_lifting" / "zoe_dc_full_tiny.safetensors")


def tiny_size() -> tuple[int, int]:
    """The size of its input."""
    height, width = Case(parity_folder() / "scene_lifting" / "zoe_dc_full_tiny.safetensors").config[
        "img_size"
    ]
    return height, width


def tiny_state_dict() -> dict[str, Tensor]:
    """The original's state dict of the tiny network."""
    return {k.removeprefix("weights."): v for k, v in tiny_file().items() if k.startswith("weights.")}


def tiny_network() -> DepthCompletion:
    """The tiny network with the recorded weights, loaded strictly."""
    weights = convert_state_dict(tiny_state_dict(), "the case")
    zoedepth = build_zoedepth(infer_config(weights))
    zoedepth.load_state_dict(weights, strict=True)
    return DepthCompletion(zoedepth.eval(), tiny_size())


def own_weights(case: Case, names: dict[str, str]) -> dict[str, Tensor]:
    """A case's own weights, with parts of their names replaced."""
    found = {}
    for name, value in case.tensors.items():
        if name.startswith("weights."):
            name = name.removeprefix("weights.")
            for old, new in names.items():
                name = name.replace(old, new)
            found[name] = value
    return {k: v for k, v in found.items() if "log_binomial_transform" not in k}


def layer_config(**options: Any) -> object:
    """The settings of the network, some replaced."""
    config = zoedepth_config(TINY)
    for name, value in options.items():
        setattr(config, name, value)
    return config


def check_attractor(case: Case) -> None:
    from transformers.models.zoedepth.modeling_zoedepth import ZoeDepthAttractorLayerUnnormed

    settings = case.config
    layer = ZoeDepthAttractorLayerUnnormed(
        layer_config(bin_embedding_dim=settings["in_features"], attractor_kind=settings["kind"]),
        n_bins=settings["n_bins"],
        n_attractors=settings["n_attractors"],
    )
    # the library's layer has as many hidden channels as inputs, this case's has more
    layer.conv1 = torch.nn.Conv2d(settings["in_features"], settings["mlp_dim"], 1)
    layer.conv2 = torch.nn.Conv2d(settings["mlp_dim"], settings["n_attractors"], 1)
    layer.load_state_dict(own_weights(case, {"_net.0.": "conv1.", "_net.2.": "conv2."}), strict=True)
    found = layer(case.input("x"), case.input("b_prev"), case.input("prev_b_embedding"))
    tolerance = case.meta["tolerance"]
    for name, value in zip(("b_new_centers", "B_centers"), found, strict=True):
        case.close(name, value, **tolerance)


def check_log_binomial(case: Case) -> None:
    from transformers.models.zoedepth.modeling_zoedepth import (
        LogBinomialSoftmax,
        ZoeDepthConditionalLogBinomialSoftmax,
    )

    settings, tolerance = case.config, case.meta["tolerance"]
    layer = ZoeDepthConditionalLogBinomialSoftmax(
        layer_config(), settings["in_features"], settings["condition_dim"], n_classes=settings["n_classes"]
    )
    layer.load_state_dict(own_weights(case, {}), strict=True)
    x, condition = case.input("x"), case.input("cond")
    torch.testing.assert_close(layer.mlp(torch.cat([x, condition], 1)), case.tensors["mid.mlp"], **tolerance)
    case.close("probs", layer(x, condition), **tolerance)
    plain = LogBinomialSoftmax(settings["n_classes"])
    case.close("logbinom_plain", plain(case.input("plain_p"), case.input("plain_t")), **tolerance)


def check_seed_bins(case: Case) -> None:
    from transformers.models.zoedepth.modeling_zoedepth import ZoeDepthSeedBinRegressor

    settings, tolerance = case.config, case.meta["tolerance"]
    layer = ZoeDepthSeedBinRegressor(
        layer_config(bottleneck_features=settings["in_features"]),
        n_bins=settings["n_bins"],
        mlp_dim=settings["mlp_dim"],
    )
    layer.load_state_dict(own_weights(case, {"_net.0.": "conv1.", "_net.2.": "conv2."}), strict=True)
    first, centers = layer(case.input("x"))
    case.close("first", first, **tolerance)
    case.close("centers", centers, **tolerance)


def check_metric_head(case: Case) -> None:
    head = tiny_network().zoedepth.metric_head
    centers: list[Tensor] = []
    for attractor in head.attractors[:2]:
        attractor.register_forward_hook(lambda module, inputs, output: centers.append(output[1]))
    depth, _ = head(
        outconv_activation=case.input("out_conv"),
        bottleneck=case.input("l4_rn"),
        feature_blocks=[case.input(name) for name in ("r4", "r3", "r2", "r1")],
        relative_depth=case.input("rel_depth"),
    )
    for i in range(2):
        torch.testing.assert_close(centers[i], case.tensors[f"mid.b_centers_{i}"], **case.meta["tolerance"])
    case.close("metric_depth", depth, **case.meta["tolerance"])


def check_backbone(case: Case) -> None:
    network, tolerance = tiny_network().zoedepth, case.meta["tolerance"]
    for size in ("native", "wide", "large"):
        x = case.input(f"x_{size}")
        blocks = network.backbone(x).feature_maps
        fused, bottleneck = network.neck(list(blocks), x.shape[-2] // 16, x.shape[-1] // 16)
        depth, _ = network.relative_head(fused)
        case.close(f"rel_depth_{size}", depth, **tolerance)
        if size == "wide":
            for i, block in enumerate(blocks):
                torch.testing.assert_close(block, case.tensors[f"mid.block_{i + 1}_wide"], **tolerance)
            case.close("l4_rn_wide", bottleneck, **tolerance)
            for name, value in zip(("r4", "r3", "r2", "r1"), fused, strict=True):
                case.close(f"{name}_wide", value, **tolerance)


def check_network(case: Case) -> None:
    network, x, tolerance = tiny_network(), case.input("x"), case.meta["tolerance"]
    prepared = prepare(x, network.size)[:, :, ::3, ::3]
    torch.testing.assert_close(prepared, case.tensors["mid.prepped_every3"], **tolerance)
    case.close("metric_depth", network(x), **tolerance)


def check_inference(case: Case) -> None:
    network, tolerance = tiny_network(), case.meta["tolerance"]
    image, sparse = case.input("image"), case.input("sparse_depth")
    for unit in case.config["scalings"]:
        case.close(f"depth_scaling_{unit}", complete_depth(network, image, sparse, unit), **tolerance)
    nothing = torch.zeros_like(sparse)
    case.close("depth_no_sparse", complete_depth(network, image, nothing, 1.0), **tolerance)
    inputs = network_inputs(image[None], sparse[None, None])
    case.close("benchmark_depth", predict_at_size(network, inputs)[0, 0], **tolerance)


def check_sizes(case: Case) -> None:
    found = [
        input_size(h, w, (384, 512), ASPECTS[mode] if keep else "stretch")  # type: ignore[arg-type]
        for keep, mode, h, w in case.input("query").tolist()
    ]
    case.close("size", torch.tensor(found))


CHECKS: dict[str, Callable[[Case], None]] = {
    "attractor_unnormed_inv_mean": check_attractor,
    "conditional_log_binomial": check_log_binomial,
    "seed_bin_regressor_softplus": check_seed_bins,
    "metric_head": check_metric_head,
    "midas_beit_dpt_tiny": check_backbone,
    "zoe_dc_full_tiny": check_network,
    "zoe_dc_inference": check_inference,
    "resize_sizes": check_sizes,
}
