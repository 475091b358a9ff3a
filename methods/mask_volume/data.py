"""Training samples of both stages: some views of a scene given, one to make (specs/mask_volume 4.2, 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from common.errors import UserError
from dataloader.images import fit_size
from dataloader.scene import Scene
from dataloader.scene_sets import FilmedScenes, SceneSet
from engine.config import DataConfig
from engine.sampling import generator
from geometry.cameras import Cameras, stack_cameras
from geometry.views import Views
from methods.mask_volume.config import AugmentConfig, MaskVolumeConfig, ViewsConfig

_MOST_SHORT_SCENES = 50  # in a row, after which there is no point in trying on
NEAR_FACTOR, FAR_FACTOR = 0.9, 2.0  # planes reach so far beyond the bounds of a rig (specs/mask_volume 3.2)

# Colour changes, one of which a sample gets: the factor is 1 plus a draw from this range (hue: the draw).
COLOURS: dict[str, tuple[float, float]] = {
    "brightness": (-0.2, 0.3),
    "saturation": (-0.2, 0.5),
    "hue": (-0.2, 0.2),
    "contrast": (-0.2, 0.4),
    "none": (0.0, 0.0),
}


@dataclass
class PlanesSample:
    """Views [B, V] given, the first of them the reference, and a view [B] to make; cameras float64.

    bounds: [B, 2] depths between which the planes lie. seeds: what the items were drawn with.
    """

    source: Views
    target: Views
    bounds: Tensor
    seeds: list[int] = field(default_factory=list)

    def to(self, device: torch.device) -> PlanesSample:
        return PlanesSample(
            self.source.to(device), self.target.to(device), self.bounds.to(device), self.seeds
        )


def scene_bounds(scene: Scene) -> Tensor | None:
    """[2] float64: the nearest and the farthest bound of all cameras of a scene; None where it has none."""
    bounds = [record.bounds for record in scene.records if record.bounds is not None]
    if not bounds:
        return None
    return torch.tensor([min(near for near, _ in bounds), max(far for _, far in bounds)]).double()


def plane_range(bounds: Tensor | None, config: MaskVolumeConfig) -> Tensor:
    """[2] float64 depths of the nearest and the farthest plane: 0.9 of the least and twice the largest bound
    [..., 2]; those of the settings where there are none.
    """
    if bounds is None:
        return torch.tensor([config.near, config.far], dtype=torch.float64)
    near, far = bounds.double().reshape(-1, 2).unbind(-1)
    return torch.stack([NEAR_FACTOR * near.min(), FAR_FACTOR * far.max()])


@dataclass
class PlanesSamples:
    """Sources and a target of the scenes of a set.

    Of a rig any cameras at one moment; of a video of a static scene frames of a stretch with a stride. Those
    drawn first are the sources, the first of them the reference.
    """

    scenes: SceneSet
    config: MaskVolumeConfig
    data: DataConfig

    @property
    def size(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.key(index)

    def draw(self, index: int, seed: int) -> PlanesSample:
        """Views of scene `index`, or of one of the next where it has too few frames.

        Raises UserError for an unreadable scene, or where a rig has too few cameras.
        """
        scene, chosen = self._choose(index, seed)
        views = scene.views(chosen, self._size(scene), self.data.threads)
        views = augmented(views, self.config.augment, seed)
        if self.config.stage == "mask" and views.background is None:
            raise UserError(f"scene {self.scenes.key(index)} has no plates (background): {_PLATES}")
        bounds = plane_range(scene_bounds(scene), self.config)
        return PlanesSample(views[:-1], views[-1:], bounds[None], [seed])

    def _choose(self, index: int, seed: int) -> tuple[Scene, list[int]]:
        """A scene, and the records of the sources and of the target, which comes last."""
        draw, wanted = generator(seed, "views"), self.config.views + 1
        if isinstance(self.scenes, FilmedScenes):
            scene = self.scenes.scene(index)
            if len(scene) < wanted:
                raise UserError(
                    f"scene {self.scenes.key(index)} has {len(scene)} cameras: training takes "
                    f"{wanted}, model.views given and one to make"
                )
            return scene, torch.randperm(len(scene), generator=draw)[:wanted].tolist()
        for attempt in range(_MOST_SHORT_SCENES):
            scene = self.scenes.scene((index + attempt) % len(self.scenes))
            if len(scene) > least_frames(self.config.sampler):
                frames = draw_stretch(len(scene), self.config.sampler, draw)
                order = torch.randperm(len(frames), generator=draw)[:wanted].tolist()
                return scene, [frames[i] for i in order]
        raise UserError(
            f"{_MOST_SHORT_SCENES} scenes in a row have no more than {least_frames(self.config.sampler)} "
            "frames: lower model.sampler.max_stride or model.sampler.frames"
        )

    def _size(self, scene: Scene) -> tuple[int, int] | None:
        camera = scene.records[0].camera
        limit = self.data.max_size
        return fit_size(camera.height, camera.width, limit) if limit else None

    def collate(self, items: list[Any]) -> PlanesSample:
        return collate(items)


@dataclass
class ChunkedPlanesSamples(PlanesSamples):
    """The same for sets that are stored in chunks."""

    @property
    def chunk_sizes(self) -> Sequence[int]:
        assert self.scenes.chunk_sizes is not None
        return self.scenes.chunk_sizes


_PLATES = "make them with scripts/rig.py background, or name their folder with data.rig.background"


def planes_samples(scenes: SceneSet, config: MaskVolumeConfig, data: DataConfig) -> PlanesSamples:
    """The samples of a set, in chunks where it is stored so."""
    kind = PlanesSamples if scenes.chunk_sizes is None else ChunkedPlanesSamples
    return kind(scenes, config, data)


def least_frames(config: ViewsConfig) -> int:
    """Scenes need more frames than this: a stretch at the longest stride."""
    return (config.frames - 1) * config.max_stride + 1


def draw_stretch(length: int, config: ViewsConfig, draw: torch.Generator) -> list[int]:
    """Frame numbers of a stretch of a video: a stride, then where it starts."""
    stride = int(torch.randint(config.min_stride, config.max_stride + 1, (), generator=draw))
    last = length - (config.frames - 1) * stride
    start = int(torch.randint(0, last, (), generator=draw))
    return stretch(start, stride, config.frames)


def stretch(start: int, stride: int, count: int) -> list[int]:
    """`count` frame numbers from `start` on, every `stride`-th."""
    return list(range(start, start + count * stride, stride))


def augmented(views: Views, config: AugmentConfig, seed: int) -> Views:
    """The views [N], all changed alike as the settings ask for."""
    if config.crop or config.max_scale > 1:
        views = _random_crop(views, config, generator(seed, "crop"))
    if config.colours:
        draw = generator(seed, "colour")
        mode = list(COLOURS)[int(torch.randint(0, len(COLOURS), (), generator=draw))]
        low, high = COLOURS[mode]
        shift = low + (high - low) * float(torch.rand((), generator=draw, dtype=torch.float64))
        views = _recoloured(views, mode, shift if mode == "hue" else 1 + shift)
    return views


def _random_crop(views: Views, config: AugmentConfig, draw: torch.Generator) -> Views:
    scale = 1 + (config.max_scale - 1) * float(torch.rand((), generator=draw, dtype=torch.float64))
    height, width = views.cameras.height, views.cameras.width
    side = config.crop
    if side and min(height, width) < side:
        raise UserError(f"photos of {width}x{height} are smaller than model.augment.crop={side}: lower it")
    rows, columns = int(scale * height), int(scale * width)
    if not side:
        return crop_views(views, scale, 0, 0, rows, columns)
    top = int(torch.randint(0, rows - side + 1, (), generator=draw))
    left = int(torch.randint(0, columns - side + 1, (), generator=draw))
    return crop_views(views, scale, top, left, side, side)


def crop_views(views: Views, scale: float, top: int, left: int, height: int, width: int) -> Views:
    """Views enlarged to floor(scale * size) (bilinear), of which a window is kept; cameras in step.

    As in the original, intrinsics are multiplied by the scale itself, not by the ratio of the whole sizes.
    """
    rows, columns = int(scale * views.cameras.height), int(scale * views.cameras.width)
    factor = torch.tensor([scale, scale, 1.0], dtype=views.cameras.K.dtype)[:, None]
    enlarged = Cameras(views.cameras.K * factor, views.cameras.c2w, rows, columns, views.cameras.time)
    window = slice(top, top + height), slice(left, left + width)

    def resized(image: Tensor | None, mode: str = "bilinear") -> Tensor | None:
        if image is None:
            return None
        options = {"align_corners": False} if mode == "bilinear" else {}
        return interpolate(image, (rows, columns), mode=mode, **options)[..., window[0], window[1]]

    images = resized(views.images)
    assert images is not None
    return Views(
        images,
        enlarged.crop(top, left, height, width),
        foreground=resized(views.foreground, "nearest-exact"),
        background=resized(views.background),
        bounds=views.bounds,
        names=views.names,
    )


def _recoloured(views: Views, mode: str, factor: float) -> Views:
    """Views whose photos and plates are changed alike."""
    plates = None if views.background is None else change_colour(views.background, mode, factor)
    return replace(views, images=change_colour(views.images, mode, factor), background=plates)


def change_colour(images: Tensor, mode: str, factor: float) -> Tensor:
    """Images [N, 3, H, W] with one property changed (`COLOURS`), by torchvision's definitions."""
    from torchvision.transforms.v2 import functional as colour  # 160 MB that only training needs

    if mode == "none":
        return images
    return getattr(colour, f"adjust_{mode}")(images, factor)


def collate(items: list[PlanesSample]) -> PlanesSample:
    """Samples of single scenes -> a batch. Raises UserError where their photos are of several sizes."""
    sizes = {(camera.width, camera.height) for camera in (item.source.cameras for item in items)}
    if len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UserError(
            f"a batch holds photos of {listed}: set model.augment.crop or training.batch_size=1, or bring "
            "the scenes to one size"
        )
    return PlanesSample(
        _stacked([item.source for item in items]),
        _stacked([item.target[0] for item in items]),
        torch.cat([item.bounds for item in items]),
        [seed for item in items for seed in item.seeds],
    )


def _stacked(views: list[Views]) -> Views:
    def stack(name: str) -> Tensor | None:
        values = [getattr(v, name) for v in views]
        return None if any(value is None for value in values) else torch.stack(values)

    images = stack("images")
    assert images is not None
    cameras = stack_cameras([v.cameras for v in views])
    return Views(images, cameras, foreground=stack("foreground"), background=stack("background"))
