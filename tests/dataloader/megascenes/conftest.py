"""Small MegaScenes folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataloader.images import write_image

PREFIX = "/cluster/data/main/images/"


def raw_entry(source: int = 0, target: int = 1, category: str = "Some_Castle", **changes: Any) -> list[Any]:
    """An entry of a split file, whose photos are numbered. changes: other intrinsics, a scale."""
    cameras = [
        {
            "extrinsics": [1.0, 0.0, 0.0, 0.0, 0.1 * number, 0.0, 0.0],
            "intrinsics": changes.get("intrinsics", ["SIMPLE_RADIAL", 64, 48, "50.5", 32, 24.0, 0.01]),
        }
        for number in (source, target)
    ]
    paths = [
        f"{PREFIX}{category}/commons/Inside {category}/0/pictures/View {n}.jpg" for n in (source, target)
    ]
    return [*paths, *cameras, changes.get("scale", 2.5)]


@pytest.fixture
def entry() -> Callable[..., list[Any]]:
    return raw_entry


@pytest.fixture
def store_photos() -> Callable[..., None]:
    """Write `count` photos of the entries' category in the original's layout."""

    def store(
        root: Path, count: int = 2, category: str = "Some_Castle", size: tuple[int, int] = (48, 64)
    ) -> None:
        rng = np.random.default_rng(0)
        for number in range(count):
            image = np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            place = root / category / "commons" / f"Inside {category}" / f"View_{number}.jpg"
            write_image(np.ascontiguousarray(image[: size[0], : size[1]]), place)

    return store
