"""Depth from neighbouring views, against exact depth and readable twins."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataloader.toy import make_boxes, make_cameras, render
from geometry.cameras import pinhole
from geometry.stereo.plane_sweep import SweepOptions, inverse_depth_planes, matching_cost, sweep
from geometry.stereo.semi_global import aggregate
from geometry.views import Views

OPTIONS = SweepOptions(planes=64)
SIZE = (60, 80)


def slanted(center: tuple[float, float, float], size: tuple[int, int] = SIZE) -> Views:
    """A view of the textured plane z = 4 + x / 3 with its exact depth, from a camera without rotation."""
    camera = pinhole(80.0 * size[1] / SIZE[1], *size)
    camera.c2w[:3, 3] = torch.tensor(center)
    origin, rays = camera.rays(unit=False)
    depth = (4 + origin[..., 0] / 3 - origin[..., 2]) / (rays[..., 2] - rays[..., 0] / 3)
    x, y, _ = (origin + depth[..., None] * rays).unbind(-1)
    waves = [(3.1, 1.7), (-2.3, 4.1), (6.3, -3.7), (9.1, 7.7)]
    luma = sum(torch.sin(a * x + b * y + a) for a, b in waves) / 10 + 0.5
    return Views(luma.float().expand(3, *size), camera, depth=depth[None].float())


REFERENCE = slanted((0.0, 0.0, 0.0))
PLACES = [(0.8, 0.0, 0.0), (-0.8, 0.1, 0.05), (0.0, -0.8, -0.1), (0.1, 0.8, 0.0)]
SOURCES = [slanted(place) for place in PLACES]


def relative_error(depth: torch.Tensor, view: Views) -> torch.Tensor:
    assert view.depth is not None
    return (depth / view.depth[0] - 1).abs()


def test_a_slanted_plane_is_found_between_the_search_planes() -> None:
    depth = sweep(REFERENCE, SOURCES, 2.5, 7.0, OPTIONS)
    error = relative_error(depth, REFERENCE)
    spacing = (1 / 2.5 - 1 / 7.0) / 63 * 4  # relative distance of two planes at depth 4
    assert error.median() < 0.15 * spacing
    assert error[8:-8, 8:-8].quantile(0.99) < 0.5 * spacing


def test_exposure_does_not_matter() -> None:
    darker = [replace(source, images=0.1 + 0.5 * source.images) for source in SOURCES]
    depth, other = (sweep(REFERENCE, sources, 2.5, 7.0, OPTIONS) for sources in (SOURCES, darker))
    assert relative_error(other, REFERENCE).median() < 0.003
    assert (depth / other - 1).abs().median() < 5e-4


def test_sources_may_be_of_another_size() -> None:
    larger = [slanted(place, size) for place, size in zip(PLACES, [(90, 120), (75, 100)] * 2, strict=True)]
    assert relative_error(sweep(REFERENCE, larger, 2.5, 7.0, OPTIONS), REFERENCE).median() < 0.005


def test_half_a_pixel_would_show() -> None:
    shifted = [replace(s, cameras=s.cameras.crop(0, 1, *SIZE)) for s in SOURCES[:1]]  # cx one pixel off
    assert relative_error(sweep(REFERENCE, shifted, 2.0, 9.0, OPTIONS), REFERENCE).median() > 0.05


def test_depth_in_a_room_with_occlusions() -> None:
    boxes = make_boxes(1, 4)
    views = render(boxes, make_cameras(1, 7, 96, 128, boxes))
    depth = sweep(views[3], [views[i] for i in (1, 2, 4, 5)], 1.0, 7.0, OPTIONS)
    error = relative_error(depth, views[3])
    assert error.median() < 0.015
    assert (error < 0.05).float().mean() > 0.88


def test_cost_is_low_at_the_true_plane_and_one_where_nothing_is_seen() -> None:
    behind = replace(SOURCES[0], cameras=replace(SOURCES[0].cameras))
    behind.cameras.c2w = behind.cameras.c2w.clone()
    behind.cameras.c2w[2, 3] = 100.0
    planes = inverse_depth_planes(2.5, 7.0, 64)
    assert torch.equal(matching_cost(REFERENCE, [behind], planes, OPTIONS), torch.ones(64, *SIZE))
    cost = matching_cost(REFERENCE, [*SOURCES, behind], planes, OPTIONS)
    assert cost.min() >= 0
    assert cost.max() <= 2
    nearest = (planes[:, None, None] - REFERENCE.depth).abs().argmin(0)
    assert cost.gather(0, nearest[None]).median() < 0.05
    # the number of planes worked on at a time changes nothing
    assert torch.equal(cost, matching_cost(REFERENCE, [*SOURCES, behind], planes, replace(OPTIONS, chunk=64)))


@given(near=st.floats(0.01, 10), ratio=st.floats(1.01, 100), count=st.integers(3, 200))
def test_planes_run_from_near_to_far(near: float, ratio: float, count: int) -> None:
    planes = inverse_depth_planes(near, near * ratio, count)
    assert planes[0] == pytest.approx(near)
    assert planes[-1] == pytest.approx(near * ratio)
    steps = (1 / planes).diff()
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=1e-6)


@pytest.mark.parametrize(("near", "far", "count"), [(0, 1, 8), (2, 1, 8), (1, 2, 2), (-1, 1, 8)])
def test_planes_refuse_an_empty_range(near: float, far: float, count: int) -> None:
    with pytest.raises(ValueError, match="near"):
        inverse_depth_planes(near, far, count)


def test_no_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="source"):
        sweep(REFERENCE, [], 1.0, 2.0, OPTIONS)


def slow_aggregate(cost: torch.Tensor, step: float, jump: float) -> torch.Tensor:
    """Equation 13 of Hirschmüller 2008, pixel by pixel."""
    D, H, W = cost.shape
    total = torch.zeros_like(cost)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        path = torch.zeros_like(cost)
        for y in range(H) if dy >= 0 else reversed(range(H)):
            for x in range(W) if dx >= 0 else reversed(range(W)):
                if not (0 <= y - dy < H and 0 <= x - dx < W):
                    path[:, y, x] = cost[:, y, x]
                    continue
                before = path[:, y - dy, x - dx]
                for d in range(D):
                    options = [before[d], before.min() + jump]
                    options += [before[k] + step for k in (d - 1, d + 1) if 0 <= k < D]
                    path[d, y, x] = cost[d, y, x] + min(options) - before.min()
        total += path
    return total / 4


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), step=st.floats(0, 1), more=st.floats(0, 2))
def test_aggregation_equals_its_definition(seed: int, step: float, more: float) -> None:
    cost = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(
        aggregate(cost, step, step + more), slow_aggregate(cost, step, step + more), atol=1e-5
    )
    assert torch.allclose(aggregate(cost, 0, 0), cost, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_depth() -> None:
    cpu = sweep(REFERENCE, SOURCES, 2.5, 7.0, OPTIONS)
    gpu = sweep(REFERENCE.to("cuda"), [s.to("cuda") for s in SOURCES], 2.5, 7.0, replace(OPTIONS, chunk=32))
    assert gpu.is_cuda
    assert ((gpu.cpu() / cpu - 1).abs() < 1e-3).float().mean() > 0.99
