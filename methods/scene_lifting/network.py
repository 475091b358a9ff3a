"""The depth-completion network: ZoeDepth with a 5-channel patch embedding (specs/scene_lifting 2).

The layers are those of `transformers`; what is ours is how images, sparse depth and masks become its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from methods.scene_lifting.config import Aspect, NetworkConfig

if TYPE_CHECKING:
    from transformers import ZoeDepthForDepthEstimation

CHANNELS = 5  # red, green, blue, sparse depth / 10, where it is known
MAX_DEPTH = 10.0  # sparse depth is given in tenths of its unit
_PATCH = 16
_MULTIPLE = 32


def build_zoedepth(config: NetworkConfig, channels: int = CHANNELS) -> ZoeDepthForDepthEstimation:
    """ZoeDepth of the given size with random weights and a patch embedding of so many channels.

    The part of the deepest fusion block that is given nothing (it has no earlier scale) is left out.
    """
    from transformers import ZoeDepthForDepthEstimation

    network: Any = ZoeDepthForDepthEstimation(zoedepth_config(config, channels))
    network.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()
    return network


def zoedepth_config(config: NetworkConfig, channels: int = CHANNELS) -> Any:
    """What makes the ZoeDepth of `transformers` the original network (specs/scene_lifting 2.3)."""
    from transformers import BeitConfig, ZoeDepthConfig

    backbone = BeitConfig(  # type: ignore[call-arg]
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp,
        image_size=config.window * _PATCH,
        patch_size=_PATCH,
        num_channels=channels,
        use_relative_position_bias=True,
        use_absolute_position_embeddings=False,
        use_mask_token=False,
        reshape_hidden_states=False,
        layer_norm_eps=1e-6,
        layer_scale_init_value=1e-5,
        drop_path_rate=0.0,
        out_features=[f"stage{block}" for block in config.hooks],
    )
    return ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=list(config.reassemble),
        reassemble_factors=[4, 2, 1, 0.5],
        fusion_hidden_size=config.features,
        bottleneck_features=config.features,
        num_relative_features=32,
        readout_type="project",
        bin_configurations=[{"n_bins": config.bins, "min_depth": 1e-3, "max_depth": 10.0, "name": "nyu"}],
        bin_embedding_dim=config.bin_embedding,
        bin_centers_type="softplus",
        num_attractors=[16, 8, 4, 1],
        attractor_kind="mean",
        min_temp=0.0212,
        max_temp=50.0,
        add_projection=False,
    )


def input_size(
    height: int,
    width: int,
    target: tuple[int, int],
    aspect: Aspect = "stretch",
) -> tuple[int, int]:
    """The (height, width) at which the network sees an image; multiples of 32 (specs/scene_lifting 2).

    target: its own (height, width). aspect: see `NetworkConfig`.
    """
    rows, columns = target[0] / height, target[1] / width
    if aspect != "stretch":
        rows = columns = _CHOICES[aspect](rows, columns)
    least = target if aspect == "lower_bound" else (0, 0)
    most = target if aspect == "upper_bound" else (None, None)
    return _rounded(rows * height, least[0], most[0]), _rounded(columns * width, least[1], most[1])


def _closer_to_one(rows: float, columns: float) -> float:
    return rows if abs(1 - rows) < abs(1 - columns) else columns


_CHOICES: dict[str, Callable[[float, float], float]] = {
    "lower_bound": max,
    "upper_bound": min,
    "minimal": _closer_to_one,
}


def _rounded(side: float, least: int, most: int | None) -> int:
    """The nearest multiple of 32, or that above `least`, or below `most`."""
    rounded = round(side / _MULTIPLE) * _MULTIPLE
    if most is not None and rounded > most:
        rounded = int(side // _MULTIPLE) * _MULTIPLE
    return rounded if rounded >= least else -int(-side // _MULTIPLE) * _MULTIPLE


def prepare(inputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Inputs [B, C >= 3, H, W] stretched to the network's size; colours from [0, 1] to [-1, 1].

    All channels are resized alike (bilinear, corners aligned), as the network was trained: sparse depth and
    its mask fade at their borders.
    """
    resized = torch.nn.functional.interpolate(inputs, size, mode="bilinear", align_corners=True)
    return torch.cat([resized[:, :3] * 2 - 1, resized[:, 3:]], dim=1)


class DepthCompletion(nn.Module):
    """Image and sparse depth -> dense depth, at the network's size.

    size: (height, width), multiples of 32. aspect: how other images come to it, see `NetworkConfig`.
    """

    def __init__(self, zoedepth: nn.Module, size: tuple[int, int], aspect: Aspect = "stretch") -> None:
        super().__init__()
        self.zoedepth, self.size, self.aspect = zoedepth, size, aspect

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: [B, 5, H, W], colours in [0, 1], sparse depth / 10, mask. Returns depth [B, 1, h, w]."""
        size = input_size(inputs.shape[-2], inputs.shape[-1], self.size, self.aspect)
        return self.zoedepth(prepare(inputs, size)).predicted_depth[:, None]


def network_inputs(images: Tensor, sparse: Tensor, unit: float = 1.0) -> Tensor:
    """The five channels [B, 5, H, W] from images [B, 3, H, W] and sparse depth [B, 1, H, W], 0 where unknown.

    unit: world units that count as one.
    """
    return torch.cat([images, sparse / (MAX_DEPTH * unit), (sparse > 0).to(images.dtype)], dim=1)


@torch.no_grad()
def reset_embedding(network: nn.Module) -> None:
    """Start the patch embedding anew: Kaiming-uniform with a = sqrt(5), the default of a convolution."""
    embedding = network.get_submodule("backbone.beit.embeddings.patch_embeddings.projection")
    assert isinstance(embedding, nn.Conv2d)
    embedding.reset_parameters()
