"""`MaskVolume`: photos of static cameras and their plates -> a multi-plane image per moment -> views."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_sets import OneScene, SceneSets
from engine.config import DataConfig, Experiment, TrainingConfig
from engine.data import view_size
from engine.method import Method, Optimization, Script
from engine.schedule import learning_rate_schedule
from engine.weights import assign
from geometry.cameras import Cameras
from geometry.plane_files import read_mpi, write_mpi
from geometry.plane_page import write_page
from geometry.plane_render import composite_planes, render_planes
from geometry.planes import (
    Composite,
    PlaneImage,
    disparity_rows,
    in_front,
    plane_depths,
    plane_homographies,
)
from geometry.views import Rendering, Views
from methods.mask_volume import inputs
from methods.mask_volume.config import MaskVolumeConfig
from methods.mask_volume.data import PlanesSample, PlanesSamples, plane_range, planes_samples, scene_bounds
from methods.mask_volume.losses import Criterion
from methods.mask_volume.model import Frame, PlaneModel, blend
from methods.mask_volume.optimisers import make_optimizer
from methods.mask_volume.originals import infer_config, is_original, read_weights

log = logging.getLogger(__name__)


@dataclass
class Still:
    """What the plates of a clip determine, kept from moment to moment.

    views: the plates, their cameras and bounds. planes: their multi-plane image [1, D, H, W, 4]. response:
    what they contribute to the mask network's first convolution.
    """

    views: Views
    frame: Frame
    planes: Tensor
    response: Tensor

    def fits(self, source: Views) -> bool:
        """Whether other source views have the same plates, cameras and bounds."""
        mine = self.views
        return (
            _equal(mine.images, source.background)
            and _equal(mine.bounds, source.bounds)
            and _equal(mine.cameras.c2w, source.cameras.c2w)
            and _equal(mine.cameras.K, source.cameras.K)
        )


@dataclass
class PlanesState:
    """A multi-plane image (no leading shape), and what later moments can reuse of it."""

    planes: PlaneImage
    still: Still | None = None


class MaskVolume(Method):
    """Deep 3D Mask Volume (Lin et al. 2021), its first network alone where `model.stage` is mpi."""

    Config = MaskVolumeConfig
    trains = True
    keeps_frozen = True
    reuses_moments = True
    weights_hint = "train both stages (docs/mask_volume.md), or put a published .ckpt into that folder"

    def __init__(self, config: MaskVolumeConfig, model: PlaneModel) -> None:
        super().__init__()
        self.config, self.model = config, model
        self.lacks_mask = False  # whether the weights loaded are of stage 1 alone
        if model.mask_net is not None:
            model.mpi_net.requires_grad_(False)
        self.criterion = Criterion(config.loss)
        if self.criterion.needs_volume and config.stage == "mpi":
            raise UserError(f"model.loss.name {config.loss.name} needs a mask volume: it is for stage mask")

    @classmethod
    def create(cls, config: MaskVolumeConfig, scene: Scene | SceneSets | None = None) -> MaskVolume:
        """Networks with starting values of torch's."""
        return cls(config, PlaneModel(config))

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser, script: Script) -> None:
        inputs.add_arguments(parser, script)

    @classmethod
    def apply_arguments(cls, args: argparse.Namespace, experiment: Experiment) -> None:
        inputs.apply_arguments(args, experiment)

    @classmethod
    def open(cls, args: argparse.Namespace, experiment: Experiment) -> Scene | SceneSets:
        """Clips of a rig, sets of scenes, one posed scene, or (-i FOLDER) stored planes."""
        return inputs.open_input(args, experiment)

    @classmethod
    def needs_weights(cls, config: MaskVolumeConfig) -> bool:
        return not config.stored

    # Weights

    def initialise(self) -> None:
        if self.config.stage == "mask":
            raise UserError(
                "stage mask trains on a finished first network: name its checkpoint with "
                "training.init_from=FOLDER (configs/mask_volume/mpi_re10k makes one)"
            )

    def completed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of stage 1 with a mask network at its starting values."""
        own = {k: v for k, v in self.state_dict().items() if k.startswith("model.mask_net.")}
        self.lacks_mask = bool(own) and not any(name in weights for name in own)
        return {**weights, **own} if self.lacks_mask else weights

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        weights = read_weights(folder, self.config)
        if weights is None:
            return None
        return self.completed({f"model.{name}": value for name, value in weights.items()})

    def prepare_inference(self) -> None:
        if self.lacks_mask:
            raise UserError(
                "the checkpoint is of stage mpi and has no mask network: train stage mask with "
                "training.init_from=FOLDER, or show the first network alone with model.stage=mpi"
            )
        settings = self.config.render
        self.eval().requires_grad_(False)
        self.model.to(getattr(torch, settings.dtype)).to(memory_format=torch.channels_last_3d)
        self.model.set_plain(settings.plain)

    # Training

    def samples(self, scene: Any, data: DataConfig) -> PlanesSamples:
        self.criterion.prepare()
        scenes = OneScene(scene) if isinstance(scene, Scene) else scene.split(data.source)
        return planes_samples(scenes, self.config, data)

    def forward(self, sample: PlanesSample, step: int) -> dict[str, Tensor]:
        made, volume, moving = self.make(sample)
        mask = sample.target.foreground
        alpha = None if moving is None else moving.alpha[:, 0]
        return self.criterion.losses(made.color[:, 0], sample.target.images, alpha, mask, volume)

    def make(self, sample: PlanesSample) -> tuple[Composite, Tensor | None, Composite | None]:
        """What the target camera [B, 1] sees; in stage 2 also the mask volume [B, 1, D, H, W], and (where the
        loss asks for it) what is seen of the masked planes alone.
        """
        source = sample.source
        depths = plane_depths(sample.bounds[:, 0], sample.bounds[:, 1], self.config.planes)
        frame = self.model.frame(source.cameras[:, 0], depths)
        swept = self.model.sweep(source.images, source.cameras, frame)
        targets = sample.target.cameras
        if self.config.stage == "mpi":
            return self._see(self.model.mpi(swept), frame, targets), None, None
        assert source.background is not None
        with torch.no_grad():
            plates = self.model.sweep(source.background, source.cameras, frame)
            now, still = self.model.mpi(swept), self.model.mpi(plates)
        mask = self.model.mask(swept, self.model.still_response(plates))
        moving = None
        if self.criterion.needs_mask:
            moving = self._see(now * mask[:, 0, ..., None], frame, targets)
        return self._see(blend(mask, now, still), frame, targets), mask, moving

    def _see(self, layers: Tensor, frame: Frame, targets: Cameras) -> Composite:
        """Layers [B, D, H, W, 4] from a camera [B] each."""
        maps = plane_homographies(frame.reference, targets.reshape(-1, 1), frame.depths)
        rows = disparity_rows(maps, frame.depths)
        settings = self.config
        return composite_planes(
            layers,
            maps,
            rows,
            targets.height,
            targets.width,
            settings.premultiplied,
            settings.backdrop,
            settings.render.backend,
        )

    def optimization(self, config: TrainingConfig) -> Optimization:
        trained = [p for p in self.parameters() if p.requires_grad]
        optimizer = make_optimizer(self.config.optimizer, trained, config.learning_rate)
        return Optimization(optimizer, learning_rate_schedule(config))

    def preview(self, sample: PlanesSample) -> list[list[Tensor]]:
        """Per sample: sources, target, ours, and in stage 2 how much of the mask is seen."""
        made, _, moving = self.make(sample)
        rows = []
        for b in range(min(8, len(made.color))):
            row = [*sample.source.images[b].cpu(), sample.target.images[b].cpu(), made.color[b, 0].cpu()]
            if moving is not None:
                row.append(moving.alpha[b, 0].expand(3, -1, -1).cpu())
            rows.append([image.clamp(0, 1) for image in row])
        return rows

    # Rendering

    def views(self, scene: Scene, indices: Sequence[int], data: DataConfig) -> Views:
        """As every method; each view knows the bounds of all cameras of the scene."""
        views = scene.views(indices, view_size(scene, data), data.threads)
        bounds = scene_bounds(scene)
        return views if bounds is None else replace(views, bounds=bounds.expand(len(views), 2))

    @torch.no_grad()
    def encode(self, source: Views, reuse: PlanesState | None = None) -> PlanesState:
        """The multi-plane image of one moment. reuse: an earlier one, whose plates are kept where they are
        the same. Raises UserError for another number of views than the model's, and without plates.
        """
        if self.config.stored:
            return PlanesState(read_mpi(Path(self.config.stored)).to(source.images.device))
        if len(source) != self.config.views:
            raise UserError(f"{len(source)} source views are given, the model takes {self.config.views}")
        batch = replace(
            source,
            images=source.images[None],
            cameras=source.cameras.to(torch.float64).reshape(1, -1),
        )
        still = self._still(source, batch.cameras, reuse) if self.config.stage == "mask" else None
        frame = self._frame(source) if still is None else still.frame
        swept = self.model.sweep(batch.images, batch.cameras, frame)
        if still is None:
            layers = self.model.mpi(swept)
        else:
            mask = self.model.mask(swept, still.response)  # the smaller result first
            layers = blend(mask, self.model.mpi(swept), still.planes)
        planes = PlaneImage(
            layers[0],
            frame.depths[0],
            frame.reference[0],
            self.config.premultiplied,
            self.config.backdrop,
        )
        return PlanesState(planes, still)

    def _frame(self, source: Views) -> Frame:
        near, far = plane_range(source.bounds, self.config).to(source.images.device)
        depths = plane_depths(near[None], far[None], self.config.planes)
        return self.model.frame(source.cameras[:1].to(torch.float64), depths)

    def _still(self, source: Views, cameras: Cameras, reuse: PlanesState | None) -> Still:
        """What the plates determine: kept from an earlier moment, or made."""
        if source.background is None:
            raise UserError(
                "the source views have no plates (background): make them with scripts/rig.py background, or "
                "name their folder with --background (data.rig.background)"
            )
        kept = None if reuse is None or self.config.render.plain else reuse.still
        if kept is not None and kept.fits(source):
            return kept
        frame = self._frame(source)
        plates = self.model.sweep(source.background[None], cameras, frame)
        views = Views(source.background, source.cameras, bounds=source.bounds)
        return Still(views, frame, self.model.mpi(plates), self.model.still_response(plates))

    @torch.no_grad()
    def render(self, state: PlanesState, cameras: Cameras) -> Rendering:
        """What cameras [N] see of the planes. Raises UserError where all planes lie behind one of them."""
        planes, cameras = state.planes, cameras.to(torch.float64)
        refuse_blind(planes, cameras)
        made = render_planes(planes, cameras, self.config.render.backend)
        return Rendering(made.color.clamp(0, 1), made.depth, made.alpha.clamp(0, 1))

    def write_sources(self, state: PlanesState, folder: Path) -> list[Path]:
        """The planes of the first moment, as a page that shows them and as LLFF's files."""
        files = []
        if "html" in self.config.page:
            write_page(state.planes, folder / "planes.html", folder.resolve().name)
            files.append(folder / "planes.html")
        if "llff" in self.config.page:
            for left_out in write_mpi(state.planes, folder / "mpi"):
                log.info("%s: %s", folder / "mpi", left_out)
            files += [folder / "mpi" / "metadata.txt", folder / "mpi" / "mpi.b"]
        return files

    @classmethod
    def from_original(cls, file: Path) -> MaskVolume | None:
        """The model in a .ckpt of either stage, with the settings that its weights need."""
        if not is_original(file):
            return None
        config = infer_config(file)
        method = cls.create(config)
        weights = read_weights(file, config)
        assert weights is not None
        assign(method, {f"model.{name}": value for name, value in weights.items()}, file)
        return method.eval()


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors that may be missing are the same."""
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one, other)


def refuse_blind(planes: PlaneImage, cameras: Cameras) -> None:
    """Raise UserError where all planes lie behind one of cameras [N], which would see nothing at all."""
    reference, cameras = (camera.to("cpu", torch.float64) for camera in (planes.camera, cameras))
    depths = planes.depths.to("cpu", torch.float64)
    maps = plane_homographies(reference, cameras, depths)
    blind = ~in_front(maps, cameras.height, cameras.width).any(-1)
    if blind.any():
        index = int(blind.int().argmax())
        depth = float((reference.w2c @ cameras.c2w[index])[2, 3])
        raise UserError(
            f"all {len(depths)} planes lie behind target camera {index} of {len(cameras)}: it stands at "
            f"depth {depth:.4g} of the reference camera, the planes from {float(depths.min()):.4g} to "
            f"{float(depths.max()):.4g}: move the path back, or turn it towards the scene"
        )
