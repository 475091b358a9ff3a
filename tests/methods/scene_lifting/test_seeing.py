from __future__ import annotations

import pytest
import torch

from geometry.scene_paths import circle_cameras
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.generation import lift_photo
from methods.scene_lifting.seeing import look
from methods.scene_lifting.state import LiftedScene
from tests.methods.scene_lifting.stand_ins import Completer, photo_camera, photo_image, room


@pytest.mark.parametrize("rendering", ["pixels", "relative"])
def test_a_photo_is_seen_again_from_its_own_camera(rendering: str) -> None:
    # 'relative' closes no gaps in small images
    height, width = (320, 480) if rendering == "relative" else (48, 64)
    config = GenerationConfig(rendering=rendering)  # type: ignore[arg-type]
    image, camera = photo_image(height, width), photo_camera(height, width)
    scene = lift_photo(image, camera, None, Completer(), config)
    seen = look(scene, camera, config)
    assert seen.coverage == 1
    assert not seen.hole.any()
    torch.testing.assert_close(seen.image, image)
    torch.testing.assert_close(seen.depth, scene.views[0].depth)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_seen_of_a_room_is_true(seed: int) -> None:
    views = room(seed)
    assert views.depth is not None
    scene = lift_photo(views.images[0], views.cameras[0], views.depth[0, 0], None, GenerationConfig())
    seen = look(scene, views.cameras[1], GenerationConfig())
    true = views.depth[1, 0]
    assert 0.3 < seen.coverage < 0.95
    certain = seen.sparse > 0
    assert certain.float().mean() > 0.3
    error = (seen.sparse / true - 1).abs()[certain]
    assert error.median() < 0.01
    assert (error > 0.05).float().mean() < 0.06  # one side of an edge for the other
    assert (seen.image[:, ~seen.known] == 0).all()
    assert (seen.depth[~seen.known] == 0).all()
    assert seen.hole[~seen.known].all()


def test_the_surface_has_no_gaps_at_any_size() -> None:
    for size in ((48, 64), (192, 256)):
        views = room(0, size=size)
        assert views.depth is not None
        photo = lift_photo(views.images[0], views.cameras[0], views.depth[0, 0], None, GenerationConfig())
        closer = circle_cameras(views.cameras[0], [(8.0, 0.0)], 0.05)[0]
        known = look(photo, closer, GenerationConfig()).known
        inner = known[size[0] // 4 : -size[0] // 4, size[1] // 3 : -size[1] // 4]
        assert inner.float().mean() > 0.93


def test_a_camera_that_sees_nothing() -> None:
    config, camera = GenerationConfig(), photo_camera()
    scene = lift_photo(photo_image(), camera, None, Completer(), config)
    behind = circle_cameras(camera, [(180.0, 0.0)], 0.01)[0]
    seen = look(scene, behind, config)
    assert seen.coverage == 0
    assert seen.hole.all()
    assert (seen.sparse == 0).all()


def test_an_empty_scene() -> None:
    empty = LiftedScene(torch.zeros(0, 3), torch.zeros(0, 3))
    assert look(empty, photo_camera(), GenerationConfig()).hole.all()
