from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.generation import add_view, generate, lift_photo, outpaint_view
from methods.scene_lifting.plan import later_cameras, plan_views
from methods.scene_lifting.seeing import look
from methods.scene_lifting.state import LiftedScene, LiftedView
from tests.methods.scene_lifting.stand_ins import Completer, Painter, photo_camera, photo_image, room


def config(**changes: Any) -> GenerationConfig:
    return GenerationConfig(**{"prompt": "a room", **changes})


def lifted(settings: GenerationConfig) -> LiftedScene:
    return lift_photo(photo_image(), photo_camera(), None, Completer(), settings)


class StoppedError(Exception):
    pass


# The photo


def test_a_photo_becomes_a_point_per_pixel() -> None:
    image, camera = photo_image(), photo_camera()
    scene = lift_photo(image, camera, None, Completer(), config())
    pixels, depth = camera.project(scene.points.double())
    torch.testing.assert_close(pixels.reshape(48, 64, 2), camera.pixel_centers(), rtol=0, atol=1e-3)
    torch.testing.assert_close(depth.float().reshape(48, 64), scene.views[0].depth)
    assert torch.equal(scene.colors, image.permute(1, 2, 0).reshape(-1, 3))
    assert not scene.views[0].known.any()


def test_known_depth_of_a_photo_is_kept_and_its_holes_are_completed() -> None:
    true = torch.linspace(2, 2.3, 64).expand(48, 64)  # without edges that would be snapped
    known = true.clone()
    known[10:30, 20:44] = 0

    def complete(image: Tensor, sparse: Tensor, scale: float) -> Tensor:
        assert torch.equal(sparse, known)
        return 3 * true  # right but for its unit

    depth = lift_photo(photo_image(), photo_camera(), known, complete, config()).views[0].depth
    assert torch.equal(depth[known > 0], known[known > 0])
    torch.testing.assert_close(depth, true, rtol=0.02, atol=0)


def test_a_photo_of_known_depth_needs_no_network() -> None:
    completer = Completer()
    depth = 2 + photo_image().mean(0)
    lift_photo(photo_image(), photo_camera(), depth, completer, config())
    assert completer.calls == 0
    depth[:5] = 0
    scene = lift_photo(photo_image(), photo_camera(), depth, None, config())
    assert len(scene.points) == 43 * 64


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1.0])
def test_a_network_that_gives_no_depth_is_named(bad: float) -> None:
    with pytest.raises(UserError, match="photo: the depth network gave numbers that are no depth"):
        lift_photo(photo_image(), photo_camera(), None, lambda i, s, u: torch.full_like(s, bad), config())


# Views


def test_a_view_brings_only_what_was_unknown() -> None:
    settings = config()
    scene = lifted(settings)
    camera = later_cameras(photo_camera(), settings)[0]
    seen = look(scene, camera, settings)
    grown = add_view(scene, photo_image(seed=1), camera, Completer(), settings)
    assert len(grown.points) - len(scene.points) == int(seen.hole.sum())
    assert torch.equal(grown.points[: len(scene.points)], scene.points)
    assert torch.equal(grown.views[1].known, seen.known)
    assert [view.name for view in grown.views] == ["photo", "view_001"]
    assert len(scene.views) == 1  # the given scene stays as it was


def test_known_colours_are_kept_unless_the_networks_decide() -> None:
    settings = config()
    scene = lifted(settings)
    planned = plan_views(later_cameras(photo_camera(), settings), settings)[0]
    seen = look(scene, planned.camera, settings)
    honoured = outpaint_view(scene, planned, Completer(), Painter(), settings).views[-1].image
    assert torch.equal(honoured[:, ~seen.hole], seen.image[:, ~seen.hole])
    network = outpaint_view(scene, planned, Completer(), Painter(), config(seams="network")).views[-1].image
    expected = 1 - (seen.image * 255).round() / 255  # the stand-in spoils what it should have kept
    torch.testing.assert_close(network[:, ~seen.hole], expected[:, ~seen.hole])
    assert torch.equal(network[:, seen.hole], honoured[:, seen.hole])


def test_nothing_is_painted_where_nothing_is_unknown() -> None:
    settings, painter = config(), Painter()
    scene = lifted(settings)
    here = plan_views(photo_camera().reshape(1), settings)[0]
    grown = outpaint_view(scene, here, Completer(), painter, settings)
    assert painter.asked == []
    assert len(grown.points) == len(scene.points)


def test_an_inpainter_of_another_size_is_refused() -> None:
    settings = config()
    planned = plan_views(later_cameras(photo_camera(), settings), settings)[0]

    def paint(*_: Any) -> np.ndarray:
        return np.zeros((40, 64, 3), np.uint8)

    with pytest.raises(UserError, match="view_001: the inpainter made an image of 64x40 pixels where"):
        outpaint_view(lifted(settings), planned, Completer(), paint, settings)


def seam_and_error(seed: int, seams: str, reach: float = 1e3) -> tuple[float, float, float]:
    """A room's second view, with a network that is off by a smooth factor and an offset.

    Returns the mean |log ratio| to the known depth on known pixels, the median step of the log error at the
    seam, and the mean |log error| beyond it.
    """
    views = room(seed)
    assert views.depth is not None
    settings = config(seams=seams, snap_threshold=256, seam_reach=reach)
    true = views.depth[1, 0]
    x = torch.linspace(0, 1, true.shape[1])
    off = torch.exp(0.25 * torch.sin(3 * x + seed))
    scene = lift_photo(views.images[0], views.cameras[0], views.depth[0, 0], None, settings)
    seen = look(scene, views.cameras[1], settings)
    grown = add_view(
        scene, views.images[1], views.cameras[1], lambda i, s, u: true * off + 0.15, settings, seen
    )
    depth, known = grown.views[-1].depth, seen.sparse > 0
    # what the scene shows beside what the view brings
    error = (torch.where(known, seen.sparse, depth) / true).log()
    seam = known[:, 1:] != known[:, :-1]
    step = (error[:, 1:] - error[:, :-1]).abs()[seam].median()
    ratio = (depth / seen.sparse).log()[known].abs().mean()
    return float(ratio), float(step), float(error[~known].abs().mean())


def test_honoured_depth_meets_what_is_known_without_a_step() -> None:
    network = torch.tensor([seam_and_error(seed, "network") for seed in range(2)]).mean(0)
    honoured = torch.tensor([seam_and_error(seed, "honour") for seed in range(2)]).mean(0)
    assert network[0] > 0.1
    assert honoured[0] < 1e-6
    assert honoured[1] < 0.1 * network[1]
    assert honoured[2] < 0.75 * network[2]
    near = torch.tensor([seam_and_error(seed, "honour", GenerationConfig().seam_reach) for seed in range(2)])
    assert near.mean(0)[1] < 0.15 * network[1]


# The loop


def test_every_view_is_asked_for_with_its_own_words() -> None:
    settings = config(prompts=("left", "right"), negative_prompt="people")
    painter, told = Painter(), []

    def on_view(index: int, total: int, view: LiftedView) -> None:
        told.append((index, total, view.name, view.prompt))

    cameras = later_cameras(photo_camera(), settings)
    grown = generate(lifted(settings), cameras, Completer(), painter, settings, on_view=on_view)
    assert [asked[:2] for asked in painter.asked] == [("left", "people"), ("right", "people")]
    assert painter.asked[0][2] != painter.asked[1][2]
    assert told == [(0, 2, "view_001", "left"), (1, 2, "view_002", "right")]
    assert len(grown.views) == 3
    # together the views cover what each of them shows
    assert all(look(grown, camera, settings).coverage > 0.97 for camera in cameras)


def test_without_an_inpainter_nothing_is_invented(tmp_path: Path) -> None:
    settings, completer = GenerationConfig(), Completer()
    scene = lift_photo(photo_image(), photo_camera(), None, completer, settings)
    shown: list[LiftedView] = []
    cameras = later_cameras(photo_camera(), settings)
    same = generate(scene, cameras, None, None, settings, tmp_path, lambda i, n, view: shown.append(view))
    assert completer.calls == 1
    assert same is scene
    assert len(shown) == 2
    assert (shown[0].image[:, ~shown[0].known] == 0).all()
    assert (shown[0].depth[~shown[0].known] == 0).all()
    assert {path.name for path in tmp_path.iterdir()} == {"view_001.png", "view_002.png"}


def test_painted_views_need_a_depth_network() -> None:
    settings = config()
    with pytest.raises(ValueError, match="need a network"):
        generate(lifted(settings), later_cameras(photo_camera(), settings), None, Painter(), settings)


def assert_same(one: LiftedScene, other: LiftedScene) -> None:
    assert torch.equal(one.points, other.points)
    assert torch.equal(one.colors, other.colors)
    assert len(one.views) == len(other.views)
    for a, b in zip(one.views, other.views, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.depth, b.depth)
        assert torch.equal(a.known, b.known)
        assert (a.name, a.prompt) == (b.name, b.prompt)


def run(folder: Path | None, settings: GenerationConfig, stop_after: int = 99, models: str = "") -> Any:
    """(the scene, or None where it was stopped; how many views were painted)."""
    painter = Painter()

    def on_view(index: int, total: int, view: LiftedView) -> None:
        if index + 1 == stop_after:
            raise StoppedError

    cameras = later_cameras(photo_camera(), settings)[:3]
    try:
        scene = generate(
            lifted(settings), cameras, Completer(), painter, settings, folder, on_view, models=models
        )
    except StoppedError:
        return None, len(painter.asked)
    return scene, len(painter.asked)


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_stopped_generation_continues_to_the_same_scene(tmp_path: Path, stop_after: int) -> None:
    settings = config(mode="360")
    whole, painted = run(None, settings)
    assert painted == 3
    assert run(tmp_path, settings, stop_after) == (None, stop_after)
    continued, painted = run(tmp_path, settings)
    assert painted == 3 - stop_after
    assert_same(continued, whole)
    again, painted = run(tmp_path, settings)
    assert painted == 0
    assert_same(again, whole)


BEFORE = {"mode": "360", "prompts": ("a", "b", "c")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of finished views."""
    folder = tmp_path_factory.mktemp("made")
    assert run(folder, config(**BEFORE))[1] == 3
    return folder


@pytest.mark.parametrize(
    ("change", "painted"),
    [
        ({"prompts": ("a", "CHANGED", "c")}, 2),
        ({"negative_prompts": ("", "", "x")}, 1),
        ({"seed": 1}, 3),
        ({"radius": 0.02}, 3),
        ({"next_scale": 0.6}, 3),
        ({"first_scale": 1.1}, 3),
    ],
)
def test_what_a_change_concerns_is_made_anew(
    made: Path, tmp_path: Path, change: dict[str, Any], painted: int
) -> None:
    folder = shutil.copytree(made, tmp_path / "made")
    settings = config(**{**BEFORE, **change})
    scene, count = run(folder, settings)
    assert count == painted
    assert_same(scene, run(None, settings)[0])


def test_other_models_make_all_views_anew(tmp_path: Path) -> None:
    settings = config(mode="360")
    run(tmp_path, settings, models="one")
    assert run(tmp_path, settings, models="one")[1] == 0
    assert run(tmp_path, settings, models="other")[1] == 3


def test_a_damaged_view_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(mode="360")
    whole, _ = run(tmp_path, settings)
    file = tmp_path / "view_002.npz"
    file.write_bytes(file.read_bytes()[:-200])
    (tmp_path / "view_003.npz").write_bytes(b"")
    continued, painted = run(tmp_path, settings)
    assert painted == 2
    assert "view_002.npz cannot be read" in caplog.text
    assert_same(continued, whole)


def test_what_is_given_is_not_written_into() -> None:
    image, depth = photo_image(), 2 + photo_image().mean(0)
    depth[:4] = 0
    copies = image.clone(), depth.clone()
    settings = config()
    scene = lift_photo(image, photo_camera(), depth, Completer(), settings)
    generate(scene, later_cameras(photo_camera(), settings), Completer(), Painter(), settings)
    assert torch.equal(image, copies[0])
    assert torch.equal(depth, copies[1])
