"""Settings of clips (`data.rig`)."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UserError
from dataloader.room_scenes import seed_range

RIGS = "builtin:rigs"


@dataclass
class RigConfig:
    """Clips of a rig (`data.rig`): which cameras and moments are used; the clips of builtin:rigs.

    Seeds: 'FIRST:LAST' (LAST left out). Cameras and moments count from 0.
    """

    sources: tuple[int, ...] = ()  # cameras given when tested, the reference first; empty = the middle ones
    targets: tuple[int, ...] = ()  # cameras scored when tested; empty = all others
    start: int = 0  # first moment used
    end: int = 0  # the moment after the last one used; 0 = all
    every: int = 1  # every n-th moment of these
    background: str = ""  # folder of the plates; empty = 'background' in the clip's folder
    seeds: str = "0:64"  # of builtin:rigs: clips to train on
    test_seeds: str = "100000:100004"  # of builtin:rigs: clips to test with, never the same
    frames: int = 6  # of builtin:rigs: moments of a clip
    size: tuple[int, int] = (72, 128)  # of builtin:rigs: height and width of the photos in pixels
    cameras: int = 0  # of builtin:rigs: cameras per clip; 0 = 4 to 10, as drawn

    def __post_init__(self) -> None:
        train, test = (seed_range(seeds, "data.rig") for seeds in (self.seeds, self.test_seeds))
        if set(train) & set(test):
            raise UserError(f"data.rig: seeds {self.seeds} and test_seeds {self.test_seeds} overlap")
        if self.start < 0 or self.end < 0 or self.every < 1 or self.frames < 1:
            raise UserError("data.rig: start and end must be at least 0, every and frames at least 1")
        if self.cameras and self.cameras < 2:
            raise UserError(f"data.rig.cameras is {self.cameras}: a rig has at least 2, 0 draws how many")
        if min(self.size) < 16:
            raise UserError(f"data.rig.size is {list(self.size)}: height and width must be at least 16")
