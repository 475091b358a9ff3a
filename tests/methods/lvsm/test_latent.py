"""The latent variant on a tiny autoencoder: both conventions, losses, low-rank updates, original files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from engine.checkpoint import load_weights
from methods.lvsm.config import LatentConfig, LoraConfig
from methods.lvsm.latent import decode, encode
from methods.lvsm.method import Lvsm
from methods.lvsm.originals import convert
from tests.methods.lvsm.tiny import original_names, tiny_config

TINY: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (4, 8),
    "latent_channels": 4,
    "norm_num_groups": 2,
    "scaling_factor": 0.5,
    "shift_factor": 0.1,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random autoencoder, as diffusers writes it."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    AutoencoderKL(**TINY).save_pretrained(folder / "vae")
    return str(folder)


def latent_method(place: str, **changes: Any) -> Lvsm:
    config = tiny_config(patch=2)
    config = replace(config, latent=LatentConfig(autoencoder=place, **changes))
    torch.manual_seed(1)
    method = Lvsm.create(config)
    method.initialise()
    return method


def test_what_is_encoded_comes_in_unit_range_or_as_the_original_has_it(autoencoder: str) -> None:
    images = torch.rand(2, 3, 16, 16)
    for compat in (False, True):
        config = LatentConfig(autoencoder=autoencoder, compat=compat)
        network = latent_method(autoencoder).model.autoencoder
        seen = images if compat else images * 2 - 1
        mean = network.encode(seen).latent_dist.mean
        expected = mean if compat else (mean - 0.1) * 0.5
        torch.testing.assert_close(encode(network, images, config), expected)
        back = network.decode(mean).sample
        back = back if compat else (back + 1) / 2
        torch.testing.assert_close(decode(network, expected, config), back.clamp(0, 1))


def test_training_is_on_latents_and_leaves_the_autoencoder(autoencoder: str) -> None:
    method = latent_method(autoencoder, stochastic=True)
    sample = method.random_sample(2, 2, 1)
    losses = method(sample, 0)
    assert losses.keys() == {"loss", "latent_mse"}
    torch.testing.assert_close(method(sample, 0)["loss"], losses["loss"])  # the noise is keyed
    losses["loss"].backward()
    trained = {name.split(".")[1] for name, p in method.named_parameters() if p.grad is not None}
    assert trained == {"network", "rays"}
    assert method.tokens_per_sample(sample) == 3 * 16


def test_low_rank_updates_alone_are_trained_and_merge(autoencoder: str, tmp_path: Path) -> None:
    whole = latent_method(autoencoder)
    whole.save_pretrained(tmp_path / "base")
    lora = LoraConfig(rank=2, base=str(tmp_path / "base"))
    method = latent_method(autoencoder, decode=True, lora=lora)
    for name, value in whole.model.network.state_dict().items():
        torch.testing.assert_close(method.model.network.state_dict()[name], value)
    sample = method.random_sample(1, 2, 1)
    method(sample, 0)["loss"].backward()
    trained = [name for name, p in method.named_parameters() if p.grad is not None]
    assert trained
    assert all(".lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if ".lora_B" in name:
                parameter.normal_()
    before = method.model(sample.source.images, sample.source.cameras, sample.target.cameras)
    method.prepare_inference()
    after = method.model(sample.source.images, sample.source.cameras, sample.target.cameras)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-4)


def test_an_original_with_updates_loads_with_them_merged_or_apart(autoencoder: str, tmp_path: Path) -> None:
    method = latent_method(autoencoder, compat=True)
    method.model.config.transformer.two_norms = True
    config = replace(
        method.config,
        transformer=replace(method.config.transformer, two_norms=True, qk_norm="layer"),
        signed_images=False,
    )
    plain = original_names(config)
    layer = "vae.vae.decoder.conv_in"
    weight = plain.pop(f"{layer}.weight")
    a, b = torch.randn(2, weight[0].numel()), torch.randn(len(weight), 2)
    updated = {
        **plain,
        f"{layer}.parametrizations.weight.original": weight,
        f"{layer}.parametrizations.weight.0.lora_A": a,
        f"{layer}.parametrizations.weight.0.lora_B": b,
        f"{layer}.parametrizations.weight.0.lora_dropout_mask": torch.ones(1, 1),
    }
    folder = tmp_path / "iter_1"
    folder.mkdir()
    torch.save({"state_dict": {f"model._orig_mod.{k}": v for k, v in updated.items()}}, folder / "a.ckpt")
    assert convert(updated, "a.ckpt").dropped == [f"{layer}.parametrizations.weight.0.lora_dropout_mask"]
    merged = Lvsm.create(config)
    load_weights(merged, folder)
    expected = weight + (b @ a).reshape(weight.shape) * 2.0 / 2**0.5
    torch.testing.assert_close(merged.model.autoencoder.decoder.conv_in.weight.data, expected)


def test_a_missing_autoencoder_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.latent\.autoencoder=.*scripts/download\.py hub"):
        latent_method(str(tmp_path / "nowhere"))
