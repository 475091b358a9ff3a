from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from engine.config import Experiment
from methods.scene_lifting.arguments import add_arguments, apply_arguments
from methods.scene_lifting.config import GenerationConfig, SceneLiftingConfig
from methods.scene_lifting.inputs import open_photo


def write_photo(path: Path, width: int = 67, height: int = 45, mode: str = "RGB", **options: Any) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def test_a_photo_is_cropped_around_its_middle(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.png")
    record = open_photo(path, None, 80.0, GenerationConfig()).records[0]
    image = record.load()
    assert image.shape == (40, 64, 3)
    assert np.array_equal(image, np.asarray(Image.open(path))[2:42, 1:65])
    camera = record.camera
    assert camera.K[0].tolist() == [80.0, 0, 32]
    assert camera.K[1].tolist() == [0, 80.0, 20]
    assert torch.equal(camera.c2w, torch.eye(4, dtype=torch.float64))


def test_the_originals_photo_is_cut_at_right_and_bottom(tmp_path: Path) -> None:
    config = GenerationConfig(half_pixel=True, field_of_view=53.13010235415598, max_size=0)
    path = write_photo(tmp_path / "a.png")
    record = open_photo(path, None, None, config).records[0]
    assert np.array_equal(record.load(), np.asarray(Image.open(path))[:40, :64])
    assert record.camera.K[0, 0] == pytest.approx(64)
    assert record.camera.K[:2, 2].tolist() == [31.5, 19.5]


def test_a_photo_is_reduced_and_its_camera_with_it(tmp_path: Path) -> None:
    config = GenerationConfig(max_size=80)
    camera = open_photo(write_photo(tmp_path / "a.jpg", 160, 96), None, 100.0, config).records[0].camera
    assert (camera.height, camera.width) == (48, 80)
    assert camera.focal.tolist() == [50.0, 50.0]


def test_what_exif_says_of_lens_and_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned on its side
    exif.get_ifd(0x8769)[0xA405] = 36  # mm on film of 43.27 mm diagonal
    camera = (
        open_photo(write_photo(tmp_path / "a.jpg", 64, 48, exif=exif), None, None, GenerationConfig())
        .records[0]
        .camera
    )
    assert (camera.height, camera.width) == (64, 48)
    assert float(camera.K[0, 0]) == pytest.approx(36 * 80 / 43.267, rel=1e-3)


def test_an_assumed_lens_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    record = open_photo(write_photo(tmp_path / "a.png", 64, 48), None, None, GenerationConfig()).records[0]
    assert float(record.camera.K[0, 0]) == pytest.approx(64)
    assert "a.png does not say its focal length: 53.13 degrees are assumed; pass --focal" in caplog.text


@pytest.mark.parametrize("mode", ["CMYK", "L", "P"])
def test_photos_of_other_colour_models_are_converted(tmp_path: Path, mode: str) -> None:
    path = write_photo(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), 64, 48, mode)
    image = open_photo(path, None, 60.0, GenerationConfig()).records[0].load()
    assert image.shape == (48, 64, 3)


def test_depth_is_reduced_and_cropped_like_the_photo(tmp_path: Path) -> None:
    depth = np.zeros((90, 134), np.float32)
    depth[:, 67:] = 2.0
    np.save(tmp_path / "a.npy", depth)
    config = GenerationConfig(max_size=67)
    path = write_photo(tmp_path / "a.png", 134, 90)
    loaded = open_photo(path, tmp_path / "a.npy", 60.0, config).records[0].load_depth()
    assert loaded is not None
    assert loaded.shape == (40, 64)
    assert set(np.unique(loaded)) == {0.0, 2.0}  # none is mixed
    assert (loaded > 0).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("photo", "config", "message"),
    [
        ((24, 100), {}, "24x100: photos need at least 32 pixels a side; take a larger one"),
        (
            (5000, 40),
            {"max_size": 0},
            "5000x40, more than 4096 pixels a side: .*model.generation.max_size=768",
        ),
        ((5000, 40), {}, "5000x40, too narrow to be reduced to model.generation.max_size=768"),
    ],
)
def test_photos_that_are_too_small_or_large(
    tmp_path: Path, photo: tuple[int, int], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        open_photo(write_photo(tmp_path / "a.png", *photo), None, None, GenerationConfig(**config))


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    photo, config = write_photo(tmp_path / "a.png"), GenerationConfig()
    (tmp_path / "text.png").write_text("no image")
    np.save(tmp_path / "small.npy", np.ones((20, 20), np.float32))
    np.save(tmp_path / "empty.npy", np.zeros((45, 67), np.float32))
    for path, depth, message in (
        (tmp_path / "none.png", None, "none.png does not exist"),
        (tmp_path / "text.png", None, "text.png is not a readable image"),
        (photo, tmp_path / "small.npy", "20x20, .* is 67x45: depth and photo must have one size"),
        (photo, tmp_path / "empty.npy", "empty.npy holds no positive depth"),
        (photo, tmp_path / "none.npy", "none.npy does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            open_photo(path, depth, None, config)


# The flags


def parse(*words: str) -> SceneLiftingConfig:
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", "--inputimg", type=Path)
    add_arguments(parser, "video")
    experiment = Experiment("scene_lifting", SceneLiftingConfig())
    apply_arguments(parser.parse_args(words), experiment)
    return experiment.model


def test_flags_change_the_experiment() -> None:
    words = [
        "-i",
        "a.png",
        "--prompt",
        "a lake",
        "--negative_prompt",
        "people",
        "--mode",
        "360",
        "--seed",
        "7",
    ]
    model = parse(*words, "--inpainter", "my/model")
    settings = model.generation
    assert (settings.prompt, settings.negative_prompt) == ("a lake", "people")
    assert (settings.mode, settings.seed, model.inpainter.name) == ("360", 7, "my/model")
    assert parse().generation == GenerationConfig()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--depth", "a.npy"], "--depth is of a photo: name the photo with -i"),
        (["--focal", "700"], "--focal is of a photo"),
        (["--seed", "-1"], "model.generation.seed is -1: it must be at least 0"),
        (["-i", "a.png"], "there is no prompt: .*--inpainter none"),
        (["-i", "a.png", "--inpainter", ""], "model.inpainter.name is empty"),
    ],
)
def test_flags_that_do_not_fit(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(*words)


@pytest.mark.parametrize("words", [["--mode", "single"], ["--inpainter", "none"]])
def test_no_prompt_where_nothing_is_painted(words: list[str]) -> None:
    parse("-i", "a.png", *words)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_size": 16}, "model.generation.max_size is 16: it must be 0, or at least 32"),
        ({"radius": 0.0}, "model.generation.radius is 0.0: it must be above 0"),
        ({"field_of_view": 180.0}, "model.generation.field_of_view is 180.0"),
        ({"snap_threshold": 0}, "model.generation.snap_threshold is 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GenerationConfig(**settings)
