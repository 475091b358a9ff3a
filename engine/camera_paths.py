"""Camera paths for a scene: by name, in the scene's own units, or from a camera_path.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_depth import scene_scale
from engine.config import DataConfig
from engine.data import source_indices, view_size
from geometry.cameras import Cameras
from geometry.path_files import read_camera_path
from geometry.paths import AROUND_ONE, PATHS

# Sideways reach of the spiral in depth units, the orbit's. MegaScenes' 3 units suit views whose nearest fifth
# is foreground, and lose sight of a scene that fills its depth range evenly.
_SPIRAL_REACH = 1.0


def path_name(path: str) -> str:
    """What the outputs of a path are called: its own name, or that of its file."""
    return Path(path).stem if path.endswith(".json") else path


def scene_path(
    path: str,
    scene: Scene,
    data: DataConfig,
    view: str | None = None,
    frames: int | None = None,
    original: bool = False,
) -> tuple[Cameras, float | None]:
    """The cameras [N] of a path and the frame rate that its file asks for (None for a path by name).

    path: a name of `geometry.paths.PATHS`, or a camera_path.json file. view: name of the photo that a path
    around one camera starts from; None takes the middle one of the split `data.source`. frames: None takes
    the path's default. Distances are in units of the 20th percentile of the depth that the view sees; paths
    around one camera are moreover as wide as its field of view allows. original: leave orbit and spiral as
    MegaScenes has them, which suits its own wide lens. Raises UserError for an unknown path
    or view.
    """
    if path.endswith(".json"):
        return read_camera_path(Path(path))
    if path not in PATHS:
        raise UserError(f"unknown path {path!r}: choose from {', '.join(PATHS)}, or give a camera_path.json")
    sources = source_indices(scene, data)
    index = sources[len(sources) // 2] if view is None else _record_index(scene, view)
    reference = scene.cameras([index] if path in AROUND_ONE else sources, view_size(scene, data))
    scale = scene_scale(scene, index)
    options: dict[str, Any] = {} if frames is None else {"n": frames}
    if path in AROUND_ONE and original:
        reference = reference[0]
    elif path in AROUND_ONE:
        reference = reference[0]
        width = _view_width(reference)
        scale *= width
        options |= {"orbit": {"angle": 30.0 * width}, "spiral": {"max_trans": _SPIRAL_REACH}}.get(path, {})
    elif path == "llff_spiral":
        options["bounds"] = _bounds(scene)
    return PATHS[path](reference, scale, **options), None


def _view_width(camera: Cameras) -> float:
    """How wide a camera sees, 1 for the camera that MegaScenes drew its paths for (80 px focal length at 256
    px).

    Paths around one camera are scaled by it, turns and shifts alike, so that every lens keeps as much of the
    scene in view.
    """
    return max(camera.width, camera.height) / float(camera.focal.mean()) / (256 / 80)


def _bounds(scene: Scene) -> tuple[float, float] | None:
    """The nearest and farthest bound of a scene whose format has them for every view."""
    bounds = [record.bounds for record in scene.records if record.bounds is not None]
    if len(bounds) < len(scene):
        return None
    return min(near for near, _ in bounds), max(far for _, far in bounds)


def _record_index(scene: Scene, view: str) -> int:
    if view not in scene.names:
        known = f"{scene.names[0]} ... {scene.names[-1]}"
        raise UserError(f"scene {scene.name} has no view {view!r}; it has {known}")
    return scene.names.index(view)
