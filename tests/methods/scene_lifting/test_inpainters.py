from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from methods.scene_lifting.config import InpainterConfig
from methods.scene_lifting.inpainters import DiffusionInpainter, Inpainter, load_inpainter
from tests.methods.scene_lifting.tiny_inpainter import write_decoder, write_pipeline

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
HOLE = np.zeros((32, 48), np.uint8)
HOLE[:, 24:] = 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a pipeline and two decoders."""
    folder = tmp_path_factory.mktemp("models")
    write_pipeline(folder / "pipeline")
    write_decoder(folder / "decoder")
    write_decoder(folder / "other_latents", latent_channels=8)
    return folder


def load(name: Path | str, decoder: Path | str = "", **options: float) -> Inpainter:
    config = InpainterConfig(str(name), str(decoder), steps=2, **options)  # type: ignore[arg-type]
    inpainter = load_inpainter(config, CPU)
    assert inpainter is not None
    return inpainter


@pytest.mark.parametrize("decoder", ["", "decoder"])
def test_a_pipeline_paints_by_prompts_and_seed(folder: Path, decoder: str) -> None:
    inpaint = load(folder / "pipeline", folder / decoder if decoder else "")
    painted = inpaint(IMAGE, HOLE, "a cat", "", 3)
    assert (painted.shape, painted.dtype) == (IMAGE.shape, np.uint8)
    assert np.array_equal(painted, inpaint(IMAGE, HOLE, "a cat", "", 3))
    for other in (("a dog", "", 3), ("a cat", "dogs", 3), ("a cat", "", 4)):
        assert (painted != inpaint(IMAGE, HOLE, *other)).mean() > 0.1


def test_a_decoder_takes_the_place_of_the_pipelines_own(folder: Path) -> None:
    own, other = load(folder / "pipeline"), load(folder / "pipeline", folder / "decoder")
    assert isinstance(other, DiffusionInpainter)
    assert type(other.pipeline.vae).__name__ == "AsymmetricAutoencoderKL"
    assert (own(IMAGE, HOLE, "a", "", 0) != other(IMAGE, HOLE, "a", "", 0)).any()


def test_few_steps_without_guidance(folder: Path) -> None:
    inpaint = load(folder / "pipeline", guidance=0.0)
    same = [inpaint(IMAGE, HOLE, "a", negative, 0) for negative in ("", "dogs")]
    assert np.array_equal(*same)  # nothing to push away from


def test_none_is_none() -> None:
    assert load_inpainter(InpainterConfig(name="none", decoder="nowhere"), CPU) is None


def test_odd_sizes_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="multiples of 8, not 45x32: crop the photo"):
        load(folder / "pipeline")(IMAGE[:, :45], HOLE[:, :45], "a", "", 0)


def test_what_a_safety_checker_holds_back_is_said(folder: Path) -> None:
    inpaint = load(folder / "pipeline")
    assert isinstance(inpaint, DiffusionInpainter)
    plain = inpaint.pipeline

    class Checked(type(plain)):  # type: ignore[misc]
        def __call__(self, **options: object) -> object:
            output = super().__call__(**options)
            output.nsfw_content_detected = [True]
            return output

    plain.__class__ = Checked
    with pytest.raises(UserError, match=r"the safety checker of .* holds a picture back"):
        inpaint(IMAGE, HOLE, "a", "", 0)


@pytest.mark.parametrize(
    ("name", "decoder", "message"),
    [
        (
            "nobody/none-such",
            "",
            "the inpainting pipeline nobody/none-such is not on this machine: get it with python "
            r"scripts/download.py hub nobody/none-such, or set model.inpainter.name \(--inpainter none",
        ),
        (
            "./nowhere",
            "",
            "model.inpainter.name is ./nowhere, which does not exist: give a hub id or a folder",
        ),
        ("EMPTY", "", "the folder .* holds no complete inpainting pipeline in diffusers' format"),
        (
            "PIPELINE",
            "nobody/none-such",
            "the decoder nobody/none-such is not on this machine: get it with .*model.inpainter.decoder "
            r"\(empty: the pipeline's own\)",
        ),
        ("PIPELINE", "EMPTY", "the folder .* holds no complete decoder .*see model.inpainter.decoder"),
        ("PIPELINE", "OTHER", "takes 8 latent channels and the pipeline has 4: set model.inpainter.decoder="),
    ],
)
def test_models_that_cannot_be_had(
    folder: Path, tmp_path: Path, name: str, decoder: str, message: str
) -> None:
    places = {"EMPTY": tmp_path, "PIPELINE": folder / "pipeline", "OTHER": folder / "other_latents"}
    with pytest.raises(UserError, match=message):
        load(places.get(name, name), places.get(decoder, decoder))


def test_a_pipeline_without_its_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "pipeline", tmp_path / "cut")
    (tmp_path / "cut" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no complete inpainting pipeline"):
        load(tmp_path / "cut")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "model.inpainter.steps is 0: it must be at least 1"),
        ({"guidance": -1.0}, "model.inpainter.guidance is -1.0: it must be at least 0"),
        ({"name": ""}, "model.inpainter.name is empty"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        InpainterConfig(**settings)
