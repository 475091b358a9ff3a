"""Where the depth-completion network's first weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from common.errors import UserError
from engine.weights import assign, shorten
from methods.scene_lifting.config import SceneLiftingConfig
from methods.scene_lifting.network import CHANNELS, reset_embedding
from methods.scene_lifting.originals import convert_state_dict, read_state_dict, widened

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MIDAS = "core.core."  # what the original puts before the names of MiDaS


def start_weights(network: nn.Module, config: SceneLiftingConfig) -> None:
    """Give a new network the weights that `model.start` names; '' leaves them random.

    A file: ZoeDepth's (`ZoeD_M12_N.pt`), MiDaS' (`dpt_beit_large_384.pt`; the metric head stays random) or
    one of the original. Otherwise a folder or hub id that `transformers` loads ZoeDepth from. With `extend`
    the new channels of the patch embedding start at 0, so that the network first gives ZoeDepth's depth; with
    `reinit` the embedding is drawn anew. Raises UserError when weights are missing or do not fit.
    """
    place = config.start
    if not place:
        return
    found = _of_file(Path(place)) if Path(place).is_file() else _of_library(place)
    found = widened(found, CHANNELS)
    own = network.state_dict()
    missing = [name for name in own if name not in found]
    headless = bool(missing) and all(name.startswith("metric_head.") for name in missing)
    if headless:  # MiDaS
        found |= {name: own[name] for name in missing}
    assign(network, found, Path(place))
    if config.network.embedding == "reinit":
        reset_embedding(network)


def _of_file(file: Path) -> dict[str, Tensor]:
    weights = read_state_dict(file)
    if any(name.startswith("pretrained.model.") for name in weights):
        weights = {_MIDAS + name: value for name, value in weights.items()}
    return convert_state_dict(weights, file)


def _of_library(place: str) -> dict[str, Tensor]:
    """The weights of a ZoeDepth of `transformers`, less those of layers that are given nothing."""
    from transformers import ZoeDepthForDepthEstimation
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        network: PreTrainedModel = ZoeDepthForDepthEstimation.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"model.start={place} cannot be loaded ({reason}): run 'python scripts/download.py hub {place}', "
            "or name a folder or a .pt file"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    weights = network.state_dict()
    several = [name for name in weights if "patch_transformer" in name]
    if several:
        raise UserError(
            f"{place} has several metric heads ({shorten(several, 1)}): take one with a single head"
        )
    return {
        k: v for k, v in weights.items() if not k.startswith("neck.fusion_stage.layers.0.residual_layer1")
    }
