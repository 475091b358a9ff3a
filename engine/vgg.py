"""The convolutions of VGG as frozen features, and the files that hold their weights."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import UserError

# Convolutions per block; a pooling layer stands between two blocks.
BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4), "vgg19_bn": (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
_MATCONVNET = "imagenet-vgg-verydeep-19.mat"
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")  # of a batch normalisation, in file order
_NORM_EPS, _NORM_MOMENTUM = 1e-5, 0.1  # torchvision's


class VggFeatures(nn.Module):
    """One map per block of a VGG, from frozen weights that no checkpoint and no process group ever sees.

    blocks: convolutions per block. tensors: weight and bias of every convolution, in the network's order;
    they move with the module, but are neither parameters nor buffers. taps: per block, after which of its
    convolutions (and its ReLU) the map is taken, from 1. norms: scale, shift, running mean and running
    variance of a batch normalisation after every convolution, if there are any; it then uses the statistics
    of the batch at hand, and the running ones drift with every call (see `folded` for the other way).
    """

    def __init__(
        self,
        blocks: Sequence[int],
        tensors: Sequence[Tensor],
        taps: Sequence[int],
        pooling: Literal["max", "average"],
        norms: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        if len(tensors) != 2 * sum(blocks) or (norms and len(norms) != 2 * len(tensors)):
            raise ValueError(f"{len(tensors)} tensors, {len(norms)} norms for {sum(blocks)} convolutions")
        self.blocks, self.taps = tuple(blocks), tuple(taps)
        self.pool = functional.max_pool2d if pooling == "max" else functional.avg_pool2d
        self._tensors = [tensor.detach() for tensor in tensors]
        self._norms = [tensor.detach().clone() for tensor in norms]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VggFeatures:
        super()._apply(fn, recurse)
        self._tensors = [fn(tensor) for tensor in self._tensors]
        self._norms = [fn(tensor) for tensor in self._norms]
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [N, 3, H, W], normalised as the weights want them -> one map [N, C, h, w] per block."""
        found, position, x = [], 0, images
        for block, (size, tap) in enumerate(zip(self.blocks, self.taps, strict=True)):
            if block:
                x = self.pool(x, 2)
            for i in range(tap if block == len(self.blocks) - 1 else size):
                x = self._layer(position + i, x)
                if i + 1 == tap:
                    found.append(x)
            position += size
        return found

    def _layer(self, index: int, x: Tensor) -> Tensor:
        """A convolution, its normalisation if it has one, and the ReLU."""
        weight, bias = self._tensors[2 * index : 2 * index + 2]
        x = functional.conv2d(x, weight, bias, padding=1)
        if self._norms:
            scale, shift, mean, variance = self._norms[4 * index : 4 * index + 4]
            x = functional.batch_norm(x, mean, variance, scale, shift, True, _NORM_MOMENTUM, _NORM_EPS)
        return functional.relu(x)


def folded(tensors: Sequence[Tensor], norms: Sequence[Tensor]) -> list[Tensor]:
    """Weights and biases that do what convolutions and, with running statistics, their normalisations do.

    tensors, norms: as `VggFeatures` takes them. Worked out in float64, returned as float32.
    """
    found: list[Tensor] = []
    for i in range(len(tensors) // 2):
        weight, bias = (tensor.double() for tensor in tensors[2 * i : 2 * i + 2])
        scale, shift, mean, variance = (tensor.double() for tensor in norms[4 * i : 4 * i + 4])
        gain = scale / (variance + _NORM_EPS).sqrt()
        found += [(weight * gain[:, None, None, None]).float(), ((bias - mean) * gain + shift).float()]
    return found


def check_shapes(tensors: Sequence[Tensor], backbone: str, path: Path) -> None:
    """Raise UserError naming the file where tensors are not the convolutions of a backbone of `BLOCKS`."""
    expected: list[tuple[int, ...]] = []
    inputs = 3
    for width, size in zip(_WIDTHS, BLOCKS[backbone], strict=True):
        for _ in range(size):
            expected += [(width, inputs, 3, 3), (width,)]
            inputs = width
    if [tuple(tensor.shape) for tensor in tensors] != expected:
        raise UserError(f"{path} does not hold the convolutions of {backbone}: take torchvision's file")


def weights_file(backbone: str, place: Path | None) -> Path | None:
    """The file of a torchvision backbone's weights, None where there is none.

    place: the file itself, or a folder with `BACKBONE*.pth` (of vgg19 also the MatConvNet file, which goes
    first); None asks torchvision's hub cache.
    """
    place = place or Path(torch.hub.get_dir()) / "checkpoints"
    if place.is_file():
        return place
    if backbone == "vgg19" and (place / _MATCONVNET).is_file():
        return place / _MATCONVNET
    files = sorted(place.glob(f"{backbone}*.pth")) if place.is_dir() else []
    other = f"{backbone}_bn"  # the same backbone with batch normalisations
    return next((file for file in files if not file.name.startswith(other)), None)


def torchvision_convolutions(path: Path) -> list[Tensor]:
    """Weights and biases below `features.` of a torchvision state dict, in the network's order.

    Raises UserError when the file is cut off or something else.
    """
    state = load_state(path)
    return [state[key] for key in sorted(_feature_keys(state), key=_feature_order)]


def torchvision_normalised(path: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Convolutions and batch normalisations of a torchvision `vggN_bn`, as `VggFeatures` takes them.

    Raises UserError when the file is cut off or something else.
    """
    state = load_state(path)
    layers: dict[int, dict[str, Tensor]] = {}
    for key in _feature_keys(state):
        index, _, part = key.removeprefix("features.").partition(".")
        layers.setdefault(int(index), {})[part] = state[key]
    convolutions, norms = [], []
    for _, layer in sorted(layers.items()):
        if "running_mean" in layer:
            norms += [layer[part] for part in _NORM_PARTS if part in layer]
        else:
            convolutions += [layer[part] for part in ("weight", "bias") if part in layer]
    if not norms or [len(norm) for norm in norms[::4]] != [len(bias) for bias in convolutions[1::2]]:
        raise UserError(f"{path} holds no VGG with batch normalisations: take torchvision's file")
    return convolutions, norms


def matconvnet_convolutions(path: Path) -> list[Tensor]:
    """Weights [out, in, 3, 3] and biases of the convolutions in a MatConvNet model file, in its order.

    The file stores filters as height x width x in x out (Simonyan & Zisserman 2015, in the format of
    MatConvNet beta 16 and later). Raises UserError when it is unreadable or no such model.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        layers = loadmat(str(path), struct_as_record=False, squeeze_me=True)["layers"]
    except (
        OSError,
        MatReadError,
        ValueError,
        TypeError,
        IndexError,
        NotImplementedError,
        zlib.error,
    ) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise UserError(f"{path} is not a readable .mat file ({reason}): download it again") from None
    except KeyError:
        raise UserError(f"{path} is no MatConvNet model: it has no 'layers'; take {_MATCONVNET}") from None
    found: list[Tensor] = []
    for layer in layers:
        name, weights = str(getattr(layer, "name", "")), list(getattr(layer, "weights", []))
        if name.startswith("conv") and len(weights) == 2:
            found += [_filters(weights[0]), torch.as_tensor(weights[1], dtype=torch.float32).flatten()]
    return found


def _filters(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32).permute(3, 2, 0, 1).contiguous()


def load_state(path: Path) -> dict[str, Tensor]:
    """A state dict of torchvision's. Raises UserError when the file is cut off or something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise UserError(f"{path} is not a readable weights file ({reason}): download it again") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds no state dict: take torchvision's file")
    return state


def _feature_keys(state: dict[str, Tensor]) -> list[str]:
    return [key for key in state if key.startswith("features.")]


def _feature_order(key: str) -> tuple[int, bool]:
    """features.7.bias sorts after features.7.weight and before features.10.weight."""
    _, index, kind = key.split(".")
    return int(index), kind == "bias"
