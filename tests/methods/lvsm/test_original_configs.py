"""Configuration files of both code lines become the presets that stand for them."""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from engine.config import Experiment, resolve
from methods import load_experiment
from methods.lvsm.config import LvsmConfig
from methods.lvsm.original_configs import translate

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "lvsm"

OFFICIAL: dict[str, Any] = {
    "model": {
        "class_name": "model.LVSM_scene_decoder_only.Images2LatentScene",
        "image_tokenizer": {"image_size": 256, "patch_size": 8, "in_channels": 9},
        "target_pose_tokenizer": {"image_size": 256, "patch_size": 8, "in_channels": 6},
        "transformer": {
            "d": 768,
            "d_head": 64,
            "n_layer": 24,
            "special_init": True,
            "depth_init": True,
            "use_qk_norm": True,
        },
    },
    "training": {
        "amp_dtype": "bf16",
        "use_amp": True,
        "use_tf32": True,
        "batch_size_per_gpu": 8,
        "grad_accum_steps": 1,
        "train_steps": 100000,
        "lr": 4e-4,
        "beta1": 0.9,
        "beta2": 0.95,
        "weight_decay": 0.05,
        "warmup": 3000,
        "grad_clip_norm": 1.0,
        "allowed_gradnorm_factor": 5,
        "grad_checkpoint_every": 1,
        "l2_loss_weight": 1.0,
        "lpips_loss_weight": 0.0,
        "perceptual_loss_weight": 0.5,
        "num_views": 8,
        "num_input_views": 2,
        "num_target_views": 6,
        "target_has_input": True,
        "view_selector": {"min_frame_dist": 25, "max_frame_dist": 192},
        "square_crop": True,
        "scene_scale_factor": 1.35,
        "dataset_path": "preprocessed_data/train/full_list.txt",
        "num_workers": 4,
        "checkpoint_every": 2000,
        "print_every": 20,
        "vis_every": 1000,
    },
    "inference": {"if_inference": False, "view_idx_file_path": "data/evaluation_index_re10k.json"},
}
UNOFFICIAL: dict[str, Any] = {
    "mode": "train",
    "seed": 111123,
    "lvsm_cfg": {
        "patch_size": 8,
        "num_input_channels": 3,
        "vae_cfg": None,
        "transformer_cfg": {
            "d_model": 768,
            "d_k": 64,
            "d_v": 64,
            "num_heads": 16,
            "d_ff": 4096,
            "dropout_p": 0.0,
            "num_encoder_layers": 6,
            "num_decoder_layers": 0,
            "bias": False,
            "activation": "gelu",
            "pre_norm": True,
            "qk_norm": 2,
            "qk_exp_seq_len": None,
            "sdpa_kernel": "flex-attention",
        },
    },
    "optimizer": {
        "lr": 4e-4,
        "initial_lr": 1e-6,
        "min_lr": 1e-6,
        "warm_up_steps": 2500,
        "beta_1": 0.9,
        "beta_2": 0.95,
        "weight_decay": 0.05,
    },
    "trainer": {
        "max_steps": 100001,
        "gradient_clip_val": 5.0,
        "accumulate_grad_batches": 16,
        "precision": "bf16-mixed",
    },
    "data_loader": {"train": {"batch_size": 4, "num_workers": 8}},
    "checkpointing": {"every_n_train_steps": 100, "save_top_k": 10},
    "train": {"decode_vae_latents": False, "finetune_vae_decoder": None},
    "dataset": {
        "name": "re10k",
        "roots": ["datasets/re10k"],
        "image_shape": [192, 192],
        "sort_context_index": True,
        "view_sampler": {
            "name": "boundedv2",
            "num_context_views": 2,
            "num_target_views": 6,
            "min_distance_between_context_views": 45,
            "max_distance_between_context_views": 192,
            "max_distance_to_context_views": 45,
            "context_gap_warm_up_steps": 50000,
            "target_gap_warm_up_steps": 5000,
            "initial_min_distance_between_context_views": 25,
            "initial_max_distance_between_context_views": 45,
            "initial_max_distance_to_context_views": 5,
            "extra_views_sampling_strategy": None,
            "random_num_context_views": False,
            "target_views_replace_sample": False,
        },
    },
}


def read(raw: dict[str, Any]) -> Experiment:
    translated = translate(copy.deepcopy(raw))
    assert translated is not None
    return resolve(translated, LvsmConfig)


def same(read: Experiment, preset: str, *but: str) -> None:
    """The two experiments are equal but for settings that the file does not have."""
    expected, _ = load_experiment(CONFIGS / preset)
    a, b = asdict(read), asdict(expected)
    for path in but:
        *parents, last = path.split(".")
        for tree in (a, b):
            for parent in parents:
                tree = tree[parent]
            tree.pop(last)
    assert a == b


def test_the_official_file_is_its_preset() -> None:
    same(read(OFFICIAL), "official", "model.loss.weights")


def test_the_official_encoder_decoder_is_its_preset() -> None:
    raw = copy.deepcopy(OFFICIAL)
    raw["model"]["class_name"] = "model.LVSM_scene_encoder_decoder.Images2LatentScene"
    del raw["model"]["transformer"]["n_layer"]
    raw["model"]["transformer"] |= {"encoder_n_layer": 12, "decoder_n_layer": 12, "n_latent_vectors": 3072}
    same(read(raw), "official_encoder_decoder", "model.loss.weights")


def test_the_unofficial_file_is_its_preset() -> None:
    same(read(UNOFFICIAL), "unofficial", "data.index")


def test_the_unofficial_latent_file_is_its_preset() -> None:
    raw = copy.deepcopy(UNOFFICIAL)
    raw["lvsm_cfg"]["patch_size"] = 4
    raw["lvsm_cfg"]["vae_cfg"] = {"hf_model_id": "sd35", "hf_subfolder": "vae", "stochastic_encoder": True}
    raw["trainer"]["accumulate_grad_batches"], raw["data_loader"]["train"]["batch_size"] = 1, 64
    raw["dataset"]["view_sampler"] |= {
        "random_num_context_views": True,
        "min_context_views": 2,
        "max_context_views": 8,
        "max_context_views_warm_up_steps": 60000,
        "extra_views_sampling_strategy": "farthest_point",
    }
    same(read(raw), "unofficial_vae", "data.index", "model.loss.network")


def test_what_the_files_lack_is_said() -> None:
    assert translate({"method": "lvsm"}) is None
    raw = copy.deepcopy(OFFICIAL)
    del raw["training"]["lr"]
    with pytest.raises(UserError, match="lacks 'lr'"):
        translate(raw)
    raw = copy.deepcopy(OFFICIAL)
    raw["training"]["lpips_loss_weight"] = 0.5
    with pytest.raises(UserError, match="lpips_loss_weight and perceptual_loss_weight"):
        translate(raw)


@pytest.mark.parametrize("folder", sorted(path.name for path in CONFIGS.iterdir()))
def test_every_preset_builds(folder: str) -> None:
    experiment, kind = load_experiment(CONFIGS / folder)
    method = kind.create(experiment.model)
    assert sum(p.numel() for p in method.parameters()) > 1e6
    assert experiment.model.images.height % method.model.multiple == 0
