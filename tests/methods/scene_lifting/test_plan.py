from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import UserError
from geometry.cameras import pinhole
from geometry.path_files import write_camera_path
from geometry.scene_paths import MODES
from methods.scene_lifting.config import GenerationConfig
from methods.scene_lifting.plan import later_cameras, plan_views
from tests.methods.scene_lifting.stand_ins import photo_camera


@pytest.mark.parametrize("mode", MODES)
def test_the_photos_own_camera_is_not_made(mode: str) -> None:
    cameras = later_cameras(photo_camera(), GenerationConfig(mode=mode))  # type: ignore[arg-type]
    assert len(cameras) == len(MODES[mode]) - 1


def test_a_path_file_counts_from_the_photo_and_keeps_its_lens(tmp_path: Path) -> None:
    poses = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    poses[1, 0, 3], poses[2, 2, 3] = 0.5, 0.25
    write_camera_path(pinhole(100.0, 90, 160).with_poses(poses), tmp_path / "path.json", 10)
    photo = pinhole(64.0, 48, 64, poses[2])
    cameras = later_cameras(photo, GenerationConfig(path=str(tmp_path / "path.json")))
    assert (len(cameras), cameras.height, cameras.width) == (2, 48, 64)  # the first stands at the photo
    torch.testing.assert_close(cameras.c2w, photo.c2w @ poses[1:])
    torch.testing.assert_close(cameras.focal, torch.full((2, 2), 100.0 * 48 / 90, dtype=torch.float64))
    torch.testing.assert_close(cameras.K[:, :2, 2], torch.tensor([[32.0, 24.0]] * 2, dtype=torch.float64))


def test_prompts_and_seeds_are_each_views_own() -> None:
    config = GenerationConfig(
        prompt="all",
        prompts=("left", "right"),
        negative_prompts=("people", ""),
        negative_prompt="cars",
        seed=3,
    )
    cameras = later_cameras(photo_camera(), config)
    first, second = plan_views(cameras, config)
    assert (first.prompt, first.negative_prompt) == ("left", "people")
    assert (second.prompt, second.negative_prompt) == ("right", "")
    assert first.seed != second.seed
    alone = plan_views(cameras[:1], GenerationConfig(prompt="all", seed=3))[0]
    assert (alone.prompt, alone.negative_prompt, alone.seed) == ("all", "", first.seed)
    assert plan_views(cameras[:1], GenerationConfig(prompt="all", seed=4))[0].seed != first.seed


def test_prompts_for_another_number_of_views_are_refused() -> None:
    config = GenerationConfig(prompts=("left", "right", "behind"))
    message = (
        "model.generation.prompts has 3 entries, and 2 views are made beside the photo: give one for each"
    )
    with pytest.raises(UserError, match=message):
        plan_views(later_cameras(photo_camera(), config), config)


def test_a_prompt_is_needed_where_something_is_painted() -> None:
    cameras = later_cameras(photo_camera(), GenerationConfig())
    with pytest.raises(UserError, match=r"there is no prompt: .*--prompt .*--inpainter none"):
        plan_views(cameras, GenerationConfig(prompt=" "))
    assert len(plan_views(cameras, GenerationConfig(), painted=False)) == 2
