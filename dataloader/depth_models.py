"""Depth of a single photo by a pretrained network (specs/warp_diffusion 3.5).

Any depth-estimation model of the `transformers` library in a family listed below, by its hub id or from a
local folder that holds its configuration, image processor and weights (safetensors). Nothing is downloaded
here: `scripts/download.py hub ID` fetches a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from geometry.lifting import disparity_to_depth, resize_disparity

DEFAULT_DEPTH_MODEL = (
    "LiheYoung/depth-anything-large-hf"  # Depth Anything v1 ViT-L, that of the MegaScenes warps
)

# what the families predict; Depth Anything has both kinds, and its configuration says which
_FAMILIES = {"depth_anything": None, "dpt": "relative", "zoedepth": "metric"}


@dataclass
class DepthModel:
    """A network that gives every pixel of a photo a z-depth.

    metric: the depth is in metres; otherwise it comes from a disparity of unknown scale, and so has no unit.
    """

    name: str
    metric: bool
    processor: Any
    network: Any

    def __call__(self, photo: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
        """The z-depth [h, w] float32, positive, of a photo [H, W, 3] uint8; size is (h, w).

        Give the photo at its full size: the network chooses its own. A disparity is resized (bicubic) and
        then inverted, disparities below 1e-3 (sky) counting as 1e-3; a metric depth is resized linearly.
        Raises UserError when the network gives numbers that are not finite.
        """
        predicted = self._predict(photo)
        if not predicted.isfinite().all():
            raise UserError(f"{self.name} gives no finite depth for this photo: take another depth model")
        if self.metric:
            depth = _resize_depth(predicted, size).clamp(min=1e-3)
        else:
            depth = disparity_to_depth(resize_disparity(predicted, *size))
        return depth.numpy()

    @torch.no_grad()  # transformers keeps tensors between calls; those of inference mode spoil later training
    def _predict(self, photo: NDArray[np.uint8]) -> Tensor:
        """The network's own map [H', W'] float32 for the whole photo, on the CPU."""
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
            raise ValueError(f"a photo is [H, W, 3] uint8, not {photo.shape} {photo.dtype}")
        output = self.network(pixel_values=self._pixels(photo).to(self.network.device))
        if self.network.config.model_type == "zoedepth":  # its processor pads the photo
            cut = self.processor.post_process_depth_estimation(output, source_sizes=[photo.shape[:2]])
            return cut[0]["predicted_depth"].squeeze().float().cpu()
        return output.predicted_depth[0].float().cpu()

    def _pixels(self, photo: NDArray[np.uint8]) -> Tensor:
        """The network's input [1, 3, H', W'], normalised."""
        if self.network.config.model_type != "depth_anything":
            return self.processor(images=photo, return_tensors="pt")["pixel_values"]
        resized = self._resize(photo)
        return self.processor(images=resized, do_resize=False, do_rescale=False, return_tensors="pt")[
            "pixel_values"
        ]

    def _resize(self, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The photo in [0, 1] as Depth Anything was trained: cubic, not antialiased, to `input_size`.

        The library's processor would antialias, and bring the long side of a small photo to 518, not the
        short one.
        """
        import cv2

        size = self.processor.size
        height, width = input_size(
            photo.shape[:2], (size["height"], size["width"]), self.processor.ensure_multiple_of
        )
        scaled = photo.astype(np.float32) / 255
        return cv2.resize(scaled, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def input_size(size: tuple[int, int], least: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(height, width) of Depth Anything's input: at least `least`, aspect kept to the nearest `multiple`."""
    scale = max(least[0] / size[0], least[1] / size[1])

    def fit(side: int, lower: int) -> int:
        rounded = round(scale * side / multiple) * multiple
        return rounded if rounded >= lower else -(-lower // multiple) * multiple

    return fit(size[0], least[0]), fit(size[1], least[1])


def load_depth_model(name: str = DEFAULT_DEPTH_MODEL, device: torch.device | None = None) -> DepthModel:
    """Load a depth model by hub id, from the local hub cache, or from a folder.

    Raises UserError when it is not there, incomplete, damaged, or of a family that is not known.
    """
    processor, network = _load(name)
    return DepthModel(
        name, _is_metric(name, network.config), processor, network.to(device or torch.device("cpu"))
    )


def _load(name: str) -> tuple[Any, Any]:
    """The image processor and the network of a model, in evaluation mode."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

    local: dict[str, Any] = {"local_files_only": True}
    try:
        _check_family(name, AutoConfig.from_pretrained(name, **local))
        processor = AutoImageProcessor.from_pretrained(name, **local)
        network, report = AutoModelForDepthEstimation.from_pretrained(
            name, use_safetensors=True, output_loading_info=True, **local
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(_why_not(name, error)) from None
    lacking = [*report["missing_keys"], *report["mismatched_keys"]]
    if lacking:  # the library would go on with random weights
        raise UserError(f"{name} lacks {len(lacking)} of its weights, e.g. {sorted(map(str, lacking))[0]}")
    return processor, network.eval().requires_grad_(False)


def _check_family(name: str, config: Any) -> None:
    if config.model_type not in _FAMILIES:
        raise UserError(
            f"{name} is a model of the family {config.model_type!r}: depth models are "
            f"{', '.join(sorted(_FAMILIES))}"
        )


def _is_metric(name: str, config: Any) -> bool:
    kind = _FAMILIES[config.model_type] or config.depth_estimation_type
    if kind not in ("relative", "metric"):
        raise UserError(f"{name} says its depth is {kind!r}: it is 'relative' or 'metric'")
    return kind == "metric"


def _why_not(name: str, error: Exception) -> str:
    """One sentence that says why a model cannot be loaded, and what to do."""
    folder = Path(name)
    if folder.is_dir():
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"the folder {name} holds no complete depth model ({reason}): save it there again"
    if name.count("/") != 1 or name.startswith((".", "~", "/")):
        return f"{name} does not exist: give a hub id such as {DEFAULT_DEPTH_MODEL}, or a folder"
    return (
        f"the depth model {name} is not on this machine: get it with python scripts/download.py hub {name}, "
        "or give a folder that holds it"
    )


def _resize_depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Linear resize of a depth map [H, W] to size: it never leaves the range of its neighbours."""
    resized = torch.nn.functional.interpolate(
        depth[None, None], size=size, mode="bilinear", align_corners=False
    )
    return resized[0, 0]
