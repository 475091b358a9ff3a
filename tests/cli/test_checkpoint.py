"""scripts/checkpoint.py: what is written loads as a checkpoint again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from scripts import checkpoint
from tests.benchmarks.test_diffusion_sampling import small_method

CONFIG = {
    "method": "warp_diffusion",
    "model": {
        "warp": "latent",
        "resolution": 32,
        "autoencoder": {"kind": "pixels", "patch": 4},
        "image_encoder": {"layers": 0},
        "unet": {
            "width": 32,
            "multipliers": [1, 1],
            "blocks": 1,
            "attention": [2],
            "heads": 2,
            "context": 16,
        },
    },
}


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint.py", *map(str, words)])
    checkpoint.main()


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    small_method().export(folder / "iter_3")
    return folder


def test_a_converted_checkpoint_loads_again(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(monkeypatch, "convert", experiment, out, "-r", "3")
    assert capsys.readouterr().out.split() == [str(out / "unet"), str(out / "cc_projection")]
    first, second = (
        (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        for folder in (experiment / "iter_3", out)
    )
    assert first == second
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "convert", experiment, out)
    assert stopped.value.code == 2
    assert "new or empty" in capsys.readouterr().err
