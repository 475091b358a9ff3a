"""Planes, sweeps, warps and compositing, against the original's (specs/mask_volume 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geometry.cameras import Cameras
from geometry.plane_render import Backend, composite_planes, sweep_photos
from geometry.planes import (
    map_pixels,
    plane_depths,
    plane_homographies,
    plane_weights,
    sweep_homographies,
    warp_planes,
)
from tests.parity.cases import Case

_BACKENDS: tuple[Backend, ...] = ("twin", "compiled")
_ULPS = 3e-7  # what float32 keeps of a grid coordinate near the image's middle, which is a difference from 1


def cameras(K: Tensor, w2c: Tensor, height: int, width: int) -> Cameras:
    """Cameras of recorded matrices, inverted in float64."""
    return Cameras(K.double(), torch.linalg.inv(w2c.double()), height, width)


def at_origin(K: Tensor, height: int, width: int) -> Cameras:
    """Cameras whose own axes are the world's."""
    return Cameras(K.double(), torch.eye(4, dtype=torch.float64).expand(*K.shape[:-2], 4, 4), height, width)


def grid(pixels: Tensor, height: int, width: int) -> Tensor:
    """Pixel coordinates [..., 2] as `grid_sample` takes them."""
    return pixels / torch.tensor([width, height]).to(pixels) * 2 - 1


def close_grid(actual: Tensor, ahead: Tensor, case: Case, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Compare where a recorded grid is near the image and points lie ahead: elsewhere nothing is sampled."""
    recorded = case.tensors["mid.grid"].double()
    near = (recorded.abs() < 2) & (ahead > 0)[..., None]
    assert near.any()
    torch.testing.assert_close(actual.double()[near], recorded[near], rtol=rtol, atol=atol)
    assert (actual[~near & (ahead > 0)[..., None]].abs() > 1.99).all()


def check_depths(case: Case) -> None:
    count, near, far = case.config["num_depths"], case.input("min_depth"), case.input("max_depth")
    case.close("batched", plane_depths(near, far, count).T, rtol=1e-6)
    case.close("single", plane_depths(near[1], far[1], count), rtol=1e-6)
    case.close("default_1_100", plane_depths(1.0, 100.0, count), rtol=1e-6)


def check_sweep(case: Case) -> None:
    height, width = case.config["H"], case.config["W"]
    depths = case.input("depths").T.double()  # [views, planes]: every view may have its own
    views = len(depths)
    sources = cameras(case.input("src_K"), case.input("src_w2c"), height, width)
    reference = cameras(case.input("ref_K"), case.input("ref_w2c"), height, width).reshape(1)
    reference = reference[torch.zeros(views, dtype=torch.long)]
    one_each = sources.reshape(views, 1)
    maps = sweep_homographies(reference, one_each, depths)[:, 0]
    pixels, ahead = map_pixels(maps, height, width)
    close_grid(
        grid(pixels, height, width).transpose(0, 1), ahead.transpose(0, 1), case, rtol=1e-4, atol=_ULPS
    )
    relative = (sources.w2c @ reference.c2w).float()
    torch.testing.assert_close(relative, case.tensors["mid.rel"], rtol=1e-4, atol=1e-5)
    for backend in _BACKENDS:
        volume = sweep_photos(
            case.input("images")[:, None], one_each, reference, depths, "original", backend=backend
        )
        case.close("psv", volume[:, 0], atol=2e-4)


def check_single_depth(case: Case) -> None:
    """A sweep of one plane, black where it is out of view. The original mirrors what lies behind."""
    height, width = case.config["H"], case.config["W"]
    depth = case.input("depth")[:, None].double()
    source = cameras(case.input("src_K"), case.input("rel"), height, width).reshape(-1, 1)
    target = at_origin(case.input("tgt_K"), height, width)
    pixels, ahead = map_pixels(sweep_homographies(target, source, depth)[:, 0, 0], height, width)
    close_grid(grid(pixels, height, width), ahead, case, atol=2e-4)
    seen = (ahead > 0)[:, None]
    for backend in _BACKENDS:
        darker = case.input("images")[:, None] - 1
        warped = sweep_photos(darker, source, target, depth, "original", backend=backend)[:, 0, :, 0] + 1
        assert (warped * ~seen).abs().max() < 1e-6
        case.close("warped", torch.where(seen, warped, case.output("warped")), atol=2e-4)


def _homographies(case: Case, height: int = 8, width: int = 8) -> Tensor:
    """[B, 1, D, 3, 3] from the target's pixels to the planes'."""
    reference = at_origin(case.input("k_s"), height, width)
    target = cameras(case.input("k_t"), case.input("rel"), height, width).reshape(-1, 1)
    return plane_homographies(reference, target, case.input("depths").T.double())


def check_homography(case: Case) -> None:
    case.close("homography", _homographies(case)[:, 0].transpose(0, 1), rtol=1e-4)


def check_warp(case: Case) -> None:
    height, width = case.config["H"], case.config["W"]
    maps = _homographies(case, height, width)
    pixels, ahead = map_pixels(maps[:, 0], height, width)
    ahead = ahead.transpose(0, 1)
    close_grid(grid(pixels, height, width).transpose(0, 1), ahead, case, atol=1e-4)
    layers = case.input("layers").transpose(0, 1)
    warped = warp_planes(layers, maps, height, width)[:, 0]
    seen = (ahead > 0)[..., None]  # a plane behind the camera is seen by nobody; the original mirrors it
    for made in (warped, one_by_one(layers, maps, height, width)):
        assert (made.transpose(0, 1) * ~seen == 0).all()
        case.close("warped", torch.where(seen, made.transpose(0, 1), case.output("warped")), atol=3e-4)


def one_by_one(layers: Tensor, maps: Tensor, height: int, width: int) -> Tensor:
    """Layers [B, D, H, W, 4 k] warped by the compiled renderer: k images of one plane, for each of them."""
    found = []
    for part in layers.split(4, -1):
        single = part.flatten(0, 1)[:, None]
        flat = maps.transpose(1, 2).flatten(0, 1)[:, :, None]  # [B D, 1, 1, 3, 3]
        rows = torch.zeros_like(flat[..., 0])
        seen = composite_planes(single, flat, rows, height, width, premultiplied=True, backend="compiled")
        found.append(torch.cat([seen.color, seen.alpha], 2)[:, 0].permute(0, 2, 3, 1))
    return torch.cat(found, -1).unflatten(0, layers.shape[:2])


def check_composite(case: Case) -> None:
    layers = case.input("rgba").transpose(0, 1)  # [B, D, H, W, 4]
    batch, planes, height, width = layers.shape[:4]
    disparity = case.input("disparity").T
    weights = plane_weights(layers[..., 3])
    torch.testing.assert_close(weights.transpose(0, 1), case.tensors["mid.weights"], rtol=0, atol=1e-6)
    case.close("acc_rendering", (weights[..., None] * layers[..., :3]).transpose(0, 1), atol=1e-6)
    still = torch.eye(3, dtype=torch.float64).expand(batch, 1, planes, 3, 3)
    rows = torch.zeros(batch, 1, planes, 3, dtype=torch.float64)
    rows[..., 2] = disparity[:, None]
    for backend in _BACKENDS:
        given = layers.double() if backend == "twin" else layers  # the twin's positions are the layers' type
        seen = composite_planes(given, still, rows, height, width, backend=backend)
        case.close("rendering", seen.color[:, 0].permute(0, 2, 3, 1), atol=1e-6)
        case.close("acc_alpha", seen.alpha[:, 0, 0], atol=1e-6)
        case.close("disparity_map", seen.disparity[:, 0, 0], atol=1e-6)


CHECKS: dict[str, Callable[[Case], None]] = {
    "depth_planes": check_depths,
    "psv_warp": check_sweep,
    "single_depth_warp": check_single_depth,
    "inverse_homography": check_homography,
    "mpi_warp": check_warp,
    "over_composite": check_composite,
}
