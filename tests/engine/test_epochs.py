"""Two processes, one killed at a random step: the run that continues sees every sample once per epoch."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from engine import checkpoint

SIZE, STEPS, BATCH, EVERY = 31, 24, 2, 3  # items; steps of two processes with two micro-batches; saves
CHUNKS = (7, 4, 11, 9)


def _start(repo_root: Path, folder: Path, changes: dict[str, Any]) -> int:
    words = {
        "model.size": SIZE,
        "model.trace": folder,
        "training.steps": STEPS,
        "training.batch_size": BATCH,
        "training.accumulation": 2,
        "training.save_every": EVERY,
        "training.workers": 1,
        "resume": "auto",
        **changes,
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command += [str(repo_root / "tests" / "engine" / "toy_method.py"), str(folder), str(folder / "h.json")]
    return subprocess.run(
        [*command, *(f"{key}={value}" for key, value in words.items())],
        cwd=repo_root,
        env={**os.environ, "PYTHONPATH": str(repo_root), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        timeout=150,
        check=False,
    ).returncode


def _taken(folder: Path) -> list[int]:
    """The items of the steps that count, in order: those of a step that was taken again replace the first."""
    steps: dict[int, list[list[int]]] = {}
    for rank in range(2):
        lines = [json.loads(line) for line in (folder / f"rank_{rank}").read_text().splitlines()]
        own: dict[int, list[list[int]]] = {}
        for i, (step, items) in enumerate(lines):
            begun = i > 0 and lines[i - 1][0] == step and len(own[step]) < 2
            own[step] = [*own[step], items] if begun else [items]
        for step, micros in own.items():
            steps.setdefault(step, []).append(micros)  # type: ignore[arg-type]
    return [
        item
        for step in sorted(steps)
        for micro in range(2)
        for rank in range(2)
        for item in steps[step][rank][micro]  # type: ignore[index]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(), CHUNKS], ids=["whole", "chunked"])
def test_every_sample_comes_once_per_epoch(repo_root: Path, tmp_path: Path, chunks: tuple[int, ...]) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    kill = random.Random(seed).randrange(EVERY + 1, STEPS)
    print(f"killed at step {kill} (seed {seed})")
    layout = {"model.chunks": list(chunks)}
    assert _start(repo_root, tmp_path, {**layout, "model.kill_at": kill}) != 0
    found = checkpoint.find(tmp_path, "latest")
    assert found is not None
    assert kill - EVERY <= found.step <= kill
    assert _start(repo_root, tmp_path, layout) == 0
    taken = _taken(tmp_path)
    assert len(taken) == STEPS * 2 * 2 * BATCH
    whole, rest = divmod(len(taken), SIZE)
    assert whole >= 3
    for epoch in range(whole):
        visited = taken[epoch * SIZE : (epoch + 1) * SIZE]
        assert sorted(visited) == list(range(SIZE))
        if chunks:
            owner = [chunk for chunk, size in enumerate(chunks) for _ in range(size)]
            changes = sum(owner[a] != owner[b] for a, b in pairwise(visited))
            assert changes == len(chunks) - 1
    assert len(set(taken[whole * SIZE :])) == rest
