"""mask_volume's promises: plates are encoded once, everything has its line, depth and poses are right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from engine.config import TrainingConfig
from geometry.cameras import Cameras, pinhole
from geometry.plane_files import read_mpi
from geometry.planes import PlaneImage, plane_depths
from geometry.poses import pose, rotation_y
from geometry.views import Views
from methods.mask_volume.config import MaskVolumeConfig, RenderConfig
from methods.mask_volume.data import FAR_FACTOR, NEAR_FACTOR
from methods.mask_volume.losses import LossConfig
from methods.mask_volume.method import MaskVolume, PlanesState
from methods.mask_volume.model import PlaneModel
from tests.methods.mask_volume.tiny import AS_PUBLISHED, rig_views, tiny_config, tiny_method, write_original


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The photos of every sweep that is made."""
    seen: list[Tensor] = []
    sweep = PlaneModel.sweep

    def counted(self: PlaneModel, images: Tensor, *rest: Any) -> Any:
        seen.append(images)
        return sweep(self, images, *rest)

    monkeypatch.setattr(PlaneModel, "sweep", counted)
    return seen


def render(method: MaskVolume, views: Views, reuse: PlanesState | None = None) -> Tensor:
    return method.render(method.encode(views[:2], reuse), views.cameras[2:]).image


# Plates

SAME = {"rtol": 0.0, "atol": 1e-5}


def test_plates_are_encoded_once_per_clip(sweeps: list[Tensor]) -> None:
    """Moment by moment, as videos and evaluations do it (`reuses_moments`)."""
    method = tiny_method()
    assert method.reuses_moments
    state, images = None, []
    moments = [rig_views(3, moment) for moment in range(3)]
    for views in moments:
        state = method.encode(views[:2], state)
        images.append(method.render(state, views.cameras[2:]).image)
    plates = moments[0].background
    assert plates is not None
    assert sum(torch.equal(seen[0], plates[:2]) for seen in sweeps) == 1
    assert len(sweeps) == 4
    for views, image in zip(moments, images, strict=True):
        torch.testing.assert_close(render(method, views), image, **SAME)
    assert (images[0] - images[1]).abs().max() > 1e-3


def changed(views: Views, what: str) -> Views:
    """The views of another clip."""
    assert views.background is not None
    assert views.bounds is not None
    if what == "plates":
        return replace(views, background=1 - views.background)
    if what == "bounds":
        return replace(views, bounds=2 * views.bounds)
    cameras = views.cameras
    if what == "lens":
        focal = torch.diag(torch.tensor([1.1, 1.1, 1.0], dtype=torch.float64))
        return replace(views, cameras=replace(cameras, K=focal @ cameras.K))
    c2w = cameras.c2w.clone()
    c2w[1, 0, 3] += 0.1
    return replace(views, cameras=replace(cameras, c2w=c2w))


@pytest.mark.parametrize("what", ["plates", "bounds", "lens", "position", "number"])
def test_another_clips_plates_are_not_kept(what: str) -> None:
    method, views = tiny_method(), rig_views(3)
    state = method.encode(views[:2])
    other = rig_views(3, size=(16, 30)) if what == "number" else changed(views, what)
    torch.testing.assert_close(render(method, other, state), render(method, other), **SAME)
    if what != "number":
        assert (render(method, other, state) - render(method, views, state)).abs().max() > 1e-4


@pytest.mark.parametrize("stage", ["mpi", "mask"])
def test_plain_networks_make_the_same_views(stage: str, sweeps: list[Tensor]) -> None:
    config = tiny_config(stage, margin=0.1)
    fast, plain = (
        tiny_method(config),
        tiny_method(replace(config, render=RenderConfig("float32", "twin", True))),
    )
    fast.prepare_inference()
    plain.prepare_inference()
    views = rig_views(3)
    state = plain.encode(views[:2])
    torch.testing.assert_close(render(plain, views, state), render(fast, views), rtol=0, atol=1e-4)
    # plain: plates are swept every time
    assert len(sweeps) == (3 if stage == "mpi" else 6)


def test_stage_one_needs_no_plates() -> None:
    views = replace(rig_views(3), background=None)
    assert render(tiny_method(tiny_config("mpi")), views).shape == (1, 3, 18, 26)


# What it is given


def test_bad_sources_are_one_line() -> None:
    views = rig_views(3)
    with pytest.raises(UserError, match=r"3 source views are given, the model takes 2"):
        tiny_method().encode(views)
    with pytest.raises(UserError, match=r"no plates .*scripts/rig\.py background.*--background"):
        tiny_method().encode(replace(views[:2], background=None))


def test_planes_stand_within_the_bounds_or_the_settings() -> None:
    method = tiny_method(tiny_config(near=3.0, far=30.0))
    views = rig_views(2)
    assert views.bounds is not None
    planes = method.encode(views).planes
    near, far = float(views.bounds[:, 0].min()), float(views.bounds[:, 1].max())
    torch.testing.assert_close(
        planes.depths[[0, -1]], torch.tensor([FAR_FACTOR * far, NEAR_FACTOR * near]).double()
    )
    planes = method.encode(replace(views, bounds=None)).planes
    torch.testing.assert_close(planes.depths[[0, -1]], torch.tensor([30.0, 3.0]).double())
    steps = (1 / planes.depths).diff()
    torch.testing.assert_close(steps, steps[:1].expand(3))


def test_the_first_source_is_the_reference() -> None:
    method, views = tiny_method(tiny_config("mpi")), rig_views(3)
    for order in ([0, 1], [1, 0]):
        camera = method.encode(views[torch.tensor(order)]).planes.camera
        torch.testing.assert_close(camera.c2w, views.cameras.c2w[order[0]])
        torch.testing.assert_close(camera.K, views.cameras.K[order[0]])


@pytest.mark.parametrize("stage", ["mpi", "mask"])
def test_single_precision_cameras_are_as_good(stage: str) -> None:
    method, views = tiny_method(tiny_config(stage)), rig_views(3)
    assert views.cameras.K.dtype == torch.float64
    single = replace(views, cameras=views.cameras.to(torch.float32))
    torch.testing.assert_close(render(method, single), render(method, views), rtol=0, atol=1e-3)
    state = method.encode(views[:2])
    torch.testing.assert_close(render(method, single, state), render(method, single), **SAME)


def test_targets_of_any_number_and_size() -> None:
    method, views = tiny_method(), rig_views(3)
    state = method.encode(views[:2])
    cameras = views.cameras.resize(11, 15)
    together = method.render(state, cameras)
    assert together.image.shape == (3, 3, 11, 15)
    assert together.depth is not None
    assert together.opacity is not None
    assert together.depth.shape == together.opacity.shape == (3, 1, 11, 15)
    alone = torch.cat([method.render(state, cameras[i : i + 1]).image for i in range(3)])
    torch.testing.assert_close(together.image, alone)
    assert 0 <= together.image.min() < together.image.max() <= 1


# Depth, and cameras that see nothing


def wall(alpha: float = 1.0, backdrop: bool = False) -> PlanesState:
    """White planes at 8, 4, 8/3 and 2, of which the one at 4 alone is opaque; with a backdrop, the first."""
    depths = plane_depths(2.0, 8.0, 4).double()
    layers = torch.ones(4, 20, 30, 4)
    layers[..., 3] = 0
    layers[1, ..., 3] = alpha
    if backdrop:
        layers[0, ..., 3] = 1
    return PlanesState(PlaneImage(layers, depths, pinhole(25.0, 20, 30), backdrop=backdrop))


def viewer(rotation: Tensor | None = None, **position: float) -> Cameras:
    center = torch.tensor([position.get(axis, 0.0) for axis in "xyz"], dtype=torch.float64)
    turn = torch.eye(3, dtype=torch.float64) if rotation is None else rotation
    return pinhole(40.0, 12, 16, pose(turn, center))[None]


def depth(state: PlanesState, cameras: Cameras) -> Tensor:
    found = tiny_method(tiny_config("mpi")).render(state, cameras).depth
    assert found is not None
    return found


def test_depth_is_that_of_the_plane_for_whoever_looks() -> None:
    middle = (..., slice(3, -3), slice(3, -3))
    for cameras, expected in ((viewer(), 4.0), (viewer(x=0.2, z=1.0), 3.0), (viewer(y=0.2, z=-1.0), 5.0)):
        seen = depth(wall(), cameras)[middle]
        torch.testing.assert_close(seen, torch.full_like(seen, expected))
    turned = viewer(rotation_y(torch.tensor(0.2).double()), z=0.5)
    seen = depth(wall(), turned).double()
    assert seen.std() > 0.05
    points = turned.unproject(seen[:, 0])[(..., slice(3, -3), slice(3, -3), slice(None))]
    torch.testing.assert_close(points[..., 2], torch.full_like(points[..., 2], 4.0), rtol=1e-4, atol=0)


def test_depth_of_a_mixture_lies_between_and_of_nothing_is_zero() -> None:
    seen = depth(wall(0.5, backdrop=True), viewer())
    torch.testing.assert_close(seen, torch.full_like(seen, 1 / (0.5 / 4 + 0.5 / 8)))
    assert not depth(wall(0.0), viewer()).any()


def test_cameras_behind_every_plane_are_refused_by_number_and_place() -> None:
    method = tiny_method(tiny_config("mpi"))
    for z in (-3.0, 0.0, 5.0, 7.9):  # some planes are still before the camera
        method.render(wall(), viewer(z=z))
    cameras = viewer(z=9.5)
    path = replace(
        cameras, K=cameras.K.expand(3, 3, 3), c2w=torch.cat([viewer().c2w, cameras.c2w, cameras.c2w])
    )
    message = r"all 4 planes lie behind target camera 1 of 3: it stands at depth 9\.5 .* from 2 to 8: move"
    with pytest.raises(UserError, match=message):
        method.render(wall(), path)
    back = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    with pytest.raises(UserError, match=r"turn it towards the scene"):
        method.render(wall(), viewer(back))


def test_a_camera_that_sees_a_corner_of_a_plane_is_not_refused() -> None:
    sideways = rotation_y(torch.tensor(torch.pi / 2 - 0.05).double())
    tiny_method(tiny_config("mpi")).render(wall(), viewer(sideways))


# Types, files


@pytest.mark.parametrize("stage", ["mpi", "mask"])
def test_half_precision_makes_nearly_the_same_views(stage: str) -> None:
    config = tiny_config(stage)
    exact = tiny_method(config)
    half = tiny_method(replace(config, render=RenderConfig("bfloat16", "twin")))
    half.prepare_inference()
    views = rig_views(3)
    made, state = render(exact, views), half.encode(views[:2])
    assert state.planes.layers.dtype == torch.float32
    again = half.render(half.encode(views[:2], state), views.cameras[2:]).image
    assert again.dtype == torch.float32
    assert (again - made).abs().mean() < 0.02
    assert not torch.equal(again, made)


def test_planes_are_written_and_shown_again(tmp_path: Path) -> None:
    method, views = tiny_method(tiny_config("mask", margin=0.25, page=("html", "llff"))), rig_views(3)
    views = replace(views, cameras=replace(views.cameras, K=views.cameras.K[:1].expand(3, 3, 3)))
    state = method.encode(views[:2])
    files = method.write_sources(state, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "planes.html",
        "mpi/metadata.txt",
        "mpi/mpi.b",
    ]
    assert all(file.is_file() for file in files)
    shown = tiny_method(tiny_config(stored=str(tmp_path / "mpi")))
    assert not MaskVolume.needs_weights(shown.config)
    stored = shown.encode(views[:2])
    torch.testing.assert_close(stored.planes.depths, read_mpi(tmp_path / "mpi").depths)
    image = shown.render(stored, stored.planes.camera[None]).image
    expected = method.render(state, state.planes.camera[None]).image
    assert (image - expected).abs().mean() < 0.01
    assert tiny_method(tiny_config(page=())).write_sources(state, tmp_path / "none") == []


# Stages


def test_losses_of_the_mask_are_for_stage_two() -> None:
    with pytest.raises(UserError, match=r"full_loss needs a mask volume: it is for stage mask"):
        MaskVolume.create(tiny_config("mpi", loss=LossConfig("full_loss")))


def test_only_the_mask_network_is_trained_in_stage_two() -> None:
    first, second = tiny_method(tiny_config("mpi")), tiny_method()
    assert all(p.requires_grad for p in first.parameters())
    trained = {name for name, p in second.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("model.mask_net.") for name in trained)
    groups = second.optimization(TrainingConfig()).optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(trained)


def test_a_mask_network_without_weights_is_not_shown(tmp_path: Path) -> None:
    """Training may begin with a first network alone; a video must not."""
    file = write_original(tiny_method(tiny_config("mpi")), tmp_path / "stage1.ckpt")
    method = tiny_method(tiny_config(**AS_PUBLISHED))
    weights = method.load_original(file)
    assert weights is not None
    assert weights.keys() == method.state_dict().keys()
    with pytest.raises(UserError, match=r"stage mpi .* no mask network.*model\.stage=mpi"):
        method.prepare_inference()
    both = write_original(method, tmp_path / "both" / "stage2.ckpt")
    assert method.load_original(both) is not None
    method.prepare_inference()


def test_an_original_tells_what_it_is(tmp_path: Path) -> None:
    made = tiny_method(tiny_config(views=3))
    file = write_original(made, tmp_path / "weights.ckpt")
    found = MaskVolume.from_original(file)
    assert found is not None
    config: MaskVolumeConfig = found.config
    assert (config.stage, config.views, config.width, config.as_published) == ("mask", 3, 2, True)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), made.parameters(), strict=True))
