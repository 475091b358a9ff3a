"""Which views are made of a photo: their cameras, what is to be painted there, and with which seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import UserError
from engine.sampling import key
from geometry.cameras import Cameras
from geometry.path_files import read_camera_path
from geometry.scene_paths import mode_cameras
from methods.scene_lifting.config import GenerationConfig

_SAME_PLACE = 1e-6  # difference of poses below which a camera of a path is the photo's own


@dataclass
class PlannedView:
    """A view to be made. camera: single. seed: of the inpainter's noise, for this view alone."""

    camera: Cameras
    name: str
    prompt: str
    negative_prompt: str
    seed: int


def later_cameras(photo: Cameras, config: GenerationConfig) -> Cameras:
    """The cameras [N] of the views beside the photo's own, of its size.

    Those of `config.mode`, with the photo's lens; or those of the file `config.path`, each with its own field
    of view, whose world's origin is the photo's camera (frames that stand there are left out). Raises
    UserError for a bad file.
    """
    if not config.path:
        return mode_cameras(photo, config.mode, config.radius)[1:]
    path, _ = read_camera_path(Path(config.path))
    path = path.to(photo.c2w)
    here = torch.eye(4).to(path.c2w)
    path = path[(path.c2w - here).abs().amax((-2, -1)) > _SAME_PLACE]
    cameras = photo.with_poses(photo.c2w @ path.c2w)
    scale = photo.height / path.height
    cameras.K[:, 0, 0] = cameras.K[:, 1, 1] = path.K[:, 1, 1] * scale
    return cameras


def plan_views(cameras: Cameras, config: GenerationConfig, painted: bool = True) -> list[PlannedView]:
    """What is to be painted at cameras [N]; painted: False where nothing is, and no prompt is needed.

    Every view has a seed of its own that depends on `config.seed` and its number alone, so that a view can be
    made again without those before it. (The original seeds one generator per scene, its web demo the same one
    for every view.) Raises UserError when a prompt is missing, or there are some for another number of views.
    """
    count = len(cameras)
    prompts = _spread("prompts", config.prompts, config.prompt, count)
    negative = _spread("negative_prompts", config.negative_prompts, config.negative_prompt, count)
    if painted and not all(prompt.strip() for prompt in prompts):
        raise UserError(
            "there is no prompt: say what is around the photo with --prompt (model.generation.prompt), or "
            "paint nothing with --inpainter none"
        )
    return [
        PlannedView(
            cameras[i], f"view_{i + 1:03d}", prompts[i], negative[i], key(config.seed, "outpainted view", i)
        )
        for i in range(count)
    ]


def _spread(name: str, each: tuple[str, ...], common: str, count: int) -> list[str]:
    if each and len(each) != count:
        raise UserError(
            f"model.generation.{name} has {len(each)} entries, and {count} views are made beside the photo: "
            "give one for each"
        )
    return list(each) or [common] * count
