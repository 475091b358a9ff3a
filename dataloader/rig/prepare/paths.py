"""Camera paths for a rig, written to files (specs/mask_volume 4.5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataloader.formats import llff
from dataloader.rig.folders import open_frames
from geometry.cameras import Cameras, stack_cameras
from geometry.path_files import write_camera_path
from geometry.rig_path_files import write_rig_path
from geometry.rig_paths import DEFAULT_FRAMES, DEFAULT_PATHS, rig_path


def write_path(
    clip: Path, out: Path, names: Sequence[str] = (), frames: int = DEFAULT_FRAMES, fps: float = 30.0
) -> int:
    """Write a path of a clip's rig as qual_path text, `.npy` or `camera_path.json`. Returns its frames.

    clip: as `open_frames` takes it, or one frame folder. names: of `RIG_PATHS`, none for the usual five;
    frames: the unit of their lengths. fps: of a JSON file. Raises UserError where the clip cannot be opened,
    and where a file cannot hold its cameras.
    """
    cameras, bounds = _rig_of(clip)
    path = rig_path(cameras, bounds, names or DEFAULT_PATHS, frames)
    if out.suffix == ".json":
        write_camera_path(path, out, fps)
    else:
        write_rig_path(path, out)
    return len(path)


def _rig_of(clip: Path) -> tuple[Cameras, tuple[float, float]]:
    """The cameras [C] of a rig, and the least and greatest depth that they see."""
    if (clip / "images").is_dir() and (clip / "poses_bounds.npy").is_file():
        scene = llff.read(clip)
        cameras, bounds = [record.camera for record in scene.records], [r.bounds for r in scene.records]
    else:
        opened = open_frames(clip)
        cameras, bounds = list(opened.cameras), list(opened.bounds)
    known = [pair for pair in bounds if pair is not None]
    return stack_cameras(cameras), (min(near for near, _ in known), max(far for _, far in known))
