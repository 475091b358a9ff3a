"""The configuration files of both LVSM code lines, read as experiments of ours (specs/lvsm 1).

Official: `configs/LVSM_scene_*.yaml`. Unofficial: the composed configuration that Hydra keeps beside a run
(`.hydra/config.yaml`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from common.errors import UserError

_AMP = {"bf16": "bf16", "fp16": "fp16", "fp32": "no", "tf32": "no"}
_QK_NORMS = {0: "none", 1: "l2", 2: "layer"}
_BOUNDED = (
    "num_target_views",
    "min_distance_between_context_views",
    "max_distance_between_context_views",
    "initial_min_distance_between_context_views",
    "initial_max_distance_between_context_views",
)
_BOUNDED_V1 = (*_BOUNDED, "min_distance_to_context_views", "warm_up_steps")
_BOUNDED_V2 = (
    *_BOUNDED,
    "num_context_views",
    "max_distance_to_context_views",
    "context_gap_warm_up_steps",
    "target_gap_warm_up_steps",
    "initial_max_distance_to_context_views",
    "random_num_context_views",
    "max_context_views_warm_up_steps",
    "target_views_replace_sample",
)


def translate(raw: dict[str, Any]) -> dict[str, Any] | None:
    """A parsed configuration file of either code line as one of ours; None where it is no such file.

    Raises UserError when it lacks something, or asks for what there is not.
    """
    model = raw.get("model")
    try:
        if isinstance(model, Mapping) and "Images2LatentScene" in str(model.get("class_name")):
            return _official(raw)
        if isinstance(raw.get("lvsm_cfg"), Mapping):
            return _unofficial(raw)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"the original's config file lacks {error}, or it is malformed: restore it") from None
    return None


def _official(raw: Mapping[str, Any]) -> dict[str, Any]:
    training, tokens = raw["training"], raw["model"]["image_tokenizer"]
    patch, size = tokens["patch_size"], tokens["image_size"]
    listed = PurePosixPath(training["dataset_path"])
    inference = raw.get("inference") or {}
    clip = float(training["grad_clip_norm"])
    return {
        "method": "lvsm",
        "model": {
            "transformer": {"patch": patch, **_official_transformer(raw["model"]["transformer"], training)},
            "loss": _official_loss(training),
            "optimizer": {
                "beta1": training["beta1"],
                "beta2": training["beta2"],
                "weight_decay": training["weight_decay"],
            },
            "frame": "official",
            "frame_margin": training["scene_scale_factor"],
            "images": {
                "height": size,
                "width": size,
                "style": "official",
                "patch": patch,
                "square": training["square_crop"],
            },
            "views": {"sampler": "official", "sort": False, "official": _official_views(training)},
        },
        "data": {
            "root": str(listed.parent),
            "index": inference["view_idx_file_path"] if inference.get("if_inference") else "",
        },
        "training": {
            "steps": training["train_steps"] + 1,
            "batch_size": training["batch_size_per_gpu"],
            "accumulation": training["grad_accum_steps"],
            "workers": training["num_workers"],
            "learning_rate": float(training["lr"]),
            "warmup_steps": training["warmup"],
            "schedule": training.get("scheduler_type", "cosine"),
            "final_lr_factor": 0.0,
            "clip_norm": clip,
            "skip_norm": clip * float(training["allowed_gradnorm_factor"]),
            "precision": _AMP[training["amp_dtype"]] if training["use_amp"] else "no",
            "save_every": training["checkpoint_every"],
            "preview_every": training["vis_every"],
            "log_every": training["print_every"],
            "seed": 777,
            "on_nan": "skip(100)",
        },
    }


def _official_transformer(t: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    settings = {
        "width": t["d"],
        "heads": t["d"] // t["d_head"],
        "head_dim": t["d_head"],
        "mlp": 4 * t["d"],
        "qk_norm": "rms" if t["use_qk_norm"] else "none",
        "initialisation": "depth_scaled" if t.get("depth_init") else "scaled",
        "checkpoint_every": training["grad_checkpoint_every"],
    }
    if "n_layer" in t:
        return {"kind": "full", "layers": t["n_layer"], **settings}
    return {
        "kind": "encoder_decoder",
        "layers": t["encoder_n_layer"],
        "decoder_layers": t["decoder_n_layer"],
        "latents": t["n_latent_vectors"],
        **settings,
    }


def _official_loss(training: Mapping[str, Any]) -> dict[str, Any]:
    weights = {name: float(training[f"{name}_loss_weight"]) for name in ("l2", "lpips", "perceptual")}
    if weights["lpips"] and weights["perceptual"]:
        raise UserError(
            "the original's config file asks for lpips_loss_weight and perceptual_loss_weight: set one to 0"
        )
    network = "vgg19" if weights["perceptual"] else "lpips" if weights["lpips"] else "none"
    return {"mse": weights["l2"], "perceptual": weights["perceptual"] + weights["lpips"], "network": network}


def _official_views(training: Mapping[str, Any]) -> dict[str, Any]:
    names = ("num_views", "num_input_views", "num_target_views", "target_has_input")
    selector = training["view_selector"]
    return {
        **{name: training[name] for name in names},
        "min_frame_dist": selector["min_frame_dist"],
        "max_frame_dist": selector["max_frame_dist"],
        "dynamic_input_view_num": training.get("dynamic_input_view_num", False),
    }


def _unofficial(raw: Mapping[str, Any]) -> dict[str, Any]:
    network, optimizer, trainer = raw["lvsm_cfg"], raw["optimizer"], raw["trainer"]
    dataset, loader = raw["dataset"], raw["data_loader"]["train"]
    rate = float(optimizer["lr"])
    height, width = dataset["image_shape"]
    vae = network.get("vae_cfg")
    return {
        "method": "lvsm",
        "model": {
            "transformer": _unofficial_transformer(network),
            "latent": {} if vae is None else _unofficial_latent(vae, raw.get("train") or {}),
            "loss": {"mse": 1.0, "perceptual": 0.0 if vae is not None else 0.5, "network": "lpips"},
            "optimizer": {
                "beta1": optimizer["beta_1"],
                "beta2": optimizer["beta_2"],
                "weight_decay": optimizer["weight_decay"],
            },
            "signed_images": False,
            "images": {"height": height, "width": width, "style": "unofficial"},
            "views": _unofficial_views(dataset),
        },
        "data": {
            "root": ",".join(str(root) for root in dataset["roots"]),
            "index": (dataset.get("view_sampler") or {}).get("index_path") or "",
        },
        "training": {
            "steps": trainer["max_steps"],
            "batch_size": loader["batch_size"],
            "accumulation": trainer["accumulate_grad_batches"],
            "workers": loader["num_workers"],
            "seed": raw["seed"],
            "learning_rate": rate,
            "warmup_steps": optimizer["warm_up_steps"] - 1,
            "initial_lr_factor": round(float(optimizer["initial_lr"]) / rate, 9),
            "final_lr_factor": round(float(optimizer["min_lr"]) / rate, 9),
            "schedule": "cosine",
            "clip_norm": float(trainer["gradient_clip_val"]),
            "precision": "bf16" if str(trainer["precision"]).startswith("bf16") else "no",
            "save_every": raw["checkpointing"]["every_n_train_steps"],
            "keep": raw["checkpointing"]["save_top_k"],
        },
    }


def _unofficial_transformer(network: Mapping[str, Any]) -> dict[str, Any]:
    t = network["transformer_cfg"]
    return {
        "kind": "masked",
        "patch": network["patch_size"],
        "width": t["d_model"],
        "layers": t["num_encoder_layers"],
        "heads": t["num_heads"],
        "head_dim": t["d_k"],
        "mlp": t["d_ff"],
        "bias": t["bias"],
        "activation": t["activation"],
        "pre_norm": t["pre_norm"],
        "qk_norm": _QK_NORMS[t["qk_norm"]],
        "l2_tokens": t.get("qk_exp_seq_len") or 2,
        "two_norms": True,
        "initialisation": "unofficial",
    }


def _unofficial_latent(vae: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "autoencoder": vae["hf_model_id"],
        "subfolder": vae.get("hf_subfolder", "vae"),
        "stochastic": vae.get("stochastic_encoder", True),
        "compat": True,
        "decode": bool(train.get("decode_vae_latents")),
    }
    lora = train.get("finetune_vae_decoder")
    if lora is not None:
        settings["lora"] = {"rank": lora["rank"], "alpha": float(lora["alpha"])}
    return settings


def _unofficial_views(dataset: Mapping[str, Any]) -> dict[str, Any]:
    sampler = dataset.get("view_sampler") or {}
    views: dict[str, Any] = {"sort": bool(dataset.get("sort_context_index", False))}
    known = {"bounded": _BOUNDED_V1, "boundedv2": _BOUNDED_V2}.get(str(sampler.get("name")))
    if known is None:  # an evaluation: nothing is drawn
        return views
    settings = {name: sampler[name] for name in known if name in sampler}
    if sampler.get("extra_views_sampling_strategy"):
        settings["extra_views_sampling_strategy"] = sampler["extra_views_sampling_strategy"]
    if sampler.get("random_num_context_views"):
        settings["min_context_views"] = sampler["min_context_views"]
        settings["max_context_views"] = sampler["max_context_views"]
    return {**views, "sampler": sampler["name"], str(sampler["name"]): settings}
