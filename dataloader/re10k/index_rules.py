"""Rules that choose the views of an evaluation index (specs/lvsm 4.3, 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from common.errors import UserError
from dataloader.re10k.index import Entries, Entry
from geometry.cameras import Cameras
from geometry.overlap import overlap

DTU_TARGETS = (32, 24, 23, 44)


@dataclass(frozen=True)
class IndexRule:
    """What the outer source views of an entry must satisfy.

    Distances in frames. Overlap: `geometry.overlap.overlap`, in [0, 1]. min_tgt_to_ctx_distance: of a target
    from any source (`interior_entry` alone).
    """

    num_context_views: int = 2
    num_target_views: int = 3
    min_ctx_overlap: float = 0.6
    max_ctx_overlap: float = 1.0
    min_ctx_distance: int = 45
    max_ctx_distance: int = 135
    min_tgt_to_ctx_distance: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.min_ctx_distance <= self.max_ctx_distance:
            raise UserError(
                f"--min_ctx_distance {self.min_ctx_distance} and --max_ctx_distance {self.max_ctx_distance}: "
                "at least 1, and in this order"
            )
        if not 0 <= self.min_ctx_overlap <= self.max_ctx_overlap <= 1:
            raise UserError(
                f"--min_ctx_overlap {self.min_ctx_overlap} and --max_ctx_overlap {self.max_ctx_overlap}: "
                "in [0, 1], and in this order"
            )
        if self.num_context_views < 2 or self.num_target_views < 1:
            raise UserError("--num_context_views is at least 2, --num_target_views at least 1")
        if self.num_target_views > self.min_ctx_distance + 1:
            raise UserError(
                f"--num_target_views {self.num_target_views} do not fit between sources "
                f"{self.min_ctx_distance} frames apart: raise --min_ctx_distance"
            )

    def fits(self, value: float) -> bool:
        """Whether an overlap is in range."""
        return self.min_ctx_overlap <= value <= self.max_ctx_overlap


def coarse(cameras: Cameras, side: int = 64) -> Cameras:
    """The cameras of smaller images, which is enough to measure overlaps: long side `side` pixels."""
    scale = side / max(cameras.height, cameras.width)
    if scale >= 1:
        return cameras
    return cameras.resize(max(1, round(cameras.height * scale)), max(1, round(cameras.width * scale)))


def pair_entry(cameras: Cameras, rule: IndexRule, generator: torch.Generator) -> Entry | None:
    """Version 1: two sources, targets anywhere from one to the other, sources included.

    From frames in random order, walk away in both directions from `min_ctx_distance` on for as long as the
    overlap is enough, and take one of the frames met whose overlap is in range. The walk ends one frame
    beyond `max_ctx_distance`, as the original's. None where no pair of frames qualifies.
    """
    for start in torch.randperm(len(cameras), generator=generator).tolist():
        met = [frame for way in (1, -1) for frame in _walk(cameras, start, way, rule)]
        if met:
            other = met[int(torch.randint(0, len(met), (), generator=generator))]
            left, right = min(start, other), max(start, other)
            return (left, right), _distinct(left, right, rule.num_target_views, generator)
    return None


def _walk(cameras: Cameras, start: int, way: int, rule: IndexRule) -> list[int]:
    """Frames on one side of `start` whose overlap with it is in range."""
    met = []
    frame = start + way * rule.min_ctx_distance
    while 0 <= frame < len(cameras):
        value = overlap(cameras[start], cameras[frame])
        if rule.fits(value):
            met.append(frame)
        if value < rule.min_ctx_overlap or abs(frame - start) > rule.max_ctx_distance:
            break
        frame += way
    return met


def _distinct(left: int, right: int, count: int, generator: torch.Generator) -> tuple[int, ...]:
    """`count` different frames of left .. right, in order: draws are repeated until they differ."""
    while True:
        drawn = torch.randint(left, right + 1, (count,), generator=generator)
        if len(drawn.unique()) == count:
            return tuple(sorted(drawn.tolist()))


def interior_entry(cameras: Cameras, rule: IndexRule, generator: torch.Generator) -> Entry | None:
    """Version 2: `num_context_views` sources; targets strictly between the outer two, away from any source.

    Of the sources, the first two are the outer ones, so that the first k are an entry of k sources. None
    where no pair of outer frames qualifies, or the one found leaves too few targets.
    """
    pair = _outer_pair(cameras, rule, generator)
    if pair is None:
        return None
    left, right = pair
    inside = torch.randperm(right - left - 1, generator=generator) + left + 1
    extra = inside[: rule.num_context_views - 2].tolist()
    sources = (left, right, *extra)
    free = [
        frame
        for frame in range(left + 1, right)
        if min(abs(frame - source) for source in sources) >= max(rule.min_tgt_to_ctx_distance, 1)
    ]
    if len(free) < rule.num_target_views or len(extra) < rule.num_context_views - 2:
        return None
    drawn = torch.randperm(len(free), generator=generator)[: rule.num_target_views]
    return sources, tuple(sorted(free[i] for i in drawn.tolist()))


def _outer_pair(cameras: Cameras, rule: IndexRule, generator: torch.Generator) -> tuple[int, int] | None:
    """A random left frame and a random right one that qualify together."""
    for left in torch.randperm(len(cameras), generator=generator).tolist():
        low = left + rule.min_ctx_distance
        high = min(left + rule.max_ctx_distance, len(cameras) - 1)
        for offset in torch.randperm(max(high - low + 1, 0), generator=generator).tolist():
            if rule.fits(overlap(cameras[left], cameras[low + offset])):
                return left, low + offset
    return None


def nested(entries: Entries, count: int) -> Entries:
    """Entries with the first `count` sources of each, in order of their frames."""
    return {
        key: None if entry is None else (tuple(sorted(entry[0][:count])), entry[1])
        for key, entry in entries.items()
    }


def video_entry(entry: Entry | None) -> Entry | None:
    """The same sources, and every frame from the first to the last of them as target."""
    if entry is None:
        return None
    return entry[0], tuple(range(min(entry[0]), max(entry[0]) + 1))


def nearest_entry(
    cameras: Cameras, count: int, targets: Sequence[int] = DTU_TARGETS, candidates: Sequence[int] = ()
) -> Entry | None:
    """The DTU rule: fixed targets, and as sources the `count` views nearest to all of them.

    Nearest by the sum over the targets of the L1 distance between camera centres. candidates: views to choose
    from; empty takes all but the targets. None where the scene lacks a target or candidates.
    """
    if max(targets) >= len(cameras):
        return None
    views = [v for v in candidates or range(len(cameras)) if v not in targets and v < len(cameras)]
    if len(views) < count:
        return None
    centers = cameras.center
    distance = (centers[views][:, None] - centers[list(targets)]).abs().sum((-1, -2))
    nearest = distance.argsort(stable=True)[:count].tolist()
    return tuple(views[i] for i in nearest), tuple(targets)
