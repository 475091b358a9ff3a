"""Settings of the method (`model:`). Names of the original's `parameter.py`: docs/hash_manifold.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import UserError


@dataclass
class HashManifoldConfig:
    """What is built, what a training sample is, and how views are rendered."""

    # hash grid
    levels: int = 16
    features: int = 8  # per level
    log2_table: int = 19  # entries per level, log2
    base_resolution: int = 16  # vertices per axis of the coarsest level
    finest_resolution: int = 0  # of the finest level; 0 = by level_growth
    level_growth: float = (
        1.4768261459394993  # factor between levels (the original's finest cell: extent / 5546)
    )
    box: Literal["mesh", "cube"] = (
        "cube"  # unit box of the encoding: the mesh's (original), or a cube around it
    )
    encoding: Literal["auto", "twin", "compiled", "numba", "triton", "tinycudann"] = "auto"
    # decoder
    width: int = 64
    lighting: int = 8  # length of the lighting code
    lights: int = 1  # lighting codes
    exposure: Literal["none", "code", "gain"] = (
        "gain"  # per photo: nothing, a code (original), RGB gains in linear light
    )
    exposure_length: int = 4  # of the code
    # colour and camera
    supersample: int = 1  # s: every pixel has s x s surface samples
    original_colours: bool = False  # photos / 256, widened transfer, floor to 8 bits
    original_camera: bool = False  # fx := fy, principal point := image centre, no skew
    # training
    rays: int = 16384  # pixels per sample (times `views`, where given)
    views: int = 0  # photos per sample, each with `rays` pixels; 0 = pixels of all photos alike
    loss: Literal["l1", "l2"] = "l1"
    sparse_optimizer: bool = True  # move only table entries that the step has touched
    table_learning_rate: float = 0.0  # 0 = training.learning_rate
    beta2: float = 0.99  # of Adam
    eps: float = 1e-15  # of Adam
    # rendering
    render_rays: int = 65536  # pixels decoded at a time
    background: Literal["black", "white"] = "black"  # where the mesh has no surface
    render_exposure: str = "mean"  # as the 'mean' photo, the 'nearest' one, or a row of the exposure table

    def __post_init__(self) -> None:
        for name in ("levels", "features", "base_resolution", "supersample", "rays", "render_rays", "width"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}: it must be at least 1")
        if self.lights < 1 or self.lighting < 1 or self.exposure_length < 1:
            raise UserError("model.lights, model.lighting and model.exposure_length must be at least 1")
        if self.render_exposure not in ("mean", "nearest") and not self.render_exposure.isdigit():
            raise UserError(
                f"model.render_exposure is {self.render_exposure!r}: choose mean, nearest or a position"
            )
        if self.finest_resolution and self.finest_resolution <= self.base_resolution:
            raise UserError(
                f"model.finest_resolution is {self.finest_resolution}: it must exceed model.base_resolution"
            )

    @property
    def growth(self) -> float:
        """Factor between the resolutions of neighbouring levels."""
        if not self.finest_resolution or self.levels == 1:
            return self.level_growth
        return (self.finest_resolution / self.base_resolution) ** (1 / (self.levels - 1))
