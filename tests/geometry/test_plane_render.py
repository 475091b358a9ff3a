"""Fast renderers of planes: every backend is the readable twin, in what it makes and in its gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.errors import UserError
from geometry import planes as twins
from geometry.cameras import Cameras, pinhole
from geometry.plane_render import composite_planes, render_planes, sweep_photos
from geometry.planes import Beyond, Composite, PlaneImage, Sampling, plane_depths

HEIGHT, WIDTH, PLANES = 14, 36, 6


def turned(angles: tuple[float, float, float], position: tuple[float, float, float]) -> Tensor:
    """Camera-to-world of a camera turned about x, y and z (radians)."""
    pose = torch.eye(4, dtype=torch.float64)
    for axis, angle in enumerate(angles):
        turn = torch.zeros(3, 3, dtype=torch.float64)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, j], turn[j, i] = -angle, angle
        pose[:3, :3] = pose[:3, :3] @ torch.linalg.matrix_exp(turn)
    pose[:3, 3] = torch.tensor(position, dtype=torch.float64)
    return pose


# Planes lie at depths 2 to 20. The same place, aside and turned, before the nearest planes and close to one,
# turned so far that the planes' horizons are in view, out of sight.
POSES = [
    torch.eye(4, dtype=torch.float64),
    turned((0.05, -0.1, 0.2), (0.3, -0.2, -0.4)),
    turned((0.0, 0.02, 0.0), (0.1, 0.0, 3.0)),
    turned((0.4, 1.35, 0.3), (0.0, 0.0, 0.0)),
    turned((0.0, 0.0, 0.0), (500.0, 0.0, 0.0)),
    turned((0.0, 3.1, 0.0), (0.0, 0.0, 0.0)),
]


def targets(height: int = HEIGHT, width: int = WIDTH, focal: float = 30.0) -> Cameras:
    return pinhole(focal, height, width).with_poses(torch.stack(POSES))


def planes(batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32, **flags: bool) -> PlaneImage:
    generator = torch.Generator().manual_seed(3)
    layers = torch.rand(*batch, PLANES, HEIGHT, WIDTH, 4, generator=generator, dtype=torch.float64)
    layers[..., 3] *= 0.7
    layers[..., 2:4, 2:9, 3] = 1  # opaque
    camera = pinhole(30.0, HEIGHT, WIDTH).with_poses(torch.eye(4, dtype=torch.float64).expand(*batch, 4, 4))
    depths = plane_depths(2.0, 20.0, PLANES).expand(*batch, -1)
    return PlaneImage(layers.to(dtype), depths, camera, **flags)


def assert_close(ours: Composite, other: Composite, tolerance: float) -> None:
    for name in ("color", "alpha", "disparity"):
        made, wanted = getattr(ours, name), getattr(other, name)
        assert made.shape == wanted.shape
        torch.testing.assert_close(made, wanted, rtol=0, atol=tolerance, check_dtype=False)


@pytest.mark.parametrize("premultiplied", [False, True])
@pytest.mark.parametrize("backdrop", [False, True])
@pytest.mark.parametrize(("height", "width", "focal"), [(HEIGHT, WIDTH, 30.0), (9, 400, 300.0), (1, 1, 0.5)])
def test_compiled_is_the_twin(
    premultiplied: bool, backdrop: bool, height: int, width: int, focal: float
) -> None:
    image = planes(premultiplied=premultiplied, backdrop=backdrop)
    cameras = targets(height, width, focal)
    ours = render_planes(image, cameras, "compiled")
    assert ours.color.shape == (len(POSES), 3, height, width)
    assert ours.color.dtype == torch.float32
    assert_close(ours, render_planes(image, cameras, "twin"), 1e-5)


@pytest.mark.parametrize("backdrop", [False, True])
def test_compiled_is_the_twin_to_the_last_digits(backdrop: bool) -> None:
    image = planes(dtype=torch.float64, backdrop=backdrop)
    ours, twin = (render_planes(image, targets(), backend) for backend in ("compiled", "twin"))
    assert ours.color.dtype == torch.float64
    assert_close(ours, twin, 1e-11)


def test_several_images_at_once() -> None:
    image = planes(batch=(2,))
    image.layers[1] = image.layers[1].flip(1)
    cameras = pinhole(30.0, HEIGHT, WIDTH).with_poses(torch.stack(POSES).view(2, 3, 4, 4))
    for backend in ("compiled", "twin"):
        made = render_planes(image, cameras, backend)
        assert made.alpha.shape == (2, 3, 1, HEIGHT, WIDTH)
        for i in range(2):
            one = PlaneImage(image.layers[i], image.depths[i], image.camera[i])
            alone = render_planes(one, cameras[i], backend)
            torch.testing.assert_close(made.color[i], alone.color)
            torch.testing.assert_close(made.disparity[i], alone.disparity)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1)])
@pytest.mark.parametrize("backdrop", [False, True])
def test_tiny_planes(shape: tuple[int, int], backdrop: bool) -> None:
    layers = torch.rand(2, *shape, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = PlaneImage(layers, plane_depths(1.0, 9.0, 2), pinhole(2.0, *shape), backdrop=backdrop)
    cameras = pinhole(3.0, 6, 7).with_poses(torch.stack(POSES[:2]))
    ours, twin = (render_planes(image, cameras, backend) for backend in ("compiled", "twin"))
    assert twin.alpha.max() > 0.1
    assert_close(ours, twin, 1e-11)


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.2, 3.2)] * 3),
    position=st.tuples(*[st.floats(-6, 6)] * 3),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_from_anywhere(
    angles: tuple[float, float, float], position: tuple[float, float, float], flags: tuple[bool, bool]
) -> None:
    image = planes(dtype=torch.float64, premultiplied=flags[0], backdrop=flags[1])
    cameras = pinhole(20.0, 7, 40).with_poses(turned(angles, position)[None])
    ours, twin = (render_planes(image, cameras, backend) for backend in ("compiled", "twin"))
    assert_close(ours, twin, 1e-7)


def test_half_precision_is_summed_in_float32() -> None:
    image = planes(dtype=torch.float16)
    wide = PlaneImage(image.layers.float(), image.depths, image.camera)
    ours = render_planes(image, targets(), "compiled")
    assert ours.color.dtype == torch.float32
    assert_close(ours, render_planes(wide, targets(), "compiled"), 1e-6)
    assert_close(render_planes(image, targets(), "twin"), render_planes(wide, targets(), "twin"), 1e-6)


def test_texels_of_bfloat16_are_widened() -> None:
    """By the one operation that reads texels, since a whole renderer takes seconds to compile."""
    from geometry.jit import kernel
    from geometry.plane_compiled import as_texels
    from geometry.plane_texels import sample_pixel

    texels = torch.randn(1, 1, 2, 2, 4, generator=torch.Generator().manual_seed(1)).bfloat16()
    bits, out = as_texels(texels)[0, 0], torch.zeros(4)
    weights = torch.tensor([0.25, 0.75, 0.5, 0.5]).numpy()

    @kernel
    def sample(bits, w, out):
        sample_pixel(bits, 0, 8, w[0], w[1], w[2], w[3], out, 0)

    sample(bits, weights, out.numpy())
    mean = texels[0, 0].float().mean(1)
    torch.testing.assert_close(out, 0.25 * mean[0] + 0.75 * mean[1])


def test_what_opaque_planes_hide_is_not_seen() -> None:
    """Marching stops there; what it misses is less than 1e-7."""
    image = planes()
    image.layers[3, ..., 3] = 1
    behind = image.layers[:3].clone()
    first = render_planes(image, targets()[:2], "compiled")
    twin = render_planes(image, targets()[:2], "twin")
    assert_close(first, twin, 1e-5)
    image.layers[:3] = 1 - behind
    second = render_planes(image, targets()[:1], "compiled")
    assert (second.color[0] - first.color[0]).abs().max() < 1e-7


def gradients(image: PlaneImage, cameras: Cameras, backend: str) -> Tensor:
    """Of a random sum of all outputs."""
    layers = image.layers.detach().clone().requires_grad_()
    again = PlaneImage(layers, image.depths, image.camera, image.premultiplied, image.backdrop)
    made = render_planes(again, cameras, backend)
    generator = torch.Generator().manual_seed(5)
    loss = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum()
        for part in (made.color, made.alpha, made.disparity)
    )
    return torch.autograd.grad(loss, layers)[0]


@pytest.mark.parametrize("premultiplied", [False, True])
@pytest.mark.parametrize("backdrop", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_the_twins(premultiplied: bool, backdrop: bool, dtype: torch.dtype) -> None:
    image = planes((2,), dtype, premultiplied=premultiplied, backdrop=backdrop)
    cameras = pinhole(30.0, 11, 37).with_poses(torch.stack(POSES).view(2, 3, 4, 4))
    ours, twin = (gradients(image, cameras, backend) for backend in ("compiled", "twin"))
    assert ours.dtype == dtype
    assert twin.abs().max() > 1
    tolerance = 2e-5 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(ours, twin, rtol=tolerance, atol=tolerance)


def test_gradient_of_half_precision() -> None:
    image = planes(dtype=torch.float16)
    wide = PlaneImage(image.layers.float(), image.depths, image.camera)
    ours = gradients(image, targets(), "compiled")
    assert ours.dtype == torch.float16
    torch.testing.assert_close(ours, gradients(wide, targets(), "compiled").half(), rtol=0.01, atol=0.01)


def test_gradient_is_the_derivative() -> None:
    layers = torch.rand(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image = PlaneImage(layers[0], plane_depths(1.0, 9.0, 3), pinhole(3.0, 3, 4), backdrop=True)
    maps = twins.plane_homographies(image.camera, targets(3, 3, 3.0)[1:3], image.depths)[None]
    rows = twins.disparity_rows(maps, image.depths)

    def render(values: Tensor) -> tuple[Tensor, ...]:
        made = composite_planes(values, maps, rows, 3, 3, backdrop=True, backend="compiled")
        return made.color, made.alpha, made.disparity

    assert torch.autograd.gradcheck(render, layers.requires_grad_())


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    image, cameras = planes(), targets(50, 36)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append((render_planes(image, cameras).color, gradients(image, cameras, "compiled")))
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_gradients_of_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from geometry import plane_compiled

    at_once = gradients(planes(), targets(), "compiled")
    monkeypatch.setattr(plane_compiled, "_SCRATCH", 3 * PLANES * WIDTH * 16)
    torch.testing.assert_close(gradients(planes(), targets(), "compiled"), at_once, rtol=0, atol=1e-5)


def in_forked_worker(index: int) -> float:
    return float(render_planes(planes(), targets()[:2]).color.sum()) + index


def test_in_forked_workers() -> None:
    """After the parent has rendered, and beside PyTorch's own threads."""
    wanted = float(render_planes(planes(), targets()[:2]).color.sum())
    (torch.rand(64, 64) @ torch.rand(64, 64)).sum()
    loader = torch.utils.data.DataLoader(
        range(2), batch_size=None, num_workers=1, collate_fn=in_forked_worker, multiprocessing_context="fork"
    )
    assert list(loader) == [wanted, wanted + 1]


def test_bad_input_is_refused() -> None:
    image, cameras = planes(), targets()
    with pytest.raises(ValueError, match="cannot be seen from"):
        render_planes(image, cameras[0])
    with pytest.raises(ValueError, match="unknown backend"):
        render_planes(image, cameras, "nothing")
    with pytest.raises(UserError, match="needs a CUDA device"):
        render_planes(image, cameras, "triton")
    with pytest.raises(ValueError, match="layers are"):
        composite_planes(torch.zeros(1, 2, 3, 4, 4).int(), *two_views(), 3, 4)
    with pytest.raises(ValueError, match="layers"):
        composite_planes(torch.zeros(1, 2, 3, 4, 3), *two_views(), 3, 4)


def two_views() -> tuple[Tensor, Tensor]:
    maps = torch.eye(3).expand(1, 2, 2, 3, 3)
    return maps, maps[..., 2, :]


@pytest.mark.parametrize("sampling", ["consistent", "original"])
@pytest.mark.parametrize("beyond", ["flag", "edge"])
@pytest.mark.parametrize("channels", [3, 5])
def test_compiled_sweep_is_the_twin(sampling: Sampling, beyond: Beyond, channels: int) -> None:
    generator = torch.Generator().manual_seed(2)
    photos = torch.rand(2, 3, channels, 10, 33, generator=generator)
    sources = pinhole(25.0, 10, 33).with_poses(torch.stack(POSES).view(2, 3, 4, 4))
    reference = pinhole(30.0, HEIGHT, WIDTH).with_poses(torch.stack(POSES[:2]))
    depths = plane_depths(2.0, 20.0, PLANES).expand(2, -1)
    ours, twin = (
        sweep_photos(photos, sources, reference, depths, sampling, beyond, backend=backend)
        for backend in ("compiled", "twin")
    )
    assert ours.shape == (2, 3, channels, PLANES, HEIGHT, WIDTH)
    torch.testing.assert_close(ours, twin, rtol=0, atol=1e-5)


def test_sweep_with_gradient_is_the_twin() -> None:
    photo = torch.rand(1, 3, 10, 33, requires_grad=True)
    sources = pinhole(25.0, 10, 33).with_poses(torch.stack(POSES[:1]))
    arguments = sources, pinhole(30.0, HEIGHT, WIDTH), plane_depths(2.0, 20.0, PLANES)
    assert sweep_photos(photo, *arguments).requires_grad
    with pytest.raises(UserError, match="gradient"):
        sweep_photos(photo, *arguments, backend="compiled")
