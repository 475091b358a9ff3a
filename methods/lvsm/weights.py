"""Where the weights of a model come from: an original's checkpoint, published autoencoders, a base run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from common.errors import UserError
from methods.lvsm.config import LvsmConfig
from methods.lvsm.latent import lora_weights
from methods.lvsm.originals import Original, find_file, infer_config, read_original

log = logging.getLogger(__name__)

_PRESETS = {
    ("unofficial", "masked"): "configs/lvsm/unofficial",
    ("official", "full"): "configs/lvsm/official",
    ("official", "encoder_decoder"): "configs/lvsm/official_encoder_decoder",
}
_AUTOENCODER = "autoencoder."


def read_weights(folder: Path, config: LvsmConfig) -> dict[str, Tensor] | None:
    """The weights in an original's checkpoint folder under the names of `LvsmModel`; None if it holds none.

    Low-rank updates are added to the weights they belong to, unless the config has such updates itself.
    Raises UserError when the file is unreadable or of a model that the config does not describe.
    """
    path = find_file(folder)
    if path is None:
        return None
    original = read_original(path)
    if original.dropped:
        log.info("%s: %d weights left out, such as %s", path, len(original.dropped), original.dropped[0])
    refuse_others(original, config, path)
    return model_weights(original, config)


def model_weights(original: Original, config: LvsmConfig) -> dict[str, Tensor]:
    """A read checkpoint's weights under the names of `LvsmModel`."""
    if not original.lora:
        return original.weights
    found = {k: v for k, v in original.weights.items() if not k.startswith(_AUTOENCODER)}
    autoencoder = {
        k.removeprefix(_AUTOENCODER): v for k, v in original.weights.items() if k.startswith(_AUTOENCODER)
    }
    lora = config.latent.lora
    if lora.rank:
        autoencoder = lora_weights(autoencoder, original.lora)
    else:
        autoencoder = merged(autoencoder, original.lora, lora.alpha)
    return found | {_AUTOENCODER + name: value for name, value in autoencoder.items()}


def merged(
    weights: Mapping[str, Tensor], lora: Mapping[str, tuple[Tensor, Tensor]], alpha: float
) -> dict[str, Tensor]:
    """Weights with low-rank updates added: W + (B A) alpha / sqrt(rank), in float32."""
    found = dict(weights)
    for layer, (a, b) in lora.items():
        weight = weights[f"{layer}.weight"].to(torch.float32)
        update = (b.float() @ a.float()).reshape(weight.shape) * alpha / len(a) ** 0.5
        found[f"{layer}.weight"] = weight + update
    return found


def refuse_others(original: Original, config: LvsmConfig, path: Path) -> None:
    """Raise UserError where a checkpoint is of another kind of model than the config's, naming both."""
    there = infer_config(original, config)
    same = (
        there.transformer.kind == config.transformer.kind
        and there.transformer.two_norms == config.transformer.two_norms
        and there.signed_images == config.signed_images
    )
    if not same:
        kind = there.transformer.kind
        raise UserError(
            f"{path} is a checkpoint of the {original.line} LVSM code ({kind}), this experiment's model is "
            f"another ({config.transformer.kind}): use -e {_PRESETS[original.line, kind]}"
        )
    if bool(there.latent.autoencoder) != bool(config.latent.autoencoder):
        has = "works on latents" if there.latent.autoencoder else "works on pixels"
        raise UserError(f"{path} {has}, this experiment does not: set model.latent.autoencoder")
    faults = [
        f"{name} is {getattr(there.transformer, name)} there, {getattr(config.transformer, name)} here"
        for name in ("patch", "width", "layers", "heads", "mlp", "qk_norm", "decoder_layers", "latents")
        if getattr(there.transformer, name) != getattr(config.transformer, name)
    ]
    if faults:
        raise UserError(f"{path} fits another model.transformer: {'; '.join(faults)}")
