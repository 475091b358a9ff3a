"""The teacher's predictions, by a pipeline with random weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from dataloader.depth.marigold import DEFAULT_TEACHER, Teacher, TeacherSettings, load_teacher
from tests.dataloader.depth.files import photo, write_marigold

QUICK = TeacherSettings(steps=2, ensemble=3, resolution=32)
SINGLE = replace(QUICK, ensemble=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marigold(tmp_path_factory.mktemp("marigold"))


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load_teacher(str(folder), QUICK)


@pytest.fixture(scope="module")
def single(folder: Path) -> Teacher:
    return load_teacher(str(folder), SINGLE)


def test_depth_is_relative_and_of_the_photos_size(teacher: Teacher) -> None:
    depth = teacher(photo(0, 45, 62), "a")
    assert (depth.dtype, depth.shape) == (np.float32, (45, 62))
    assert 0 <= depth.min() < 0.2
    assert 0.8 < depth.max() <= 1


def test_a_single_map_has_the_same_range(single: Teacher) -> None:
    """The library brings to [0, 1] only what it has several of."""
    depth = single(photo(0, 24, 32), "a")
    assert (depth.min(), depth.max()) == (0, 1)


def test_the_noise_is_the_photos(single: Teacher, folder: Path) -> None:
    first = single(photo(0, 45, 62), "a")
    single(photo(1, 30, 30), "b")
    np.testing.assert_array_equal(single(photo(0, 45, 62), "a"), first)
    assert not np.array_equal(single(photo(0, 45, 62), "b"), first)
    seeded = load_teacher(str(folder), replace(SINGLE, seed=1))
    assert not np.array_equal(seeded(photo(0, 45, 62), "a"), first)


def test_only_photos_are_taken(teacher: Teacher) -> None:
    with pytest.raises(ValueError, match="uint8"):
        teacher(np.zeros((4, 4, 3), np.float32), "a")  # type: ignore[arg-type]


def test_no_depth_at_all_is_an_error(teacher: Teacher) -> None:
    with pytest.raises(UserError, match=r"study/x: .* gives this photo no depth"):
        teacher._normalise(torch.full((1, 1, 4, 4), 0.3), "study/x")


def test_no_gpu_memory_names_the_flags(teacher: Teacher) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(UserError, match=r"lower it, or give --half"):
        Teacher("full", full, QUICK)(photo(0, 8, 8), "a")


def test_absent_models_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=f"scripts/download.py hub {DEFAULT_TEACHER}"):
        load_teacher(settings=QUICK)
    with pytest.raises(UserError, match="nowhere does not exist"):
        load_teacher("nowhere", QUICK)
    with pytest.raises(UserError, match=r"^the folder [^\n]* holds no complete Marigold pipeline[^\n]*$"):
        load_teacher(str(tmp_path), QUICK)


def test_missing_weights_are_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("conv_in.bias")
    save_file(weights, file)
    with pytest.raises(UserError, match=r"lacks 1 of its weights, e.g. unet.conv_in.bias"):
        load_teacher(str(tmp_path / "copy"), QUICK)


def test_damaged_weights_are_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy/vae/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="holds no complete Marigold pipeline"):
        load_teacher(str(tmp_path / "copy"), QUICK)


def test_other_teachers_and_resolutions_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--resolution 33 is no multiple of 2"):
        load_teacher(str(folder), TeacherSettings(resolution=33))
    other = write_marigold(tmp_path, prediction_type="disparity")
    with pytest.raises(UserError, match="predicts disparity"):
        load_teacher(str(other), QUICK)
