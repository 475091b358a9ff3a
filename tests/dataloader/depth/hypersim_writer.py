"""A tiny Hypersim scene on disk, rendered from a procedural room."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch

from dataloader.toy import make_boxes, make_cameras, render
from geometry.cameras import pinhole
from geometry.views import Views

METRES = 0.0254  # per asset unit
FOV = 1.2  # radians
SCENE, CAMERA = "ai_001_001", "cam_00"
COLUMNS = (
    *("scene_name", "settings_output_img_width", "settings_output_img_height"),
    *("settings_camera_fov", "use_camera_physical"),
)


def room_views(frames: int = 3, height: int = 24, width: int = 32) -> Views:
    """Views of a room with the field of view of the table, 40 cm apart."""
    boxes = make_boxes(2)
    poses = make_cameras(2, 1, height, width, boxes).c2w.repeat(frames, 1, 1)
    poses[:, 0, 3] += 0.4 * torch.arange(frames)
    focal = width / (2 * np.tan(FOV / 2))
    return render(boxes, pinhole(focal, height, width).with_poses(poses), supersample=1)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = array


def write_table(path: Path, height: int = 24, width: int = 32) -> Path:
    """The camera table: the scene, and one that no pinhole made."""
    rows = [",".join(COLUMNS), f"{SCENE},{width},{height},{FOV},False", f"ai_001_002,{width},{height},,True"]
    path.write_text("\n".join(rows) + "\n")
    return path


def write_scene(root: Path, views: Views | None = None) -> Views:
    """Write a scene's files below root; returns its views."""
    views = views or room_views()
    assert views.depth is not None
    scene = root / SCENE
    detail, images = scene / "_detail", scene / "images"
    (detail / CAMERA).mkdir(parents=True)
    (detail / "metadata_cameras.csv").write_text(f"camera_name\n{CAMERA}\n")
    rows = ["parameter_name,parameter_value", f"meters_per_asset_unit,{METRES}"]
    (detail / "metadata_scene.csv").write_text("\n".join(rows) + "\n")
    flip = np.diag([1.0, -1.0, -1.0])
    c2w = views.cameras.c2w.numpy()
    save(detail / CAMERA / "camera_keyframe_frame_indices.hdf5", np.arange(len(views)))
    save(detail / CAMERA / "camera_keyframe_positions.hdf5", c2w[:, :3, 3] / METRES)
    save(detail / CAMERA / "camera_keyframe_orientations.hdf5", c2w[:, :3, :3] @ flip)
    for i in range(len(views)):
        z = views.depth[i, 0].double()
        points = views.cameras[i].unproject(z)
        distance = (points - views.cameras[i].center).norm(dim=-1)
        geometry = images / f"scene_{CAMERA}_geometry_hdf5"
        save(geometry / f"frame.{i:04d}.depth_meters.hdf5", distance.half().numpy())
        save(geometry / f"frame.{i:04d}.position.hdf5", (points / METRES).half().numpy())
        color = views.images[i].permute(1, 2, 0).half().numpy()
        save(images / f"scene_{CAMERA}_final_hdf5" / f"frame.{i:04d}.color.hdf5", color)
    return views


def unknown(path: Path, rows: slice) -> None:
    """Make rows of a map unknown."""
    with h5py.File(path, "a") as file:
        array = torch.from_numpy(file["dataset"][()])
        array[rows] = torch.nan
        file["dataset"][...] = array.numpy()
