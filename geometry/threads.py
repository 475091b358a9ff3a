"""Work that releases the interpreter lock, spread over as many threads as PyTorch may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

Job = Callable[[], object]


def run_all(jobs: Sequence[Job]) -> None:
    """Run the jobs on `torch.get_num_threads()` threads; the first exception of a job is raised here.

    Threads live for one call: nothing lingers that a forked data worker would wait for.
    """
    threads = min(torch.get_num_threads(), len(jobs))
    if threads <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
