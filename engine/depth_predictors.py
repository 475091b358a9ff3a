"""The models that the geometry benchmark compares, by name (specs/scene_lifting 6)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.depth.tasks import DepthTask
from dataloader.depth_models import DepthModel
from dataloader.images import to_uint8
from engine.method import Method
from geometry.depth_alignment import fit_descent, fit_least_squares, fit_robust
from geometry.views import Views
from geometry.warp import fill_nearest

MODELS = {
    "inpainted": "the method, given the known depth",
    "zero": "the method without the known depth",
    "zero_aligned": "likewise, scaled and shifted to the known depth",
    "zoedepth": "a monocular depth model",
    "zoedepth_aligned": "likewise, scaled and shifted to the known depth",
    "nearest": "the known depth of the nearest pixel",
}
OF_METHOD = ("inpainted", "zero", "zero_aligned")
_CPU = torch.device("cpu")

AlignmentKind = Literal["least_squares", "robust", "descent"]
Predict = Callable[[DepthTask], Tensor]  # -> z-depth [1, 1, H, W]


@dataclass(frozen=True)
class Alignment:
    """How *_aligned models are scaled and shifted. offset: to start a descent from (descent only); None draws
    it from U(0, 1), by seed, pair and model.
    """

    kind: AlignmentKind = "least_squares"
    offset: float | None = None
    seed: int = 0

    def __call__(self, depth: Tensor, task: DepthTask, model: str) -> Tensor:
        """A depth [1, 1, H, W] brought to what the task knows; pixels without an answer (0) stay so.

        A depth without any answer where something is known is returned as it is: there is nothing to fit.
        """
        if self.kind == "descent":
            known = (task.sparse if task.uneroded is None else task.uneroded)[0, 0]
            start = self._start(task, model)
            return fit_descent(depth[0, 0], known, known > 0, task.target.cameras[0], start)(depth)
        both = (task.sparse > 0) & (depth > 0)
        if not both.any():
            return depth
        fit = (fit_robust if self.kind == "robust" else fit_least_squares)(depth, task.sparse, both)
        return torch.where(depth > 0, fit(depth), 0)

    def _start(self, task: DepthTask, model: str) -> float:
        if self.offset is not None:
            return self.offset
        word = f"{self.seed} {task.scene} {task.name} {model}"  # the same whatever runs beside it
        digest = hashlib.sha256(word.encode()).digest()
        return int.from_bytes(digest[:8], "little") / 2**64


def move_task(task: DepthTask, device: torch.device) -> DepthTask:
    """The task with its tensors on a device."""
    return replace(
        task,
        source=task.source.to(device),
        target=task.target.to(device),
        sparse=task.sparse.to(device),
        hidden=task.hidden.to(device),
        uneroded=None if task.uneroded is None else task.uneroded.to(device),
    )


def without_known(task: DepthTask) -> DepthTask:
    """The task with nothing known of the target's depth."""
    return replace(task, sparse=torch.zeros_like(task.sparse))


@dataclass
class Predictors:
    """Answers of the models to a task. method: may be None where none of `OF_METHOD` is asked for, likewise
    plain, the monocular model. device: where the method is; tasks may be elsewhere, answers are on the CPU.
    """

    method: Method | None
    plain: Predict | None = None
    alignment: Alignment = Alignment()
    device: torch.device = _CPU

    def __call__(self, task: DepthTask, names: Sequence[str]) -> dict[str, Tensor]:
        """Model name -> z-depth [1, 1, H, W]. Raises UserError for one that cannot answer or is not known."""
        task = move_task(task, self.device)
        bases: dict[str, Tensor] = {}
        found = {}
        for name in names:
            base = name.removesuffix("_aligned")
            if base not in bases:
                bases[base] = self._base(base, task)
            depth = bases[base]
            found[name] = (depth if name == base else self.alignment(depth, task, name)).cpu()
        return found

    def _base(self, name: str, task: DepthTask) -> Tensor:
        if name == "nearest":
            return fill_nearest(task.sparse[0], task.sparse[0, 0] > 0)[None]
        if name == "zoedepth" and self.plain is not None:
            return self.plain(task)
        if name in OF_METHOD and self.method is not None:
            return self.method.predict_depth(task if name == "inpainted" else without_known(task))
        raise UserError(f"--models {name} cannot be had: choose from {', '.join(MODELS)}")

    def estimate(self, photo: Views) -> Tensor:
        """The method's depth [1, 1, H, W] of a photo (Views [1]) of which nothing is known."""
        assert self.method is not None
        photo = photo.to(self.device)
        nothing = torch.zeros_like(photo.images[:, :1])
        task = DepthTask(photo, photo, nothing, torch.ones_like(nothing), "", photo.names[0])
        return self.method.predict_depth(task).cpu()


def monocular(model: DepthModel) -> Predict:
    """A depth model as a predictor: it sees the target's photo only."""

    def predict(task: DepthTask) -> Tensor:
        image = task.target.images[0]
        depth = model(to_uint8(image), (image.shape[-2], image.shape[-1]))
        return torch.from_numpy(depth)[None, None].to(image.device)

    return predict
