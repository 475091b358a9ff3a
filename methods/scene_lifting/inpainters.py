"""The models that paint what a new view does not show yet: inpainting pipelines of `diffusers`.

Any pipeline that `AutoPipelineForInpainting` knows, by its hub id or from a folder in diffusers' format.
Nothing is downloaded here: `scripts/download.py hub ID` fetches a model.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from methods.scene_lifting.config import InpainterConfig

_WITHOUT = {
    "inpainting pipeline": "--inpainter none paints nothing",
    "decoder": "empty: the pipeline's own",
}
_MULTIPLE = 8  # pixels per latent of Stable Diffusion's autoencoders


class Inpainter(Protocol):
    """Paints a hole in an image."""

    def __call__(
        self, image: NDArray[np.uint8], hole: NDArray[np.uint8], prompt: str, negative_prompt: str, seed: int
    ) -> NDArray[np.uint8]:
        """image: [H, W, 3]. hole: [H, W], 255 where to paint, else 0. Returns [H, W, 3] of the same size."""
        ...


class DiffusionInpainter:
    """An inpainting pipeline with its settings. Noise is drawn on the CPU, the same for every device.

    A call raises UserError for an image whose sides are no multiples of 8, and when the safety checker that
    some pipelines have holds the picture back.
    """

    def __init__(self, pipeline: Any, config: InpainterConfig) -> None:
        self.pipeline, self.config = pipeline, config

    @torch.inference_mode()
    def __call__(
        self, image: NDArray[np.uint8], hole: NDArray[np.uint8], prompt: str, negative_prompt: str, seed: int
    ) -> NDArray[np.uint8]:
        from PIL import Image

        height, width = image.shape[:2]
        if height % _MULTIPLE or width % _MULTIPLE:
            raise UserError(
                f"the inpainter takes images whose sides are multiples of {_MULTIPLE}, not {width}x{height}: "
                "crop the photo"
            )
        output = self.pipeline(
            prompt=prompt,
            image=Image.fromarray(image),
            mask_image=Image.fromarray(hole),
            height=height,
            width=width,
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance,
            generator=torch.Generator().manual_seed(seed),
            **({"negative_prompt": negative_prompt} if negative_prompt else {}),
            **self._known_only(strength=1.0),
        )
        if any(getattr(output, "nsfw_content_detected", None) or []):
            raise UserError(
                f"the safety checker of {self.config.name} holds a picture back: take another prompt or seed"
            )
        return np.asarray(output.images[0].convert("RGB"))

    def _known_only(self, **options: Any) -> dict[str, Any]:
        """Those options that this kind of pipeline has."""
        known = inspect.signature(type(self.pipeline).__call__).parameters
        return {name: value for name, value in options.items() if name in known}


def load_inpainter(config: InpainterConfig, device: torch.device) -> Inpainter | None:
    """The configured inpainter, from this machine's hub cache or a folder; None for the name 'none'.

    16-bit floats on CUDA, else 32. config.decoder replaces the pipeline's autoencoder by an
    `AsymmetricAutoencoderKL` (Zhu et al. 2023), which sees the known pixels while it decodes. Raises
    UserError when a model is not there, incomplete, or of another kind.
    """
    if config.name == "none":
        return None
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    pipeline = _load_pipeline(config.name, dtype)
    if config.decoder:
        pipeline.register_modules(vae=_load_decoder(config.decoder, dtype, pipeline))
    pipeline.set_progress_bar_config(desc="painting", leave=False)
    if config.offload and device.type == "cuda":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return DiffusionInpainter(pipeline, config)


def _load_pipeline(name: str, dtype: torch.dtype) -> Any:
    from diffusers import AutoPipelineForInpainting

    try:
        return AutoPipelineForInpainting.from_pretrained(
            name, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(_why_not(name, "inpainting pipeline", "model.inpainter.name", error)) from None


def _load_decoder(name: str, dtype: torch.dtype, pipeline: Any) -> Any:
    from diffusers import AsymmetricAutoencoderKL, StableDiffusionInpaintPipeline

    fitting: Any = StableDiffusionInpaintPipeline
    if not isinstance(pipeline, fitting):
        raise UserError(
            f"the decoder {name} is for Stable Diffusion 1 and 2, and the inpainter is a "
            f"{type(pipeline).__name__}: set model.inpainter.decoder= (empty) for the pipeline's own"
        )
    try:
        decoder = AsymmetricAutoencoderKL.from_pretrained(
            name, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(_why_not(name, "decoder", "model.inpainter.decoder", error)) from None
    latents = pipeline.vae.config.latent_channels
    if decoder.config.latent_channels != latents:
        raise UserError(
            f"the decoder {name} takes {decoder.config.latent_channels} latent channels and the pipeline has "
            f"{latents}: set model.inpainter.decoder= (empty) for the pipeline's own"
        )
    return decoder


def _why_not(name: str, what: str, key: str, error: Exception) -> str:
    """One sentence that says why a model cannot be loaded, and what to do."""
    if Path(name).is_dir():
        text = str(error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        return f"the folder {name} holds no complete {what} in diffusers' format ({reason}); see {key}"
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        return f"{key} is {name}, which does not exist: give a hub id or a folder ({_WITHOUT[what]})"
    return (
        f"the {what} {name} is not on this machine: get it with python scripts/download.py hub {name}, or "
        f"set {key} ({_WITHOUT[what]})"
    )
