"""The original's config files, `key = value` lines of its three programs, as experiments of ours.

`train_realestate10k.txt` (stage 1), `train_mask.txt` (stage 2) and `render_video.txt`, with the original's
defaults for what they leave out (specs/mask_volume 1.2 to 1.4).
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from methods.mask_volume.losses import UNUSABLE

log = logging.getLogger(__name__)

Kind = Literal["stage 1", "stage 2", "the renderer"]

_STAGE_2_LOSSES = ("masked_l1", "full_loss", "no_mask", "vgg_only", *UNUSABLE)
# Flag -> its default, whose type says how text is read; None is text or nothing, a list is of whole numbers.
_TRAINING: dict[str, Any] = {
    "root_dir": None,
    "val_dir": None,
    "seed": 42,
    "batch_size": 1,
    "num_gpus": 1,
    "ckpt_path": None,
    "optimizer": "adam",
    "lr": 5e-4,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "lr_scheduler": "steplr",
    "warmup_multiplier": 1.0,
    "warmup_epochs": 0,
    "decay_step": [20],
    "decay_gamma": 1.0,
    "poly_exp": 0.9,
    "exp_name": "exp",
    "log_dir": "logs",
    "ckpt_dir": "ckpts",
    "prefixes_to_ignore": None,
    "config": None,
    "debug": False,
}
FLAGS: dict[Kind, dict[str, Any]] = {
    "stage 1": {
        **_TRAINING,
        "dataset_name": "realestate",
        "img_wh": [640, 360],
        "loss_type": "l1",
        "num_epochs": 100,
    },
    "stage 2": {
        **_TRAINING,
        "dataset_name": "mvcam",
        "img_hw": [360, 640],
        "loss_type": "full_loss",
        "num_epochs": 1_000_000,
        "num_steps": 1_000_000,
        "mpi_model": None,
    },
    "the renderer": {
        "root_dir": None,
        "bg_dir": None,
        "out_dir": None,
        "indices": [4, 5],
        "img_wh": [640, 360],
        "ckpt_path": None,
        "config": None,
    },
}
# What these do is done by our scripts' flags, if at all.
_WITHOUT_EFFECT = {
    "exp_name": "--output_dir",
    "log_dir": "--output_dir",
    "ckpt_dir": "--output_dir",
    "out_dir": "-s",
    "num_gpus": "accelerate launch",
    "prefixes_to_ignore": "",
    "config": "-e",
    "val_dir": "the split 'test' of data.root",
}
_DATASETS = {"stage 1": "realestate", "stage 2": "mvcam"}
_USUAL_SCENES = {"stage 1": 3500, "stage 2": 86}  # of the original's data, where they are not at hand
_LEAST_FRAMES = 91  # of a scene of stage 1, and one more
_LOWEST_RATE = 1e-8  # at the end of its cosine

# How the original sweeps and shows planes (specs/mask_volume 3.4, 3.5).
_AS_PUBLISHED = {"sampling": "original", "premultiplied": False, "own_colours": False, "backdrop": False}


def translate(raw: dict[str, Any]) -> dict[str, Any] | None:
    """A file of `key = value` lines as one of our experiments; None where it is not one of the original's.

    Raises UserError for a key that the original does not have, or a value that it does not take.
    """
    if "root_dir" not in raw or not all(isinstance(value, str) for value in raw.values()):
        return None
    kind = _kind(raw)
    values = _values(raw, kind)
    unused = {name: _WITHOUT_EFFECT[name] for name in raw if name in _WITHOUT_EFFECT}
    if unused:
        listed = ", ".join(f"{name} (see {use})" if use else name for name, use in unused.items())
        log.info("keys of the original's config file without effect here: %s", listed)
    return _renderer(values) if kind == "the renderer" else _training(values, kind)


def _kind(raw: Mapping[str, str]) -> Kind:
    """Which of the original's programs a file is for."""
    if raw.keys() & {"bg_dir", "out_dir", "indices"}:
        return "the renderer"
    second = raw.keys() & {"img_hw", "mpi_model", "num_steps"}
    second_data = raw.get("dataset_name") in ("mvcam", "nvidia")
    return "stage 2" if second or second_data or raw.get("loss_type") in _STAGE_2_LOSSES else "stage 1"


def _values(raw: Mapping[str, str], kind: Kind) -> dict[str, Any]:
    """Every flag of a program, from the file or by default."""
    known = FLAGS[kind]
    for name in raw:
        if name not in known:
            everything = sorted({flag for flags in FLAGS.values() for flag in flags})
            near = difflib.get_close_matches(name, everything, n=1, cutoff=0.5)
            hint = f": did you mean {near[0]!r}?" if near and near[0] != name else ""
            raise UserError(
                f"the original's config file has the key {name!r}, which {kind} does not know{hint}"
            )
    return {
        name: _read(name, raw[name], default) if name in raw else default for name, default in known.items()
    }


def _read(name: str, text: str, default: Any) -> Any:
    """The value of a flag. Raises UserError where the text is none of its kind."""
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if isinstance(default, list):
            words = text.strip("[]").replace(",", " ").split()
            return [int(word) for word in words]
        if isinstance(default, (int, float)):
            return type(default)(text)
    except (ValueError, KeyError):
        raise UserError(
            f"the original's config file has {name} = {text}: it must be like {default}"
        ) from None
    return None if text in ("", "None") else text


def _renderer(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": "mask_volume",
        "model": {"stage": "mask", **_AS_PUBLISHED, "checkpoint": values["ckpt_path"] or ""},
        "data": {
            "root": values["root_dir"] or "",
            "max_size": max(values["img_wh"]),
            "rig": {"sources": values["indices"], "background": values["bg_dir"] or ""},
        },
    }


def _training(values: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    if values["dataset_name"] != _DATASETS[kind]:
        raise UserError(
            f"the original's config file has dataset_name = {values['dataset_name']}, which does not exist: "
            f"{kind} is trained on {_DATASETS[kind]}"
        )
    first = kind == "stage 1"
    scenes = count_scenes(values["root_dir"] or "", kind)
    augment = {"crop": 256, "max_scale": 2.0, "colours": True} if first else {}
    return {
        "method": "mask_volume",
        "model": {
            "stage": "mpi" if first else "mask",
            **_AS_PUBLISHED,
            "augment": augment,
            "loss": {"name": _loss(values["loss_type"]), "train_mode": True},
            "optimizer": _optimizer(values),
        },
        "data": {
            "root": _root(values),
            "max_size": 0 if first else max(values["img_hw"]),
        },
        "training": {
            "steps": _steps(values, scenes),
            "batch_size": values["batch_size"],
            "workers": 4,
            "seed": values["seed"],
            "init_from": values["ckpt_path"] or values.get("mpi_model") or "",
            "keep": 5,
            **_schedule(values, scenes),
        },
    }


def _loss(name: str) -> str:
    if name in UNUSABLE:
        raise UserError(
            f"the original's config file has loss_type = {name}, no use to training ({UNUSABLE[name]}): take "
            "vgg_only, full_loss, no_mask, masked_l1, l1 or mse"
        )
    return name


def _optimizer(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": values["optimizer"],
        "momentum": values["momentum"],
        "weight_decay": values["weight_decay"],
    }


def _root(values: Mapping[str, Any]) -> str:
    """Where the data are: the folder of both splits where the file names DIR/train and DIR/test."""
    root, other = Path(values["root_dir"] or ""), Path(values["val_dir"] or "")
    both = (root.name, other.name) == ("train", "test") and root.parent == other.parent
    return str(root.parent if both else root)


def _steps(values: Mapping[str, Any], scenes: int) -> int:
    """The length of a run. An epoch is one sample of every scene; a dry run is one step."""
    epochs = values["num_epochs"] * _steps_per_epoch(values, scenes)
    return 1 if values["debug"] else min(epochs, values.get("num_steps", epochs))


def _steps_per_epoch(values: Mapping[str, Any], scenes: int) -> int:
    return -(-scenes // values["batch_size"])


def _schedule(values: Mapping[str, Any], scenes: int) -> dict[str, Any]:
    """The learning rate. The original changes it once per epoch, ours with every step."""
    epoch, rate = _steps_per_epoch(values, scenes), values["lr"]
    rises = values["warmup_epochs"] > 0 and values["optimizer"] in ("sgd", "adam")
    found: dict[str, Any] = {"learning_rate": rate}
    begin = 0  # epochs before the schedule itself
    if rises:
        begin = values["warmup_epochs"] + 1
        factor = values["warmup_multiplier"]
        found = {
            "learning_rate": rate * factor,
            "initial_lr_factor": 1 / factor,
            "warmup_steps": values["warmup_epochs"] * epoch,
        }
    name = values["lr_scheduler"]
    if name == "poly":
        return found | {"schedule": "poly", "poly_power": values["poly_exp"]}
    if name == "cosine":
        return found | {"schedule": "cosine", "final_lr_factor": _LOWEST_RATE / found["learning_rate"]}
    if name != "steplr":
        raise UserError(
            f"the original's config file has lr_scheduler = {name}: it must be steplr, cosine or poly"
        )
    if values["decay_gamma"] == 1:
        return found
    milestones = [(begin + milestone) * epoch for milestone in values["decay_step"]]
    return found | {
        "schedule": "multistep",
        "milestones": milestones,
        "milestone_factor": values["decay_gamma"],
    }


def count_scenes(root: str, kind: Kind) -> int:
    """How many scenes an epoch has: those in the folder, or, with a warning, as many as the original had."""
    folder = Path(root).expanduser()
    if kind == "stage 2":
        found = len(list(folder.glob("*/*.h5")))
    else:
        found = sum(_long_scenes(path) for path in folder.glob("*x*.h5"))
    if not found:
        found = _USUAL_SCENES[kind]
        log.warning(
            "%s holds no archives of the original: steps are counted for its %d scenes (training.steps)",
            root,
            found,
        )
    return found


def _long_scenes(path: Path) -> int:
    """How many scenes of an archive of stage 1 are long enough."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return sum(name.isdecimal() and len(file[name]) > _LEAST_FRAMES for name in file)
    except OSError as error:
        raise UserError(f"{path} is not a readable .h5 file ({error}): make it again") from None
