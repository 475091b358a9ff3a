"""Where levels lie, what the worked example of the specification gives, and what the table starts with."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from common.errors import UserError
from methods.hash_manifold.grid import twin
from methods.hash_manifold.grid.initial import initial_params
from methods.hash_manifold.grid.layout import GridConfig, grid_layout, level_scales

# specs/hash_manifold 2.2: scale, resolution, entries, offset
SHIPPED = [
    (15.0, 16, 4096, 0),
    (22.62921905517578, 24, 13824, 4096),
    (33.8962516784668, 35, 42880, 17920),
    (50.53569793701172, 52, 140608, 60800),
    (75.10926818847656, 77, 456536, 201408),
    (111.40015411376953, 113, 1442904, 657944),
    (164.99551391601562, 166, 4194304, 2100848),
    (244.14651489257812, 246, 4194304, 6295152),
    (361.0387878417969, 363, 4194304, 10489456),
    (533.6683349609375, 535, 4194304, 14683760),
    (788.6121826171875, 790, 4194304, 18878064),
    (1165.1199951171875, 1167, 4194304, 23072368),
    (1721.156982421875, 1723, 4194304, 27266672),
    (2542.326416015625, 2544, 4194304, 31460976),
    (3755.051025390625, 3757, 4194304, 35655280),
    (5546.0341796875, 5548, 4194304, 39849584),
]


def test_the_shipped_configuration() -> None:
    layout = grid_layout(GridConfig())
    assert [(level.scale, level.resolution, level.size, level.offset) for level in layout.levels] == SHIPPED
    assert [level.hashed for level in layout.levels] == [False] * 6 + [True] * 10
    assert (layout.entries, layout.n_params, layout.n_outputs) == (44043888, 352351104, 128)


def test_sizes_of_the_library_s_own_test() -> None:
    hashed = grid_layout(GridConfig(20, 2, 16, 32, 1.5, "Linear"))
    assert [level.size for level in hashed.levels] == [32768] + [65536] * 19
    assert hashed.n_params == 2555904
    dense = grid_layout(GridConfig(8, 8, 19, 2, 2.0, "Linear", "Dense", 2))
    assert dense.levels[0].size == 8
    assert dense.n_params == 699072


def test_tiled_levels_repeat_the_base() -> None:
    layout = grid_layout(GridConfig(4, 1, 19, 5, 1.6, kind="Tiled"))
    assert [level.size for level in layout.levels] == [125] * 4
    assert not any(level.hashed for level in layout.levels)


def test_scales_are_rounded_to_float32() -> None:
    layout = grid_layout(GridConfig(4, 1, 19, 16, 2**0.5))
    assert layout.levels[2].scale == np.float32(30.999998)
    assert layout.levels[2].resolution == 32
    assert all(np.float32(scale) == scale for scale in level_scales(GridConfig()))


def test_the_worked_example() -> None:
    levels = grid_layout(GridConfig()).levels
    point = torch.tensor([[0.3, 0.6, 0.9]])
    cell, fraction = twin.locate(point, levels[0])
    assert cell.tolist() == [[5, 9, 14]]
    assert fraction.tolist() == [[0, 0.5, 0]]
    assert twin.corner_addresses(cell, levels[0])[0, [0, 2]].tolist() == [3733, 3749]
    assert twin.corner_weights(fraction, "Smoothstep")[0].tolist() == [0.5, 0, 0.5, 0, 0, 0, 0, 0]

    cell, fraction = twin.locate(point, levels[6])
    assert cell.tolist() == [[49, 99, 148]]
    expected = [3059046, 3059045, 3222321, 3222322, 2684667, 2684664, 3633324, 3633327]
    assert twin.corner_addresses(cell, levels[6])[0].tolist() == expected
    weights = twin.corner_weights(fraction, "Smoothstep")[0]
    torch.testing.assert_close(weights[[5, 7]], torch.tensor([0.504000901, 0.495944776]))

    cell, fraction = twin.locate(point, levels[15])
    assert cell.tolist() == [[1664, 3328, 4991]]
    assert twin.corner_addresses(cell, levels[15])[0, 0] == 293483
    torch.testing.assert_close(fraction, torch.tensor([[0.31030273, 0.12060547, 0.93066406]]))


def test_dense_levels_too_fine_to_index_share_one_entry() -> None:
    level = grid_layout(GridConfig(2, 1, 19, 3, 100.0, kind="Tiled", n_dims=4)).levels[1]
    assert (level.resolution, level.size) == (300, 81)
    cell, _ = twin.locate(torch.rand(10, 4), level)
    assert twin.corner_addresses(cell, level).count_nonzero() == 0


def test_initial_numbers() -> None:
    expected = torch.tensor([-7.0460126e-05, -3.4031153e-05, 3.8013262e-05, -8.278701e-05])
    torch.testing.assert_close(initial_params(3000)[:4], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [1, 511, 512, 300000])
def test_initial_numbers_one_after_the_other(count: int) -> None:
    threads = -(-count // 512) * 128
    state, numbers = 0, []
    state = (3 + 7) * 6364136223846793005 + 3 & (1 << 64) - 1
    for _ in range(min(4 * threads, 4096)):
        mixed = ((state >> 18) ^ state) >> 27 & 0xFFFFFFFF
        turn = state >> 59
        out = (mixed >> turn | mixed << (32 - turn)) & 0xFFFFFFFF
        numbers.append(np.uint32(out >> 9 | 0x3F800000).view(np.float32) - np.float32(1))
        state = state * 6364136223846793005 + 3 & (1 << 64) - 1
    params = initial_params(count, seed=7, bound=1.0)
    for position, number in enumerate(numbers):
        entry = position // 4 + threads * (position % 4)
        if entry < count:
            assert params[entry].item() == number * np.float32(2) - np.float32(1)


def test_initial_numbers_of_a_large_table_take_seconds() -> None:
    started = time.perf_counter()
    params = initial_params(20_000_000)
    assert time.perf_counter() - started < 5
    assert params.min() >= -1e-4
    assert params.max() < 1e-4
    assert abs(params.mean()) < 1e-7


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"n_levels": 0}, "n_levels"),
        ({"n_features": 3}, "n_features"),
        ({"n_dims": 5}, "n_dims"),
        ({"log2_hashmap_size": 31}, "log2_hashmap_size"),
        ({"base_resolution": 0}, "base_resolution"),
        ({"per_level_scale": 0.0}, "per_level_scale"),
        ({"per_level_scale": float("nan")}, "per_level_scale"),
        ({"interpolation": "Cubic"}, "interpolation"),
        ({"kind": "Sparse"}, "kind"),
    ],
)
def test_nonsense_is_refused(settings: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        GridConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"n_levels": 8, "kind": "Dense", "base_resolution": 1200}, {"per_level_scale": 10.0}, {"n_levels": 128}],
)
def test_tables_too_large_are_refused(settings: dict) -> None:
    with pytest.raises(UserError, match=r"hash.grid"):
        grid_layout(GridConfig(**settings))
