"""scripts/checkpoint.py: what is written loads as a checkpoint again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from engine.tensor_files import read_safetensors
from methods import load_pretrained
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


def test_a_pretrained_folder_holds_what_the_checkpoint_did(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "save-pretrained", experiment, tmp_path / "out", "-r", "3")
    assert "model.safetensors" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    with pytest.raises(SystemExit):
        run(monkeypatch, "save-pretrained", tmp_path / "nowhere", tmp_path / "out2")
    assert "config.yaml does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()
    loaded = load_pretrained(tmp_path / "out")
    run(monkeypatch, "convert", experiment, tmp_path / "converted", "-r", "3")
    written = read_safetensors(tmp_path / "converted" / "unet" / "diffusion_pytorch_model.safetensors")
    own = loaded.state_dict()
    assert written.keys() <= {name.removeprefix("model.unet.") for name in own}
    assert all((own[f"model.unet.{name}"] == value).all() for name, value in written.items())
