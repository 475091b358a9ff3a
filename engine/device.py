"""The one place that decides where inference runs, and a clock that waits for it."""

from __future__ import annotations

import time

import torch


def best_device() -> torch.device:
    """CUDA where there is a GPU, else the CPU. (`CUDA_VISIBLE_DEVICES=` forces the CPU.)"""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clock(device: torch.device) -> float:
    """Seconds on a monotonic clock, read once the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
