"""Planes that face a camera: where they lie, how they map between cameras, how they add up."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geometry.cameras import Cameras, pinhole
from geometry.planes import (
    OUT_OF_VIEW,
    Composite,
    PlaneImage,
    Sampling,
    composite,
    disparity_rows,
    in_front,
    in_view,
    map_pixels,
    plane_depths,
    plane_homographies,
    plane_weights,
    shining_through,
    sweep,
    sweep_homographies,
    warp_planes,
)

DEPTHS = plane_depths(torch.tensor(2.0, dtype=torch.float64), 20.0, 4)
SMALL = st.floats(-0.3, 0.3)


def camera(height: int, width: int, turn: tuple[float, ...], position: tuple[float, ...]) -> Cameras:
    """A camera turned by a rotation vector; unequal focal lengths, principal point off the middle."""
    x, y, z = turn
    skew = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.linalg.matrix_exp(skew)
    pose[:3, 3] = torch.tensor(position, dtype=torch.float64)
    made = pinhole(1.2 * width, height, width, pose)
    made.K[1, 1] *= 1.1
    made.K[0, 2] += 0.7
    return made


def at_reference(height: int = 6, width: int = 8) -> Cameras:
    return camera(height, width, (0.0, 0.1, 0.0), (0.2, 0.0, 0.1))


def points_of_pixels(reference: Cameras, depth: float, pixels: Tensor) -> Tensor:
    """World points [P, 3] that a camera sees at pixels [P, 2], at one depth."""
    origins, directions = reference.rays(pixels, unit=False)
    return origins + depth * directions


def sampled(image: Tensor, x: float, y: float) -> Tensor:
    """Channels [C] of an image [C, H, W] at a point, (0, 0) being its first pixel's middle; 0 outside."""
    total = torch.zeros(image.shape[0], dtype=image.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[:, row, column]
    return total


def test_depths_are_even_in_disparity_and_far_first() -> None:
    depths = plane_depths(torch.tensor([1.0, 2.0]), torch.tensor([100.0, 8.0]), 5)
    assert depths.shape == (2, 5)
    torch.testing.assert_close(depths[:, 0], torch.tensor([100.0, 8.0]))
    torch.testing.assert_close(depths[:, -1], torch.tensor([1.0, 2.0]))
    steps = (1 / depths).diff()
    torch.testing.assert_close(steps, steps[:, :1].expand(-1, 4))


@pytest.mark.parametrize(("near", "far", "count"), [(0.0, 1.0, 2), (2.0, 2.0, 2), (1.0, 2.0, 1)])
def test_nonsense_depths_are_refused(near: float, far: float, count: int) -> None:
    with pytest.raises(ValueError, match="at least 2 planes"):
        plane_depths(near, far, count)


@settings(max_examples=30, deadline=None)
@given(turn=st.tuples(SMALL, SMALL, SMALL), position=st.tuples(SMALL, SMALL, SMALL))
def test_homographies_are_projections(turn: tuple[float, ...], position: tuple[float, ...]) -> None:
    reference, other = at_reference(), camera(5, 7, turn, position)
    swept = sweep_homographies(reference, other.reshape(1), DEPTHS)[0]
    back = plane_homographies(reference, other.reshape(1), DEPTHS)[0]
    pixels = torch.rand(9, 2, dtype=torch.float64) * 6
    ones = torch.ones(9, 1, dtype=torch.float64)
    for k, depth in enumerate(DEPTHS.tolist()):
        there, z = other.project(points_of_pixels(reference, depth, pixels))
        mapped = torch.cat([pixels, ones], 1) @ swept[k].T
        torch.testing.assert_close(mapped[:, :2] / mapped[:, 2:], there)
        torch.testing.assert_close(mapped[:, 2] * depth, z)
        returned = torch.cat([there, ones], 1) @ back[k].T
        torch.testing.assert_close(returned[:, :2] / returned[:, 2:], pixels)
        torch.testing.assert_close(returned[:, 2] * z, torch.full_like(z, depth))


def test_disparity_is_that_of_the_plane_as_the_target_sees_it() -> None:
    reference, other = at_reference(), camera(5, 7, (0.1, -0.2, 0.05), (0.3, 0.1, 0.5))
    maps = plane_homographies(reference, other.reshape(1), DEPTHS)
    rows = disparity_rows(maps, DEPTHS)[0]
    pixels = torch.rand(9, 2, dtype=torch.float64) * 6
    for k, depth in enumerate(DEPTHS.tolist()):
        there, z = other.project(points_of_pixels(reference, depth, pixels))
        seen = torch.cat([there, torch.ones(9, 1, dtype=torch.float64)], 1) @ rows[k]
        torch.testing.assert_close(seen, 1 / z)


def test_planes_behind_a_camera_are_not_seen() -> None:
    """A camera that went past the nearest two planes sees the other two, and not mirror images."""
    reference = pinhole(8.0, 6, 8)
    pose = torch.eye(4, dtype=torch.float64)
    pose[2, 3] = 4.0
    maps = plane_homographies(reference, pinhole(8.0, 6, 8, pose).reshape(1), DEPTHS)
    _, ahead = map_pixels(maps[0], 6, 8)
    assert [bool((part > 0).all()) for part in ahead] == [bool(depth > 4) for depth in DEPTHS]
    warped = warp_planes(torch.ones(1, 4, 6, 8, 4, dtype=torch.float64), maps[None], 6, 8, backdrop=True)
    assert warped[0, 0].sum((1, 2, 3)).tolist() == pytest.approx([192, 192, 0, 0])


@pytest.mark.parametrize("sampling", ["consistent", "original"])
def test_a_sweep_is_what_every_pixel_projects_to(sampling: Sampling) -> None:
    reference, source = at_reference(), camera(5, 7, (0.02, -0.1, 0.2), (0.1, -0.1, 0.0))
    photo = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    volume = sweep(photo[None], source.reshape(1), reference, DEPTHS, sampling)
    assert volume.shape == (1, 3, 4, 6, 8)
    reach = in_view(source.reshape(1), reference, DEPTHS)[0]
    assert 0.3 < reach.double().mean() < 1
    assert (volume[0].amin(0)[reach] > OUT_OF_VIEW).all()
    pixels = reference.pixel_centers().view(-1, 2)
    for k, depth in enumerate(DEPTHS.tolist()):
        there, _ = source.project(points_of_pixels(reference, depth, pixels))
        if sampling == "consistent":
            there = there - 0.5
        else:
            there = there * torch.tensor([6 / 7, 4 / 5], dtype=torch.float64)
        expected = [sampled(photo + 1, *point) - 1 for point in there.tolist()]
        torch.testing.assert_close(volume[0, :, k], torch.stack(expected, 1).view(3, 6, 8))


def test_a_sweep_of_the_reference_itself_is_the_photo() -> None:
    reference = at_reference()
    photo = torch.rand(2, 3, 6, 8, dtype=torch.float64)
    cameras = reference.with_poses(reference.c2w.expand(2, 4, 4))
    volume = sweep(photo, cameras, reference, DEPTHS)
    torch.testing.assert_close(volume, photo[:, :, None].expand(-1, -1, 4, -1, -1))
    original = sweep(photo, cameras, reference, DEPTHS, "original")
    assert (original - volume).abs().max() > 0.01


def test_beyond_a_photo_lie_its_edges_where_asked() -> None:
    reference, source = at_reference(), camera(5, 7, (0.02, -0.1, 0.2), (0.1, -0.1, 0.0)).reshape(1)
    photo = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    flagged = sweep(photo, source, reference, DEPTHS)
    edged = sweep(photo, source, reference, DEPTHS, beyond="edge")
    assert flagged.min() < -0.5
    assert edged.min() >= photo.min() - 1e-9
    inside = (flagged > 0).all(1) & (sweep(photo * 0, source, reference, DEPTHS) == 0).all(1)
    assert inside.any()
    torch.testing.assert_close(edged.movedim(1, -1)[inside], flagged.movedim(1, -1)[inside])


@pytest.mark.parametrize("backdrop", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (4, 13)])
def test_a_composite_is_what_every_pixel_sees(backdrop: bool, size: tuple[int, int]) -> None:
    """Marched pixel by pixel, for a view of any size, turned and moved."""
    height, width = size
    reference, target = at_reference(), camera(height, width, (0.05, -0.1, 0.3), (0.3, 0.2, 0.4))
    layers = torch.rand(1, 4, 6, 8, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    maps = plane_homographies(reference, target.reshape(1), DEPTHS)
    made = composite(layers, maps[None], disparity_rows(maps, DEPTHS)[None], height, width, backdrop=backdrop)
    assert made.color.shape == (1, 1, 3, height, width)
    for row in range(height):
        for column in range(width):
            pixel = torch.tensor([[column + 0.5, row + 0.5]], dtype=torch.float64)
            origin, direction = target.rays(pixel, unit=False)
            through, expected = 1.0, torch.zeros(5, dtype=torch.float64)
            for k in (3, 2, 1, 0):
                local = reference.w2c[:3, :3] @ direction[0]
                start = reference.w2c[:3] @ torch.cat([origin[0], torch.ones(1)])
                z = (DEPTHS[k] - start[2]) / local[2]
                (spot,), _ = reference.project(origin + z * direction)
                x, y = (spot - 0.5).tolist()
                if backdrop and k == 0:
                    x, y = min(max(x, 0.0), 7.0), min(max(y, 0.0), 5.0)
                texel = sampled(layers[0, k].movedim(-1, 0), x, y)
                weight = through * texel[3]
                expected += weight * torch.cat([texel[:3], torch.stack([torch.ones(()), 1 / z])])
                through *= 1 - texel[3] + 1e-8
            seen = [part[0, 0, :, row, column] for part in (made.color, made.alpha, made.disparity)]
            torch.testing.assert_close(torch.cat(seen), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.floats(-3.2, 3.2)] * 3),
    st.tuples(*[st.floats(-3.0, 3.0)] * 2, st.floats(-3.0, 12.0)),
)
def test_a_plane_is_in_front_where_any_pixel_sees_it(
    turn: tuple[float, ...], position: tuple[float, ...]
) -> None:
    target, depths = camera(5, 7, turn, position), torch.tensor([9.0, 3.0, 1.0]).double()
    maps = plane_homographies(at_reference(), target[None], depths)[0]
    ahead = map_pixels(maps, 5, 7)[1] > 0
    assert torch.equal(in_front(maps, 5, 7), ahead.flatten(1).any(1))


def test_depth_is_one_over_the_mean_disparity() -> None:
    alpha = torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
    made = Composite(
        torch.zeros(3, 3, 1, 1), alpha, alpha * torch.tensor([0.0, 0.25, 0.5]).reshape(3, 1, 1, 1)
    )
    torch.testing.assert_close(made.depth.flatten(), torch.tensor([0.0, 4.0, 2.0]))


def test_premultiplied_colours_are_straight_ones_where_alpha_is_even() -> None:
    layers = torch.rand(1, 4, 6, 8, 4, dtype=torch.float64)
    layers[..., 3] = torch.tensor([1.0, 0.5, 0.3, 1.0], dtype=torch.float64)[:, None, None]
    layers[0, 3, :, 4:] = 0  # what is not there has no colour
    maps = torch.eye(3, dtype=torch.float64).expand(1, 1, 4, 3, 3)
    rows = disparity_rows(maps, DEPTHS)
    multiplied = torch.cat([layers[..., :3] * layers[..., 3:], layers[..., 3:]], -1)
    straight = composite(layers, maps, rows, 6, 8)
    made = composite(multiplied, maps, rows, 6, 8, premultiplied=True)
    assert straight.color.min() > 0
    for name in ("color", "alpha", "disparity"):
        torch.testing.assert_close(getattr(made, name), getattr(straight, name))


def test_premultiplied_edges_have_no_dark_fringe() -> None:
    """Half a pixel aside, the edge of a white cutout on a white plane stays white only when premultiplied."""
    layers = torch.ones(1, 2, 4, 6, 4, dtype=torch.float64)
    layers[0, 1, :, :3] = 0
    maps = torch.eye(3, dtype=torch.float64).repeat(1, 1, 2, 1, 1)
    maps[..., 1, 0, 2] = 0.5
    rows = maps[..., 2, :]
    premultiplied = composite(layers, maps, rows, 4, 6, premultiplied=True).color
    straight = composite(layers, maps, rows, 4, 6).color
    torch.testing.assert_close(premultiplied[..., :5], torch.ones_like(premultiplied[..., :5]))
    assert straight[..., :5].min() < 0.8


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 6))
def test_weights_add_up_to_what_does_not_shine_through(seed: int, count: int) -> None:
    alpha = torch.rand(count, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights, through = plane_weights(alpha), shining_through(alpha)
    assert (through[-1] == 1).all()
    rest = through[0] * (1 - alpha[0])
    torch.testing.assert_close(
        weights.sum(0) + rest, torch.ones(3, 4, dtype=torch.float64), rtol=0, atol=1e-6
    )
    alpha[-1] = 1
    torch.testing.assert_close(plane_weights(alpha).sum(0), torch.ones(3, 4, dtype=torch.float64))


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        PlaneImage(torch.zeros(4, 6, 9, 4), DEPTHS, pinhole(8.0, 6, 8))
    with pytest.raises(ValueError, match="do not fit"):
        PlaneImage(torch.zeros(3, 6, 8, 4), DEPTHS, pinhole(8.0, 6, 8))
    image = PlaneImage(torch.zeros(4, 6, 8, 4), DEPTHS, pinhole(8.0, 6, 8), premultiplied=True)
    moved = image.to(torch.float32)
    assert moved.depths.dtype == moved.camera.K.dtype == torch.float32
    assert moved.premultiplied
