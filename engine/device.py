"""The one place that decides where inference runs."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """CUDA where there is a GPU, else the CPU. (`CUDA_VISIBLE_DEVICES=` forces the CPU.)"""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
