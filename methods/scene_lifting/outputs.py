"""A lifted scene on disk: points, surface, Gaussians, cameras, pictures and a film."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloader.depth_pictures import depth_picture
from dataloader.formats import nerfstudio
from dataloader.images import to_uint8, write_image
from dataloader.scene import Record, Scene
from engine.outputs import prepare_folder
from engine.video import write_video
from geometry.cameras import Cameras, stack_cameras
from geometry.gaussian_files import write_gaussians
from geometry.gaussians import Gaussians, from_points
from geometry.glb_files import write_glb
from geometry.lifting import depth_scale, lift_depth
from geometry.mesh_files import write_mesh
from geometry.meshes import Mesh, join_meshes
from geometry.paths import interpolate, spiral
from geometry.poses import quaternion_from_matrix, turn_angle
from geometry.views import Rendering
from methods.scene_lifting.state import LiftedScene, LiftedView

MAX_ANGLE = 85.0  # degrees; floors are seen at up to about 80, a step of 2 % of the depth at 85 and more
_OPACITY = 0.95  # of Gaussians that were not optimised: points hide what is behind them
_SWAY = 0.05  # of the depth unit: how far the camera moves to and fro before a single view


def write_scene(
    scene: LiftedScene, folder: Path, original_axes: bool = False, gaussians: Path | None = None
) -> list[Path]:
    """Write all there is to a scene into a folder, which then is a scene folder of this repository.

    transforms.json, images/NNN.png, depth/NNN.npy: the views as nerfstudio's format has them (OpenGL camera
    axes; depth in thousandths of a world unit); `dataloader.formats.open_scene` and nerfstudio read them.
    points.ply: the coloured points. mesh.ply: `surface` of the views. mesh.glb: the same for viewers, upright
    (y up). gaussians.ply: the scene's Gaussians, or one per point where they were not optimised.
    views/NNN_depth.png: z-depth in colours; views/NNN_known.png: white where the scene showed the pixel
    before the view joined it.

    The PLY files keep the scene's world: OpenCV axes of the photo's camera (x right, y down, z forward).
    original_axes: the Gaussians in the axes of the original's world before its export, see
    `geometry.gaussian_files.write_gaussians`. gaussians: another place for gaussians.ply. Every file is
    written whole or not at all. Returns the files. Raises ValueError for a scene without views, UserError
    when a file cannot be written.
    """
    if not scene.views:
        raise ValueError("a scene without views cannot be written")
    prepare_folder(folder)
    scene = _on_cpu(scene)
    mesh = surface(scene)
    nerfstudio.write(_as_scene(scene, mesh), folder)
    written = [folder / "transforms.json", folder / "mesh.ply"]
    for view in scene.views:
        written += [folder / "images" / f"{view.name}.png", folder / "depth" / f"{view.name}.npy"]
        written += _write_pictures(view, folder / "views")
    gaussians = gaussians or folder / "gaussians.ply"
    written += [folder / "points.ply", folder / "mesh.glb", gaussians]
    write_mesh(_point_cloud(scene), folder / "points.ply")
    write_glb(mesh, folder / "mesh.glb")
    write_gaussians(gaussians, gaussians_of(scene), original_axes=original_axes)
    return written


def gaussians_of(scene: LiftedScene) -> Gaussians:
    """The scene's Gaussians; where they were not optimised, a round and nearly opaque one per point."""
    if scene.gaussians is not None:
        return scene.gaussians
    return from_points(scene.points, scene.colors, opacity=_OPACITY)


def surface(scene: LiftedScene, max_angle: float = MAX_ANGLE) -> Mesh:
    """The views lifted to one coloured triangle mesh, torn at depth edges.

    Every view brings the pixels that were new when it joined, and the pixels beside them, so that it meets
    what was there. max_angle: degrees, see `geometry.lifting.lift_depth`. Colours are those of the views.
    """
    return join_meshes([_view_surface(view, max_angle) for view in scene.views])


def _view_surface(view: LiftedView, max_angle: float) -> Mesh:
    new = (~view.known)[None, None].float()
    wanted = torch.nn.functional.max_pool2d(new, 3, stride=1, padding=1)[0, 0] > 0
    depth = torch.where(wanted, view.depth, torch.zeros_like(view.depth))
    return lift_depth(depth, view.camera, view.image.permute(1, 2, 0), max_angle)


def _point_cloud(scene: LiftedScene) -> Mesh:
    faces = torch.empty(0, 3, dtype=torch.int64)
    return Mesh(scene.points.float(), faces, colors=scene.colors)


def _on_cpu(scene: LiftedScene) -> LiftedScene:
    views = [
        replace(
            view,
            image=view.image.detach().cpu(),
            camera=view.camera.to("cpu"),
            depth=view.depth.detach().cpu(),
            known=view.known.cpu(),
        )
        for view in scene.views
    ]
    return replace(scene, points=scene.points.detach().cpu(), colors=scene.colors.detach().cpu(), views=views)


def _as_scene(scene: LiftedScene, mesh: Mesh) -> Scene:
    """The views as an in-memory scene with depth, and a surface of float32 vertices."""
    records = [
        Record(
            view.name,
            view.camera.to(torch.float64),
            to_uint8(view.image),
            depth=view.depth.numpy().astype(np.float32),
        )
        for view in scene.views
    ]
    return Scene("lifted", records, surface=mesh.to(torch.float32))


def _write_pictures(view: LiftedView, folder: Path) -> list[Path]:
    depth, known = (folder / f"{view.name}_{what}.png" for what in ("depth", "known"))
    write_image(depth_picture(view.depth), depth)
    write_image(view.known.float().expand(3, -1, -1), known)
    return [depth, known]


def fly_through(scene: LiftedScene, n: int = 90) -> Cameras:
    """[n] cameras that sweep smoothly over the scene's views, from one end of them to the other.

    The order of the sweep: from the view that is farthest from the photo to its nearest neighbour and so on,
    turns counting as movements at the scene's depth unit. A single view is swayed before a little instead, on
    a closed curve. Raises ValueError for a scene without views.
    """
    cameras = stack_cameras([view.camera for view in scene.views])
    unit = _depth_unit(scene.views[0].depth)
    if len(cameras) == 1:
        return spiral(cameras[0], unit, n, max_trans=_SWAY)
    return interpolate(cameras[_tour(cameras, unit)], unit, n)


def _depth_unit(depth: Tensor) -> float:
    return depth_scale(depth[depth > 0])


def _tour(cameras: Cameras, unit: float) -> list[int]:
    """Order of cameras [N] from the one farthest from the first, always on to the nearest that is left."""
    turned = quaternion_from_matrix(cameras.c2w[:, :3, :3].double())
    angle = turn_angle(turned[:, None].expand(-1, len(turned), -1), turned[None].expand(len(turned), -1, -1))
    travel = (cameras.center[:, None] - cameras.center[None]).norm(dim=-1)
    distance = torch.hypot(travel.double(), unit * angle)
    order = [int(distance[0].argmax())]
    while len(order) < len(cameras):
        left = [i for i in range(len(cameras)) if i not in order]
        order.append(min(left, key=lambda i: float(distance[order[-1], i])))
    return order


def write_film(
    cameras: Cameras, render: Callable[[Cameras], Rendering], paths: Sequence[Path], fps: float = 30
) -> None:
    """Film cameras [n] there and back, as .mp4 or .gif files in endless loops.

    render: a single camera -> its `Rendering`. Raises UserError for another suffix or an unwritable place.
    """
    frames = [to_uint8(render(cameras[i]).image) for i in range(len(cameras))]
    for path in paths:
        write_video(frames + frames[-2:0:-1], path, fps)
