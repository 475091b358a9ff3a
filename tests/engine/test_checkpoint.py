"""Checkpoints: complete or invisible, verified on load, strict about names and shapes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from common.errors import UserError
from engine import checkpoint
from engine.checkpoint import Snapshot, State
from engine.method import Method
from engine.tensor_files import read_safetensors, sha256, write_safetensors, write_torch
from geometry.cameras import Cameras
from geometry.views import Rendering


class Small(Method):
    """Trained, frozen and tied weights, a persistent and a passing buffer."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.encoder = nn.Linear(2, width).requires_grad_(False)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.tensor(5))
        self.register_buffer("scratch", torch.zeros(9), persistent=False)

    def load_original(self, folder: Path) -> dict[str, Tensor] | None:
        file = folder if folder.suffix == ".safetensors" else folder / "published.safetensors"
        return read_safetensors(file) if file.exists() else None

    def render(self, state: Any, cameras: Cameras) -> Rendering:
        raise AssertionError("nothing to show")


def _save(folder: Path, step: int, method: nn.Module, keep: int = 2, average: bool = True) -> Path:
    tensors = checkpoint.saved_tensors(method)
    trained = {name: value.detach() for name, value in tensors.items() if value.requires_grad}
    snapshot = Snapshot(
        method="small",
        state=State(step=step, samples_drawn=4 * step, frozen=checkpoint.frozen_hashes(method)),
        weights=tensors,
        ema={name: value + 1 for name, value in trained.items()} if average else None,
        optimizer={"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "groups": [[0]]},
        config={"method": "small", "data": {"size": (3, 4)}},
    )
    return checkpoint.publish(checkpoint.write(folder, snapshot), keep)


def _method(seed: int, width: int = 3, encoder: nn.Module | None = None) -> Small:
    torch.manual_seed(seed)
    method = Small(width)
    if encoder is not None:
        method.encoder.load_state_dict(encoder.state_dict())
    return method


def load(method, folder, which):  # type: ignore[no-untyped-def]
    """Load what `-r` names, and return its step."""
    found = checkpoint.find_trained(folder, which)
    checkpoint.load_for_inference(method, found)
    return found.step


def _message(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_holds_what_is_trained_once_and_loads_into_another_instance(tmp_path: Path) -> None:
    method = _method(0)
    path = _save(tmp_path, 7, method)
    assert _names(path) == [
        "config.yaml",
        "ema.safetensors",
        "manifest.json",
        "model.safetensors",
        "optimizer.pt",
        "state.json",
    ]
    assert set(read_safetensors(path / "model.safetensors")) == {"first.weight", "first.bias", "count"}
    other = _method(1, encoder=method.encoder)
    other.count += 3
    checkpoint.load_weights(other, path)
    for name, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert other.second.weight is other.first.weight
    assert checkpoint.read_state(path) == State(
        step=7, samples_drawn=28, frozen=checkpoint.frozen_hashes(method)
    )
    assert torch.equal(checkpoint.read_optimizer(path)["state"][0]["exp_avg"], torch.ones(3))


def test_inference_takes_the_averaged_weights_where_there_are_any(tmp_path: Path) -> None:
    method = _method(0)
    _save(tmp_path, 7, method)
    other = _method(1, encoder=method.encoder)
    assert load(other, tmp_path, "latest") == 7
    assert torch.equal(other.first.bias, method.first.bias + 1)
    _save(tmp_path, 8, method, average=False)
    assert load(other, tmp_path, "-1") == 8
    assert torch.equal(other.first.bias, method.first.bias)
    assert "no checkpoint" in _message(lambda: load(other, tmp_path / "x", "auto"))


def test_the_manifest_names_every_file_with_size_and_hash(tmp_path: Path) -> None:
    path = _save(tmp_path, 7, _method(0))
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["method"], manifest["step"]) == ("small", 7)
    assert set(manifest["files"]) == set(_names(path)) - {"manifest.json"}
    for name, entry in manifest["files"].items():
        data = (path / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_find(tmp_path: Path) -> None:
    for step in (5, 10):
        _save(tmp_path, step, _method(0))
    (tmp_path / "iter_99.tmp").mkdir()
    (tmp_path / "iter_x").mkdir()
    for which, step in {"latest": 10, "-1": 10, "auto": 10, "5": 5}.items():
        found = checkpoint.find(tmp_path, which)
        assert found is not None
        assert (found.path, found.step, found.original) == (tmp_path / f"iter_{step}", step, False)
    assert "iter_7 does not exist (checkpoints there: 5, 10)" in _message(
        lambda: checkpoint.find(tmp_path, "7")
    )
    assert "-r newest" in _message(lambda: checkpoint.find(tmp_path, "newest"))
    empty = tmp_path / "empty"
    assert checkpoint.find(empty, "auto") is None
    assert str(empty) in _message(lambda: checkpoint.find(empty, "latest"))


def _truncate(path: Path) -> Path:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    return file


def _remove_file(path: Path) -> Path:
    (path / "optimizer.pt").unlink()
    return path / "optimizer.pt"


def _remove_manifest(path: Path) -> Path:
    (path / "manifest.json").unlink()
    return path / "manifest.json"


def _cut_manifest(path: Path) -> Path:
    (path / "manifest.json").write_text('{"files": {')
    return path / "manifest.json"


def _empty(path: Path) -> Path:
    shutil.rmtree(path)
    path.mkdir()
    return path


@pytest.mark.parametrize("spoil", [_truncate, _remove_file, _remove_manifest, _cut_manifest, _empty])
def test_a_damaged_checkpoint_is_passed_over_by_latest_and_named_when_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], Path]
) -> None:
    method = _method(0)
    for step in (5, 10):
        _save(tmp_path, step, method)
    file = spoil(tmp_path / "iter_10")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.find(tmp_path, "latest")
    assert found is not None
    assert found.step == 5
    assert len(caplog.records) == 1
    assert str(file) in caplog.text
    assert str(file) in _message(lambda: checkpoint.find(tmp_path, "10"))
    assert str(file) in _message(lambda: checkpoint.load_weights(method, tmp_path / "iter_10"))


def test_a_flipped_bit_is_found_on_load(tmp_path: Path) -> None:
    method = _method(0)
    path = _save(tmp_path, 5, method)
    for name in ("model.safetensors", "ema.safetensors", "optimizer.pt", "state.json", "config.yaml"):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert f"{path / name} is damaged" in _message(lambda: load(method, tmp_path, "5"))
        (path / name).write_bytes(whole)
    assert load(method, tmp_path, "5") == 5


def test_old_checkpoints_go_and_damaged_and_foreign_ones_stay(tmp_path: Path) -> None:
    method = _method(0)
    foreign = tmp_path / "iter_1"
    foreign.mkdir()
    (foreign / "model.bin").touch()
    for step in (2, 3):
        _save(tmp_path, step, method)
    _truncate(tmp_path / "iter_3")
    for step in (4, 5, 6):
        _save(tmp_path, step, method, keep=2)
    assert _names(tmp_path) == ["iter_1", "iter_3", "iter_5", "iter_6"]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    method = _method(0)
    _truncate(_save(tmp_path, 3, method))
    assert checkpoint.damage(_save(tmp_path, 3, method)) is None


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    _save(tmp_path, 3, _method(0))
    (tmp_path / "iter_4.tmp").mkdir()
    (tmp_path / "iter_4.tmp" / "model.safetensors").touch()
    checkpoint.remove_leftovers(tmp_path)
    assert _names(tmp_path) == ["iter_3"]


def test_runs_never_write_over_intact_checkpoints(tmp_path: Path) -> None:
    assert checkpoint.find_start(tmp_path, None) is None
    assert checkpoint.find_start(tmp_path, "auto") is None
    for step in (5, 10):
        _save(tmp_path, step, _method(0))
    message = _message(lambda: checkpoint.find_start(tmp_path, None))
    assert "-r latest" in message
    assert "--output_dir" in message
    checkpoint.find_start(tmp_path, "10")
    assert "iter_10" in _message(lambda: checkpoint.find_start(tmp_path, "5"))
    _truncate(tmp_path / "iter_10")
    found = checkpoint.find_start(tmp_path, "5")
    assert found is not None
    assert found.step == 5


def test_weights_that_do_not_fit_are_listed_by_name_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = _save(tmp_path, 5, _method(0))
    wider = _method(1, width=4)
    before = wider.first.bias.clone()
    message = _message(lambda: checkpoint.load_weights(wider, path))
    assert "first.weight ([3, 3] there, [4, 4] here)" in message
    assert torch.equal(wider.first.bias, before)

    changed = _method(0)
    changed.first = nn.Linear(3, 3, bias=False)
    changed.third = nn.Linear(1, 1)
    message = _message(lambda: checkpoint.load_weights(changed, path))
    assert "missing: second.weight" in message.replace("first.weight, ", "")
    assert "third.weight" in message
    assert "unexpected: first.bias" in message


def test_other_frozen_weights_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path, 5, _method(0))
    message = _message(lambda: checkpoint.load_weights(_method(1), path))
    assert "frozen weights (encoder)" in message


def test_an_original_s_checkpoint_is_the_method_s_to_recognise(tmp_path: Path) -> None:
    folder = tmp_path / "iter_112000"
    folder.mkdir()
    published = _method(3)
    tensors = {name: value.contiguous() for name, value in published.state_dict().items()}
    tensors.pop("second.weight")
    write_safetensors(folder / "published.safetensors", tensors)
    found = checkpoint.find(tmp_path, "latest")
    assert found is not None
    assert found.original
    method = _method(0)
    assert load(method, tmp_path, "112000") == 112000
    assert torch.equal(method.encoder.weight, published.encoder.weight)
    (folder / "published.safetensors").rename(folder / "notes.txt")
    message = _message(lambda: load(method, tmp_path, "latest"))
    assert str(folder) in message
    assert "Small" in message


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 700, 1200, 1800])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(tmp_path: Path, size: int) -> None:
    """The limits fall into model.safetensors, and (written later and larger) into optimizer.pt."""
    method = _method(0)
    _save(tmp_path, 5, method)
    assert (tmp_path / "iter_5" / "optimizer.pt").stat().st_size > 1800
    with _file_size_limit(size):
        message = _message(lambda: _save(tmp_path, 6, method))
    assert str(tmp_path / "iter_6.tmp") in message
    assert "File too large" in message
    assert _names(tmp_path) == ["iter_5"]
    assert load(method, tmp_path, "latest") == 5
    _save(tmp_path, 6, method)
    assert load(method, tmp_path, "latest") == 6


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "file/iter_5.tmp" in _message(lambda: _save(tmp_path / "file", 5, _method(0)))


def test_safetensors_files_are_read_by_the_reference_library(tmp_path: Path) -> None:
    tensors = {
        "weights": torch.randn(3, 5).t(),
        "half": torch.randn(7).half(),
        "brain": torch.randn(2, 1, 3).bfloat16(),
        "flags": torch.tensor([True, False, True]),
        "count": torch.tensor(2**40),
        "none": torch.zeros(0, 4),
        "byte": torch.arange(5, dtype=torch.uint8),
        "double": torch.randn(2, dtype=torch.float64),
    }
    entry = write_safetensors(tmp_path / "a.safetensors", tensors)
    assert entry == {
        "size": (tmp_path / "a.safetensors").stat().st_size,
        "sha256": sha256(tmp_path / "a.safetensors"),
    }
    found = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert set(found) == set(tensors)
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


def test_torch_files_are_hashed_as_they_are_written_and_failures_keep_their_cause(tmp_path: Path) -> None:
    values = {"a": torch.randn(1000), "b": [1, 2.5, None, (3, 4)]}
    path = tmp_path / "a.pt"
    entry = write_torch(path, values)
    assert entry == {"size": path.stat().st_size, "sha256": sha256(path)}
    found = torch.load(path, weights_only=True)
    assert torch.equal(found["a"], values["a"])
    assert found["b"] == values["b"]
    with _file_size_limit(500), pytest.raises(OSError) as caught:
        write_torch(path, values)
    assert caught.value.errno == errno.EFBIG


def test_the_file_of_an_original_is_enough(tmp_path: Path) -> None:
    published = _method(0).state_dict()
    write_safetensors(tmp_path / "weights.safetensors", published)
    method = _method(1)
    assert load(method, tmp_path / "runs", str(tmp_path / "weights.safetensors")) == 0
    assert torch.equal(method.first.bias, published["first.bias"])
    (tmp_path / "other.pt").write_bytes(b"")
    assert "other.pt is not a checkpoint" in _message(
        lambda: load(method, tmp_path, str(tmp_path / "other.pt"))
    )
    assert "-r no.pt is not a checkpoint" in _message(lambda: load(method, tmp_path, "no.pt"))
