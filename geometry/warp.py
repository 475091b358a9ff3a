"""Images carried from source views to other cameras, by depth maps or over a mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.lifting import lift_depth
from geometry.meshes import Mesh
from geometry.rasterize import SUBSAMPLES, Rasterizer, render_vertex_colors
from geometry.views import Rendering, Views


def warp(
    views: Views,
    cameras: Cameras,
    mesh: Mesh | None = None,
    max_angle: float | None = 85.0,
    tolerance: float = 0.01,
) -> Rendering:
    """Warp source views to cameras [...].

    Without a mesh: one view with depth (batch shape [] or [1]) is lifted (`lift_depth`, torn where its
    triangles are seen at more than `max_angle` degrees) and the coloured surface rendered with 4x
    multisampling; opacity is the coverage. With a mesh: every target pixel takes the mean colour of the
    source views [J] that see its surface point, by `sample_views` and its relative depth `tolerance`; opacity
    is 1 where one does, else 0.

    Returns image [..., 3, H, W], depth and opacity [..., 1, H, W]. Pixels covered in part have the full
    colour of what covers them, pixels without opacity are black. Opacity is 0 everywhere when no camera sees
    the surface: callers decide what that means. Raises ValueError when there is neither a mesh nor one view
    with depth.
    """
    if mesh is None:
        return render_lifted(_lift_view(views, max_angle), cameras)
    rasterizer = Rasterizer(mesh)
    sources = views if views.cameras.shape else views[None]
    source_depth = rasterizer.depth(sources.cameras)
    flat = cameras.reshape(-1)
    frames = [_warp_one(rasterizer, sources, source_depth, flat[i], tolerance) for i in range(len(flat))]
    image, depth, opacity = (
        torch.stack(part).reshape(*cameras.shape, *part[0].shape) for part in zip(*frames, strict=True)
    )
    return Rendering(image, depth, opacity)


def render_lifted(surface: Mesh | Rasterizer, cameras: Cameras) -> Rendering:
    """Render a lifted photo for cameras [...], with 4x multisampling and culled back faces.

    Pixels covered in part do not fade to black (`render_vertex_colors`) but have the full colour of what
    covers them; opacity is the coverage.
    """
    faded = render_vertex_colors(surface, cameras)
    assert faded.opacity is not None
    return Rendering(faded.image / faded.opacity.clamp(min=1 / len(SUBSAMPLES)), faded.depth, faded.opacity)


def _lift_view(views: Views, max_angle: float | None) -> Mesh:
    """The coloured surface of a single view with depth, whose batch shape is [] or [1]."""
    if views.depth is None:
        raise ValueError("warping needs a mesh, or a view with depth")
    if views.cameras.shape not in ((), (1,)):
        raise ValueError(
            f"one view is lifted at a time, got {tuple(views.cameras.shape)}: give a mesh instead"
        )
    height, width = views.cameras.height, views.cameras.width
    colors = views.images.reshape(3, height, width).permute(1, 2, 0)
    return lift_depth(views.depth.reshape(height, width), views.cameras.reshape(1)[0], colors, max_angle)


def _warp_one(
    rasterizer: Rasterizer, sources: Views, source_depth: Tensor, camera: Cameras, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Image [3, H, W], depth and opacity [1, H, W] of one target camera."""
    depth = rasterizer.depth(camera)  # [1, H, W]
    rows = (depth.flatten() > 0).nonzero()[:, 0]
    points = camera.unproject(depth.to(camera.c2w.dtype))[0].reshape(-1, 3)[rows]
    colors, visible = sample_views(points, sources, source_depth, tolerance)
    count = visible.sum(0)  # [P]
    mean = (colors * visible[..., None]).sum(0) / count.clamp(min=1)[:, None]
    image, opacity = depth.new_zeros(depth.numel(), 3), depth.new_zeros(depth.numel())
    image[rows], opacity[rows] = mean.to(image), (count > 0).to(opacity)
    return image.T.reshape(3, *depth.shape[1:]), depth, opacity.reshape(depth.shape)


def sample_views(
    points: Tensor, sources: Views, depth: Tensor, tolerance: float = 0.01
) -> tuple[Tensor, Tensor]:
    """Colours that source views show of surface points, and which points they see.

    A view sees a point that projects inside its image (`locate`) and that nothing hides: no pixel of the four
    that the bilinear sample touches is nearer than the point by more than the tolerance, so that the colours
    of an occluder do not bleed over its silhouette. Pixels without depth hide nothing.

    points: [..., 3] world. sources: [J] views. depth: [J, 1, H, W], what the surface's depth is in each
    source (`Rasterizer.depth`), 0 where there is none. tolerance: relative to the point's depth.
    Returns colours [J, ..., 3] (bilinear; meaningless where unseen) and visible [J, ...] bool.
    """
    flat = points.reshape(-1, 3)
    pixels, z, inside = locate(flat, sources.cameras)  # [J, P, 2], [J, P], [J, P]
    size = pixels.new_tensor([sources.cameras.width, sources.cameras.height])
    grid = (2 * pixels / size - 1).to(sources.images.dtype)[:, None]  # [J, 1, P, 2]
    colors = torch.nn.functional.grid_sample(
        sources.images, grid, mode="bilinear", padding_mode="border", align_corners=False
    )[:, :, 0]  # [J, 3, P]
    visible = inside & (_nearest_of_four(depth[:, 0], pixels) >= z * (1 - tolerance))
    shape = (len(sources.cameras), *points.shape[:-1])
    return colors.movedim(1, -1).reshape(*shape, 3), visible.reshape(shape)


def locate(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Where points [P, 3] lie in the images of cameras [J].

    Returns pixels [J, P, 2], z-depth [J, P], and inside [J, P] bool: before the camera and within the image.
    """
    cameras = cameras.to(points.dtype)
    pixels, z = cameras.project(points.expand(len(cameras), *points.shape))
    size = pixels.new_tensor([cameras.width, cameras.height])
    inside = (z > 0) & ((pixels >= 0) & (pixels <= size)).all(-1)
    return pixels, z, inside


def _nearest_of_four(depth: Tensor, pixels: Tensor) -> Tensor:
    """The smallest known depth [J, P] among the four pixels around each position; infinite without one.

    depth: [J, H, W], 0 unknown. pixels: [J, P, 2].
    """
    height, width = depth.shape[-2:]
    known = torch.where(depth > 0, depth, torch.inf).flatten(1)  # [J, H W]
    corner = (pixels - 0.5).nan_to_num(0).clamp(-1, max(height, width)).floor().long()  # top-left of the four
    nearest = torch.full_like(pixels[..., 0], torch.inf)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x = (corner[..., 0] + dx).clamp(0, width - 1)
        y = (corner[..., 1] + dy).clamp(0, height - 1)
        nearest = torch.minimum(nearest, known.gather(1, y * width + x).to(nearest.dtype))
    return nearest


def fill_nearest(image: Tensor, known: Tensor) -> Tensor:
    """An image [C, H, W] whose unknown pixels take the colour of the nearest known one; known: [H, W] bool.

    Unchanged where nothing is known.
    """
    if not known.any() or known.all():
        return image
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    _, indices = distance_transform_edt(~known.cpu().numpy(), return_indices=True)
    rows, columns = torch.from_numpy(np.asarray(indices)).long().to(image.device)
    return image[:, rows, columns]
