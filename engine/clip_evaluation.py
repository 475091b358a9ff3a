"""What the evaluation of clips remembers from moment to moment: states to reuse, regions, pooled scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dataloader.scene import Scene
from dataloader.scene_sets import FilmedScenes
from engine.config import DataConfig
from engine.method import Method
from engine.reports import Report
from engine.rig_metrics import DEFINITIONS, ClipScores, Pool
from engine.rig_regions import RegionFinder, Regions
from engine.tasks import Loaded, Tasks, ViewsOf
from geometry.views import Views

_BY_VISIBILITY = ("psnr_disoccluded", "psnr_recoverable")  # scores that depend on what sources see


@dataclass
class ClipEvaluation:
    """The evaluation of one method on clips.

    scenes: the set evaluated. views: how photos are taken. scores: per variant of the tasks. depths: of the
    plates of each clip, which all methods share. Clips are gone through one after the other, each in the
    order of its moments.
    """

    scenes: FilmedScenes
    data: DataConfig
    views: ViewsOf
    device: torch.device
    scores: list[ClipScores]
    depths: dict[int, dict[str, Tensor]]
    clip: int = -1
    finder: RegionFinder = field(default_factory=RegionFinder)
    states: dict[int, tuple[tuple[Any, ...], Any]] = field(
        default_factory=dict
    )  # per variant: sources, state
    missing: dict[str, str] = field(default_factory=dict)
    basis: str = ""

    def enter(self, loaded: Loaded, task_scene: int) -> None:
        """Go on to a moment; what is remembered of another clip is dropped."""
        clip = self.scenes.moment(task_scene)[0]
        scene = loaded.scene
        if clip == self.clip or scene is None:
            return
        self.clip = clip
        self.states.clear()
        depths = self.depths.setdefault(clip, {})
        self.finder = RegionFinder(lambda: self._all_views(scene), depths=depths)

    def _all_views(self, scene: Scene) -> Views:
        """Every camera of the clip, with its plate."""
        return self.views(scene, range(len(scene)), self.data).to(self.device)

    def encode(self, method: Method, variant: int, source: Views) -> Any:
        """The sources' state, made with the one of the moment before where the method can use that."""
        if not method.reuses_moments:
            return method.encode(source)
        names, last = self.states.get(variant, ((), None))
        state = method.encode(source, reuse=last if names == tuple(source.names) else None)
        self.states[variant] = (tuple(source.names), state)
        return state

    def score(
        self, variant: int, scene: int, source: Views, target: Views, images: Tensor, counts: bool
    ) -> tuple[list[dict[str, float]], Regions]:
        """Scores of targets [N] of one moment, and the regions they are over.

        counts: False for a moment that is there for the one after it only.
        """
        regions = self.finder.find(source, target)
        self.missing |= self.finder.missing
        self.basis = self.finder.basis or self.basis
        place = self.scenes.moment(scene)
        cameras = [(tuple(source.names), name) for name in target.names]
        return self.scores[variant].add(place, cameras, images, target.images, regions, counts), regions

    def finish(self, reports: list[Report], missing: dict[str, str]) -> None:
        """Put pooled scores and definitions into the reports, and take scores out that no image can have.

        missing: score -> why, filled.
        """
        for report, scores in zip(reports, self.scores, strict=True):
            report.pooled |= scores.pooled()
            report.definitions |= DEFINITIONS
            for name in (f"{score}{pooled}" for score in _BY_VISIBILITY for pooled in ("", "_pooled")):
                report.definitions[name] += f"; {self.basis}"
            for name in self.missing:
                if report.rows and name in report.rows[0] and not report.defined(name):
                    for row in report.rows:
                        del row[name]
        missing |= self.missing

    def gathered(self) -> tuple[list[dict[str, Pool]], dict[str, str], str]:
        """What another process needs to know."""
        return [scores.pools for scores in self.scores], self.missing, self.basis

    def merge(self, others: tuple[list[dict[str, Pool]], dict[str, str], str]) -> None:
        """Take in what another process `gathered`."""
        for scores, pools in zip(self.scores, others[0], strict=True):
            scores.merge(pools)
        self.missing = others[1] | self.missing
        self.basis = self.basis or others[2]

    def lead_in(self, tasks: Tasks, own: list[int]) -> list[int]:
        """Positions of the tasks on the moment before a process's first one, which another process scores."""
        if not own:
            return []
        first = tasks.tasks[own[0]].scene
        if self.scenes.moment(first)[1] == 0:
            return []
        return [p for p, task in enumerate(tasks.tasks) if task.scene == first - 1 and p not in own]
