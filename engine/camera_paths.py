"""Camera paths for a scene: by name, in the scene's own units, or from a path file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from dataloader.scene import Scene
from dataloader.scene_depth import scene_scale
from engine.config import DataConfig
from engine.data import source_indices, view_size
from geometry.cameras import Cameras
from geometry.pair_paths import PAIR_FPS, PAIR_PATHS
from geometry.path_files import read_camera_path
from geometry.paths import AROUND_ONE, PATHS
from geometry.rig_path_files import SUFFIXES as RIG_SUFFIXES
from geometry.rig_path_files import read_rig_path

# Sideways reach of the spiral in depth units, the orbit's. MegaScenes' 3 units suit views whose nearest fifth
# is foreground, and lose sight of a scene that fills its depth range evenly.
_SPIRAL_REACH = 1.0

# Between source views: those of geometry.pair_paths, and the recorded cameras from the first to the last.
BETWEEN_SOURCES = ("frames", *PAIR_PATHS)

CamerasOf = Callable[[list[int]], Cameras]  # of records of a scene, as the method sees them


def path_name(path: str) -> str:
    """What the outputs of a path are called: its own name, or that of its file."""
    return Path(path).stem if path.endswith((".json", *RIG_SUFFIXES)) else path


def scene_path(
    path: str,
    scene: Scene,
    data: DataConfig,
    view: str | None = None,
    frames: int | None = None,
    original: bool = False,
    sources: Sequence[int] | None = None,
    cameras_of: CamerasOf | None = None,
) -> tuple[Cameras, float | None]:
    """The cameras [N] of a path and the frame rate that it asks for (None for most paths by name).

    path: a name of `geometry.paths.PATHS` or `BETWEEN_SOURCES`, a camera_path.json file, or a `.txt` or
    `.npy` file of a rig's path, which is rendered at the size of the source views. view: name of the photo
    that a path around one camera starts from; None takes the middle source. frames: None takes the path's
    default. Distances are in units of the 20th percentile of the depth that the view sees; paths around one
    camera are moreover as wide as its field of view allows. original: leave orbit and spiral as MegaScenes
    has them, which suits its own wide lens. sources: the records given; None takes the split `data.source`,
    of which paths between source views use the first and the last. cameras_of: how records' cameras are had
    where `data.max_size` does not say it. Raises UserError for an unknown path or view.
    """
    if path.endswith(".json"):
        return read_camera_path(Path(path))
    if cameras_of is None:
        cameras_of = _cameras_at_size(scene, data)
    if path.endswith(RIG_SUFFIXES):
        seen = cameras_of([source_indices(scene, data)[0] if sources is None else sources[0]])
        return read_rig_path(Path(path), (seen.height, seen.width)), None
    if path not in PATHS and path not in BETWEEN_SOURCES:
        known = ", ".join((*PATHS, *BETWEEN_SOURCES))
        raise UserError(
            f"unknown path {path!r}: choose from {known}, or give a camera_path.json (.txt, .npy)"
        )
    if path in BETWEEN_SOURCES:
        given = list(sources) if sources is not None else [source_indices(scene, data)[i] for i in (0, -1)]
        return _between_sources(path, given, cameras_of, frames), PAIR_FPS
    sources = source_indices(scene, data) if sources is None else list(sources)
    index = sources[len(sources) // 2] if view is None else record_index(scene, view)
    reference = cameras_of([index] if path in AROUND_ONE else sources)
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
        options["bounds"] = scene_bounds(scene)
    return PATHS[path](reference, scale, **options), None


def _cameras_at_size(scene: Scene, data: DataConfig) -> CamerasOf:
    return lambda indices: scene.cameras(indices, view_size(scene, data))


def _between_sources(path: str, sources: list[int], cameras_of: CamerasOf, frames: int | None) -> Cameras:
    """A path from the first source to the last; its unit of depth is their distance."""
    if path == "frames":
        return cameras_of(recorded(sources, frames))
    reference = cameras_of(sources)
    scale = float((reference.center[-1] - reference.center[0]).norm())
    return PAIR_PATHS[path](reference, scale, **({} if frames is None else {"n": frames}))


def recorded(sources: Sequence[int], frames: int | None = None) -> list[int]:
    """The records between the outermost sources, these included; `frames` of them, evenly spread.

    Raises UserError where there is only one source.
    """
    first, last = min(sources), max(sources)
    if first == last:
        raise UserError("the path 'frames' runs between source views: it needs 2 of them, not 1")
    count = last - first + 1
    if frames is None or frames >= count:
        return list(range(first, last + 1))
    step = (count - 1) / max(frames - 1, 1)
    return [first + round(i * step) for i in range(frames)]


def _view_width(camera: Cameras) -> float:
    """How wide a camera sees, 1 for the camera that MegaScenes drew its paths for (80 px focal length at 256
    px).

    Paths around one camera are scaled by it, turns and shifts alike, so that every lens keeps as much of the
    scene in view.
    """
    return max(camera.width, camera.height) / float(camera.focal.mean()) / (256 / 80)


def scene_bounds(scene: Scene) -> tuple[float, float] | None:
    """The nearest and farthest bound of a scene whose format has them for every view."""
    bounds = [record.bounds for record in scene.records if record.bounds is not None]
    if len(bounds) < len(scene):
        return None
    return min(near for near, _ in bounds), max(far for _, far in bounds)


def record_index(scene: Scene, view: str) -> int:
    """The record of that name. Raises UserError where the scene has none."""
    if view not in scene.names:
        known = f"{scene.names[0]} ... {scene.names[-1]}"
        raise UserError(f"scene {scene.name} has no view {view!r}; it has {known}")
    return scene.names.index(view)
