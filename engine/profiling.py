"""Measuring work: floating-point operations, seconds, memory, and the machine's peak to compare with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from engine.device import clock

_MATRIX = {"cuda": 8192, "cpu": 2048}  # side of the multiplied matrices: large enough for the device's best
_RSS_INTERVAL = 0.001  # seconds between looks at the process's memory


@dataclass(frozen=True)
class Measured:
    """One kind of work. flops: floating-point operations of matrix products, convolutions and attention.

    seconds: median of the repeats. memory: peak bytes, on CUDA allocated and reserved, on the CPU the growth
    of the process ('resident'), which memory that was free already hides.
    """

    flops: int
    seconds: float
    memory: dict[str, int]


def measure(work: Callable[[], Any], device: torch.device, repeats: int = 3) -> Measured:
    """Do the work once to warm up, once counted, and `repeats` times by the clock."""
    with peak_memory(device) as memory:
        work()
        clock(device)
    flops = count_flops(work)
    seconds = []
    for _ in range(repeats):
        started = clock(device)
        work()
        seconds.append(clock(device) - started)
    return Measured(flops, median(seconds), memory)


def count_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products, convolutions and attention that the work does."""
    from torch.utils.flop_counter import FlopCounterMode

    counter: Any = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops())


@contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, int]]:
    """Peak memory of a block, filled in when it ends."""
    found: dict[str, int] = {}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found["allocated"] = torch.cuda.max_memory_allocated(device)
        found["reserved"] = torch.cuda.max_memory_reserved(device)
        return
    import psutil

    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(_RSS_INTERVAL):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
    found["resident"] = max(peak, process.memory_info().rss) - before


def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP/s of the best large matrix product in this precision, over about so many seconds of trying."""
    side = _MATRIX[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds or not best:
        before = clock(device)
        a @ b
        best = max(best, 2 * side**3 / (clock(device) - before))
    return best


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device has not enough memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
