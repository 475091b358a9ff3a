"""Settings: what cannot be is refused by the key's name, and the presets are what they say."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from engine.config import build
from methods import load_experiment
from methods.mask_volume.config import AugmentConfig, MaskVolumeConfig, ViewsConfig
from methods.mask_volume.method import MaskVolume
from tests.methods.mask_volume.tiny import AS_PUBLISHED


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskVolumeConfig(planes=1), r"model\.planes is 1: it must be at least 2"),
        (lambda: MaskVolumeConfig(views=1), r"model\.views is 1"),
        (lambda: MaskVolumeConfig(near=5, far=5), r"need 0 < near < far"),
        (lambda: MaskVolumeConfig(margin=1.5), r"model\.margin is 1\.5: it must be in \[0, 1\]"),
        (lambda: ViewsConfig(frames=2), r"model\.sampler: frames 2"),
        (lambda: ViewsConfig(min_stride=4, max_stride=3), r"min_stride 4, max_stride 3"),
        (lambda: AugmentConfig(max_scale=0.5), r"model\.augment: .*max_scale 0\.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_presets_resolve(repo_root: Path) -> None:
    stages = {}
    for folder in sorted((repo_root / "configs/mask_volume").iterdir()):
        experiment, kind = load_experiment(folder)
        assert kind is MaskVolume
        stages[folder.name] = (experiment.model.stage, experiment.model.as_published)
        parser = argparse.ArgumentParser()
        kind.add_arguments(parser, "video")
        kind.apply_arguments(parser.parse_args([]), experiment)
        assert experiment.model.page == ("html",)
    assert stages == {
        "mask_mvcam": ("mask", False),
        "mpi_re10k": ("mpi", False),
        "original": ("mask", True),
        "toy_mask": ("mask", False),
        "toy_mpi": ("mpi", False),
    }


def test_published_weights_need_every_mended_thing_as_it_was() -> None:
    assert MaskVolumeConfig(**AS_PUBLISHED).as_published
    for name, value in {**AS_PUBLISHED, "margin": 0.0}.items():
        other = {"sampling": "consistent", "margin": 0.1}.get(name, not value)
        assert not MaskVolumeConfig(**{**AS_PUBLISHED, name: other}).as_published


def test_what_planes_are_written_as_is_a_choice() -> None:
    with pytest.raises(UserError, match=r"model\.page.*choose from html, llff"):
        build(MaskVolumeConfig, {"page": ["gif"]}, "model")
