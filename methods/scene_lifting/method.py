"""`SceneLifting`: one photo + prompt -> 3D scene by depth completion and outpainting."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.depth.tasks import DepthTask
from dataloader.images import to_tensor
from dataloader.scene import Scene
from dataloader.scene_sets_open import ROOMS, open_scene_sets
from engine.config import DataConfig, Experiment, TrainingConfig
from engine.method import Method, Optimization
from engine.tensor_files import sha256_tensors
from engine.weights import assign
from geometry.cameras import Cameras
from geometry.gaussian_render import render_gaussians
from geometry.views import Rendering, Views
from methods.scene_lifting.arguments import add_arguments, apply_arguments
from methods.scene_lifting.completion import complete_depth, predict_at_size
from methods.scene_lifting.config import NetworkConfig, SceneLiftingConfig
from methods.scene_lifting.data import DepthData, DepthSample, DepthSamples, is_training, open_depth_data
from methods.scene_lifting.generation import lift_photo
from methods.scene_lifting.inputs import open_photo
from methods.scene_lifting.losses import losses
from methods.scene_lifting.making import lift_views, make_scene
from methods.scene_lifting.network import DepthCompletion, build_zoedepth, network_inputs
from methods.scene_lifting.optimisation import build_optimization
from methods.scene_lifting.originals import (
    convert_state_dict,
    find_file,
    find_weights,
    infer_config,
    read_state_dict,
)
from methods.scene_lifting.outputs import write_scene
from methods.scene_lifting.rendering import render_points
from methods.scene_lifting.splatting import optimise
from methods.scene_lifting.state import LiftedScene
from methods.scene_lifting.validation import validate
from methods.scene_lifting.weights import start_weights

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PREFIX = "network.zoedepth."


class SceneLifting(Method):
    """Invisible Stitch: a photo lifted by its depth, extended view by view (specs/scene_lifting).

    network: completes depth; None where there are no weights, and then only known depth is lifted (`missing`
    says why).
    """

    Config = SceneLiftingConfig
    trains = True
    weights_hint = "published weights: python scripts/download.py weights scene_lifting/default"

    def __init__(
        self, config: SceneLiftingConfig, network: DepthCompletion | None = None, missing: str = ""
    ) -> None:
        super().__init__()
        self.config, self.network, self.missing = config, network, missing

    @classmethod
    def create(cls, config: SceneLiftingConfig, scene: Any = None) -> SceneLifting:
        """The network without weights: `initialise` or a checkpoint brings them."""
        from accelerate import init_empty_weights

        if config.completion == "none":
            return cls(config)
        with init_empty_weights(include_buffers=False):
            return cls(config, build_network(config.network))

    @classmethod
    def without_weights(cls, config: Any, scene: Any, missing: str) -> SceneLifting:
        return cls(config, None, missing)

    @classmethod
    def needs_weights(cls, config: SceneLiftingConfig) -> bool:
        return config.completion == "network"

    add_arguments = staticmethod(add_arguments)
    apply_arguments = staticmethod(apply_arguments)

    @property
    def completer(self) -> DepthCompletion:
        """The network. Raises UserError where there is none."""
        if self.network is None:
            raise UserError(
                self.missing or "model.completion=none: there is no network to complete depth with"
            )
        return self.network

    # Weights

    def initialise(self) -> None:
        self.network = build_network(self.config.network)
        start_weights(self.network.zoedepth, self.config)

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        file = find_file(folder)
        return None if file is None else _prefixed(convert_state_dict(read_state_dict(file), file))

    @classmethod
    def from_original(cls, file: Path) -> SceneLifting | None:
        """The method in a .pt of the original; its network's size is read off the shapes."""
        weights = find_weights(file) if file.suffix == ".pt" else None
        if weights is None:
            return None
        found = convert_state_dict(weights, file)
        method = cls.create(SceneLiftingConfig(network=infer_config(found)))
        assign(method, _prefixed(found), file)
        return method.eval()

    # Training

    def forward(self, sample: DepthSample, step: int) -> dict[str, Tensor]:
        """Scale-invariant error of the completed depth, and its error where depth was given."""
        inputs = network_inputs(sample.image, sample.masked_depth)
        predicted = self.completer(inputs)
        return losses(predicted.float(), sample.depth, sample.valid, sample.masked_depth, self.config.loss)

    def optimization(self, config: TrainingConfig) -> Optimization:
        return build_optimization(self.completer.zoedepth, config, self.config.equal_rates)

    @classmethod
    def open(cls, args: argparse.Namespace, experiment: Experiment) -> Any:
        """Depth maps to train on; a photo or a scene to be lifted."""
        if is_training(args):
            return open_depth_data(experiment)
        if getattr(args, "inputimg", None) is not None:
            return open_photo(args.inputimg, args.depth, args.focal, experiment.model.generation)
        if experiment.data.root == ROOMS:
            return open_scene_sets(experiment.data)
        return super().open(args, experiment)

    def samples(self, scene: Any, data: DataConfig) -> DepthSamples:
        if not isinstance(scene, DepthData):
            raise UserError(
                "scene_lifting is trained on depth maps: set data.root=builtin:rooms or to photos"
            )
        return DepthSamples(scene.train, self.config.samples)

    def validate(self, scene: Any, data: DataConfig) -> dict[str, float]:
        device = next(self.completer.parameters()).device

        def predict(images: Tensor, sparse: Tensor) -> Tensor:
            inputs = network_inputs(images, sparse).to(device)
            with torch.no_grad(), self._autocast(device):
                return predict_at_size(self.completer, inputs).cpu()

        return validate(predict, scene, self.config.samples, data.validation_scenes)

    def preview(self, sample: DepthSample) -> list[list[Tensor]]:
        """Per photo: itself, what is given of its depth, its depth, and ours; depth as disparity in grey."""
        predicted = predict_at_size(self.completer, network_inputs(sample.image, sample.masked_depth))
        maps = [sample.masked_depth, sample.depth, predicted]
        nearest = sample.depth.clamp(min=1e-3).amin((1, 2, 3), keepdim=True)
        grey = [
            torch.where(m > 0, nearest / m.clamp(min=1e-3), 0).clamp(0, 1).expand(-1, 3, -1, -1) for m in maps
        ]
        return [
            [sample.image[i].cpu(), *(m[i].cpu() for m in grey)] for i in range(min(8, len(sample.image)))
        ]

    def random_sample(self, batch: int, sources: int, targets: int) -> DepthSample:
        """Random photos and depth of the network's size; the numbers of views mean nothing here."""
        size = (self.config.network.height, self.config.network.width)
        depth = 1 + torch.rand(batch, 1, *size)
        kept = depth * (torch.rand(batch, 1, *size) > 0.3)
        return DepthSample(torch.rand(batch, 3, *size), depth, kept, torch.ones_like(depth))

    def view_size(self) -> tuple[int, int]:
        return self.config.network.height, self.config.network.width

    # Depth

    @torch.no_grad()
    def complete(self, image: Tensor, sparse: Tensor, unit: float) -> Tensor:
        """Dense z-depth [H, W] of an image [3, H, W]; sparse: [H, W], what is known. See `CompleteDepth`."""
        with self._autocast(image.device):
            return complete_depth(self.completer, image, sparse, unit)

    @torch.no_grad()
    def predict_depth(self, task: DepthTask) -> Tensor:
        """The network's depth of the target, from its photo and what is known of its depth."""
        with self._autocast(task.sparse.device):
            return predict_at_size(self.completer, network_inputs(task.target.images, task.sparse))

    def _autocast(self, device: torch.device) -> torch.autocast:
        dtype = _AUTOCAST.get(self.config.autocast)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    # Scenes

    def prepare_scene(self, scene: Any) -> None:
        """Give a photo without depth the network's, so that camera paths know how far away things are."""
        if not isinstance(scene, Scene) or self.network is None:
            return
        generation, device = self.config.generation, next(self.parameters()).device
        for record in scene.records:
            if record.depth is None and len(scene) == 1:
                image = to_tensor(record.load()).to(device)
                lifted = lift_photo(image, record.camera, None, self.complete, generation, record.name)
                record.depth = lifted.views[0].depth.cpu().numpy()

    def encode(self, source: Views, reuse: LiftedScene | None = None) -> LiftedScene:
        """The scene that photos [N] show, or `reuse` extended by them; around a single photo, the views of
        `model.generation` are painted.
        """
        settings = self.config.generation
        complete = None if self.network is None else self.complete
        if reuse is None and len(source) == 1 and self._is_planned():
            folder = Path(settings.folder) if settings.folder else None
            known = sha256_tensors(self.completer.state_dict()) if folder and self.network else ""
            device = source.images.device
            scene = make_scene(source, complete, self.config, device, folder, models=known)
        else:
            scene = lift_views(source, complete, settings, reuse)
        if self.config.gaussians.steps:
            scene = replace(scene, gaussians=optimise(scene, self.config.gaussians, settings.seed))
        return scene

    def _is_planned(self) -> bool:
        """Whether more is to be made of a photo than its own view: painted ones, or looks at the scene."""
        settings = self.config.generation
        return bool(settings.prompt or settings.prompts or self.config.inpainter.name == "none")

    def write_sources(self, state: LiftedScene, folder: Path) -> list[Path]:
        """The scene as files: Gaussians, points, mesh, cameras, views with depth and masks."""
        return write_scene(state, folder / "scene")

    def render(self, state: LiftedScene, cameras: Cameras) -> Rendering:
        """The scene's Gaussians, or its points where it has none, seen from cameras [N]."""
        frames = [self._render_one(state, cameras[i]) for i in range(len(cameras))]
        return Rendering(
            torch.stack([frame.image for frame in frames]),
            torch.stack([frame.depth for frame in frames if frame.depth is not None]),
            torch.stack([frame.opacity for frame in frames if frame.opacity is not None]),
        )

    def _render_one(self, state: LiftedScene, camera: Cameras) -> Rendering:
        if state.gaussians is None:
            return render_points(state, camera, self.config.points)
        return render_gaussians(state.gaussians, camera, backend=self.config.gaussians.backend)


def build_network(config: NetworkConfig) -> DepthCompletion:
    """The depth-completion network with random weights."""
    return DepthCompletion(build_zoedepth(config), (config.height, config.width), config.aspect)


def _prefixed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_PREFIX + name: value for name, value in weights.items()}
