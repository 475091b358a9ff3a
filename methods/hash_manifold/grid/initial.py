"""The numbers a hash grid starts from: the pcg32 stream of tiny-cuda-nn, many at a time.

Source: specs/hash_manifold 9.6; O'Neill, PCG (2014): XSH-RR 64/32 and its jump-ahead.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from geometry.threads import run_all

_MULTIPLIER = 6364136223846793005
_INCREMENT = 3  # 2 * stream + 1, stream 1
_UINT64 = 1 << 64
_PER_THREAD = 4  # consecutive numbers one thread of the original's kernel draws
_BLOCK = 128  # threads per block of that kernel
_CHUNK = 1 << 15  # threads worked on at a time: arrays that stay in the cache


def initial_params(count: int, seed: int = 1337, bound: float = 1e-4) -> Tensor:
    """tiny-cuda-nn's initial table, flat [count] float32, uniform in [-bound, bound).

    The original's thread i draws positions 4i to 4i + 3 of the stream for the entries i, i + T, i + 2T and
    i + 3T, T threads in all.
    """
    threads = -(-count // (_PER_THREAD * _BLOCK)) * _BLOCK
    params = np.empty(_PER_THREAD * threads, np.float32)
    columns = params.reshape(_PER_THREAD, threads)
    jumps = _jumps(min(_CHUNK, threads), _PER_THREAD)
    starts = range(0, threads, _CHUNK)
    run_all([partial(_fill, columns[:, at : at + _CHUNK], _seeded(seed, at), jumps, bound) for at in starts])
    return torch.from_numpy(params[:count])


def _fill(columns: np.ndarray, state: int, jumps: tuple[np.ndarray, np.ndarray], bound: float) -> None:
    """Draw for consecutive threads, one per column of [4, n]; `state` is that of the first."""
    multipliers, increments = (jump[: columns.shape[1]] for jump in jumps)
    scale, low = np.float32(2 * bound), np.float32(bound)
    states = multipliers * np.uint64(state)
    states += increments
    for numbers in columns:
        np.multiply(_uniform(states), scale, out=numbers)
        numbers -= low
        states *= np.uint64(_MULTIPLIER)
        states += np.uint64(_INCREMENT)


def _seeded(seed: int, thread: int) -> int:
    """The state before the first number of a thread."""
    start = _advance((_INCREMENT + seed) % _UINT64, 1)  # from state 0: step, add the seed, step
    return _advance(start, _PER_THREAD * thread)


def _advance(state: int, steps: int) -> int:
    """The state `steps` steps later, in O(log steps)."""
    multiplier, increment, power, plus = 1, 0, _MULTIPLIER, _INCREMENT
    while steps:
        if steps & 1:
            multiplier, increment = multiplier * power % _UINT64, (increment * power + plus) % _UINT64
        power, plus = power * power % _UINT64, (power + 1) * plus % _UINT64
        steps >>= 1
    return (multiplier * state + increment) % _UINT64


def _jumps(count: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and increments [count] that lead 0, stride, 2 stride, ... steps ahead, by doubling."""
    multipliers, increments = np.ones(1, np.uint64), np.zeros(1, np.uint64)
    while len(multipliers) < count:
        steps = stride * len(multipliers)
        plus = _advance(0, steps)
        times = (_advance(1, steps) - plus) % _UINT64
        increments = np.concatenate([increments, multipliers * np.uint64(plus) + increments])
        multipliers = np.concatenate([multipliers, multipliers * np.uint64(times)])
    return multipliers[:count], increments[:count]


def _uniform(states: np.ndarray) -> np.ndarray:
    """The outputs of states [n] as float32 numbers in [0, 1)."""
    mixed = states >> np.uint64(18)
    mixed ^= states
    mixed >>= np.uint64(27)
    word, turn = mixed.astype(np.uint32), (states >> np.uint64(59)).astype(np.uint32)
    bits = word >> turn
    bits |= word << (-turn & np.uint32(31))
    bits >>= np.uint32(9)
    bits |= np.uint32(0x3F800000)
    return bits.view(np.float32) - np.float32(1)
