"""A small depth-completion method on small rooms."""

from __future__ import annotations

from typing import Any

from dataloader.depth.samples import SampleSettings
from dataloader.room_scenes import RoomsConfig
from engine.config import DataConfig, Experiment, TrainingConfig
from methods.scene_lifting.config import NetworkConfig, SceneLiftingConfig


def tiny_network_config() -> NetworkConfig:
    return NetworkConfig(
        height=32,
        width=64,
        hidden=16,
        layers=4,
        heads=2,
        mlp=32,
        window=4,
        hooks=(1, 2, 3, 4),
        reassemble=(4, 8, 8, 8),
        features=8,
        bins=8,
    )


def tiny_config() -> SceneLiftingConfig:
    samples = SampleSettings(crop=False, rescale=False, inpaint_probability=0.8)
    return SceneLiftingConfig(start="", equal_rates=True, network=tiny_network_config(), samples=samples)


def toy(**changes: Any) -> Experiment:
    """An experiment on eight rooms, 20 steps with moving averages."""
    training = TrainingConfig(
        **{
            "steps": 20,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "clip_norm": 1.0,
            "ema_decay": 0.9,
            "log_every": 1,
            "save_every": 12,
            "tracker": "none",
            **changes,
        }
    )
    rooms = RoomsConfig(seeds="0:8", test_seeds="100:103")
    data = DataConfig(root="builtin:rooms", rooms=rooms, validation_scenes=2)
    return Experiment("scene_lifting", tiny_config(), data, training)
