"""Relative depth by Marigold (Ke et al. 2024, arXiv 2312.02145): the teacher of depth completion.

A diffusion model paints a depth map of the photo several times over, from different noise; the maps are
brought to a common scale and their median is the answer. Weights come from the hub's local cache or from a
folder in the format of `diffusers`; nothing is downloaded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from dataloader.keyed import keyed_generator

DEFAULT_TEACHER = "prs-eth/marigold-depth-v1-0"  # the original's; v1-1 is trained for fewer steps


@dataclass(frozen=True)
class TeacherSettings:
    """How the teacher predicts. Defaults are the original's (specs/scene_lifting 4.2)."""

    steps: int = 10  # of denoising
    ensemble: int = 10  # maps per photo
    resolution: int = 768  # long side of what the network works on, in pixels
    batch: int = 1  # maps made at a time: faster on a large GPU
    half: bool = False  # 16-bit floats
    seed: int = 0


@dataclass
class Teacher:
    """A Marigold pipeline with its settings."""

    name: str
    pipeline: Any
    settings: TeacherSettings

    def __call__(self, photo: NDArray[np.uint8], key: str) -> NDArray[np.float32]:
        """Relative depth [H, W] float32 of a photo [H, W, 3] uint8: 0 at its nearest pixel, 1 at the last.

        That is before the map is resized to the photo (linearly). The noise depends on the seed and
        on `key`, which names the photo, and on nothing else. Raises UserError when the network finds no depth
        at all, or memory runs out.
        """
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
            raise ValueError(f"a photo is [H, W, 3] uint8, not {photo.shape} {photo.dtype}")
        settings = self.settings
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
        try:
            predicted = self.pipeline(
                image,
                num_inference_steps=settings.steps,
                ensemble_size=settings.ensemble,
                processing_resolution=settings.resolution,
                match_input_resolution=False,
                batch_size=settings.batch,
                generator=keyed_generator(settings.seed, key),
                output_type="pt",
            ).prediction
        except torch.cuda.OutOfMemoryError:
            raise UserError(
                f"the GPU's memory does not hold the teacher with --batch {settings.batch}: lower it, or "
                "give --half"
            ) from None
        return _resize(self._normalise(predicted.float().cpu(), key), photo.shape[:2]).numpy()

    def _normalise(self, depth: Tensor, key: str) -> Tensor:
        low, high = depth.min(), depth.max()
        if not (low.isfinite() and high.isfinite()) or high <= low:
            raise UserError(f"{key}: {self.name} gives this photo no depth (all of it alike): leave it out")
        return (depth - low) / (high - low)


def _resize(depth: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map [1, 1, h, w] at [H, W], linearly."""
    return torch.nn.functional.interpolate(depth, size=tuple(size), mode="bilinear", align_corners=False)[
        0, 0
    ]


def load_teacher(
    name: str = DEFAULT_TEACHER,
    settings: TeacherSettings = TeacherSettings(),
    device: torch.device | None = None,
) -> Teacher:
    """Load Marigold by hub id, from the local hub cache, or from a folder.

    Raises UserError when it is not there or incomplete, does not predict depth, or cannot work with the
    settings.
    """
    pipeline = _load(name, torch.float16 if settings.half else torch.float32)
    if pipeline.config.get("prediction_type") not in (None, "depth"):
        raise UserError(
            f"{name} predicts {pipeline.config['prediction_type']}: take a teacher that predicts depth"
        )
    if settings.resolution % pipeline.vae_scale_factor:
        raise UserError(
            f"--resolution {settings.resolution} is no multiple of {pipeline.vae_scale_factor}, which {name} "
            "needs"
        )
    lacking = [name for name, tensor in _weights(pipeline) if tensor.is_meta]
    if lacking:
        raise UserError(f"{name} lacks {len(lacking)} of its weights, e.g. {lacking[0]}: save it there again")
    pipeline.set_progress_bar_config(disable=True)
    return Teacher(name, pipeline.to(device or torch.device("cpu")), settings)


def _weights(pipeline: Any) -> Iterator[tuple[str, Tensor]]:
    for part in ("unet", "vae", "text_encoder"):
        for name, tensor in getattr(pipeline, part).named_parameters():
            yield f"{part}.{name}", tensor


def _load(name: str, dtype: torch.dtype) -> Any:
    from diffusers import MarigoldDepthPipeline
    from safetensors import SafetensorError

    try:
        return MarigoldDepthPipeline.from_pretrained(
            name, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(_why_not(name, error)) from None


def _why_not(name: str, error: Exception) -> str:
    """One sentence that says why the teacher cannot be loaded, and what to do."""
    if Path(name).is_dir():
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"the folder {name} holds no complete Marigold pipeline ({reason}): save it there again"
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        return f"{name} does not exist: give a hub id such as {DEFAULT_TEACHER}, or a folder"
    return (
        f"the teacher {name} is not on this machine: get it with python scripts/download.py hub {name}, or "
        "give a folder that holds it"
    )
