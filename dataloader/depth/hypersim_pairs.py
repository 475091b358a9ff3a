"""Pairs of Hypersim frames that see almost the same: found by rendering, kept in a table, read as depth tasks
(specs/scene_lifting 6.2).
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.depth.hypersim import CameraParameters, HypersimCamera, read_table, scene_cameras
from dataloader.depth.pairs import DepthProtocol, SkippedPair, known_points, make_task
from dataloader.depth.tasks import DepthTask
from geometry.cameras import Cameras

log = logging.getLogger(__name__)

MIN_OVERLAP, MAX_ERROR = 0.8, 0.1  # share of the second frame's pixels; metres
_CPU = torch.device("cpu")
_COLUMNS = ("scene", "camera", "frame_id", "remaining_frame_id", "overlap")


@dataclass(frozen=True)
class FramePair:
    """Two key frames of a camera. overlap: share of the second's pixels that the first one's points hit.
    error: mean difference there between its depth and theirs, metres (nan: not known).
    """

    camera: str
    first: int
    second: int
    overlap: float
    error: float = float("nan")

    @property
    def accepted(self) -> bool:
        """Whether the benchmark takes the pair."""
        return self.overlap >= MIN_OVERLAP and self.error <= MAX_ERROR


def compare_frames(
    points: Tensor, depth: Tensor, camera: Cameras, protocol: DepthProtocol
) -> tuple[float, float]:
    """Overlap and error of a pair, as `FramePair` has them.

    points: [P, 3] of the first frame, metres. depth: [H, W] of the second, 0 where unknown; such pixels enter
    the error in the legacy protocol only. camera: of the second, single. The error is nan without a hit.
    """
    rendered = protocol.render(points, camera)
    assert rendered.depth is not None
    assert rendered.opacity is not None
    seen = rendered.depth[0] > 0
    if not protocol.legacy:
        seen &= depth > 0
    error = (depth - rendered.depth[0])[seen].abs().mean()
    return float(rendered.opacity.mean()), float(error)


def find_pairs(
    camera: HypersimCamera, protocol: DepthProtocol, device: torch.device = _CPU
) -> Iterator[FramePair]:
    """Every pair i < j of a camera's key frames, compared; frames that lack a file are named and left out.

    device: where points are drawn.
    """
    frames = [frame for frame in camera.frames if _present(camera, frame, protocol)]

    @lru_cache(maxsize=128)  # a camera has up to 100 key frames
    def depth(frame: int) -> Tensor:
        return camera.depth(frame).to(device)

    for i, first in enumerate(progress(frames, f"{camera.scene.name} {camera.name}", leave=False)):
        points = frame_points(camera, first, protocol).to(device)
        for second in frames[i + 1 :]:
            overlap, error = compare_frames(points, depth(second), camera.camera(second), protocol)
            yield FramePair(camera.name, first, second, overlap, error)


def frame_points(camera: HypersimCamera, frame: int, protocol: DepthProtocol) -> Tensor:
    """World points [P, 3] in metres of the frame's own depth (legacy: of its position map)."""
    return camera.points(frame) if protocol.legacy else known_points(camera.view(frame, photo=False))


def _files(camera: HypersimCamera, frame: int, protocol: DepthProtocol, photo: bool) -> list[Path]:
    """The files that a frame is read from."""
    images = camera.scene / "images"
    geometry = images / f"scene_{camera.name}_geometry_hdf5"
    files = [geometry / f"frame.{frame:04d}.depth_meters.hdf5"]
    if protocol.legacy:
        files.append(geometry / f"frame.{frame:04d}.position.hdf5")
    if photo:
        files.append(images / f"scene_{camera.name}_final_hdf5" / f"frame.{frame:04d}.color.hdf5")
    return files


def _present(camera: HypersimCamera, frame: int, protocol: DepthProtocol) -> bool:
    for path in _files(camera, frame, protocol, photo=False):
        if not path.is_file():
            log.warning("frame %d is left out: %s is missing", frame, path)
            return False
    return True


def write_pairs(scene: str, pairs: list[FramePair], path: Path) -> None:
    """Write a table of pairs as the original does."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["", *_COLUMNS])
        for i, pair in enumerate(pairs):
            writer.writerow([i, scene, pair.camera, pair.first, pair.second, pair.overlap])


def read_pairs(path: Path) -> list[FramePair]:
    """The pairs of a table, which may be none. Raises UserError when it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path} does not exist: make it with python scripts/benchmark.py hypersim-pairs")
    if path.read_text(encoding="utf-8").strip() == "," + ",".join(_COLUMNS):
        return []
    found = []
    for row in read_table(path, _COLUMNS):
        try:
            frames = int(row["frame_id"]), int(row["remaining_frame_id"])
            found.append(FramePair(row["camera"], *frames, float(row["overlap"])))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): make it again with hypersim-pairs") from None
    return found


@dataclass(frozen=True)
class HypersimScene:
    """A scene's folder and the pairs found in it. root: the folder of all scenes."""

    root: Path
    parameters: CameraParameters
    protocol: DepthProtocol

    @property
    def name(self) -> str:
        return self.parameters.scene

    @property
    def table(self) -> Path:
        """Where its pairs are listed."""
        return self.root / f"{self.name}_pairs.csv"

    def cameras(self) -> list[HypersimCamera]:
        """Its cameras. Raises UserError when the scene is not there."""
        return scene_cameras(self.root / self.name, self.parameters, self.protocol.legacy)

    def tasks(self) -> Iterator[DepthTask | SkippedPair]:
        """The pairs of its table, in order; those that lack a file are skipped, and say why."""
        pairs = read_pairs(self.table)
        cameras = {camera.name: camera for camera in self.cameras()} if pairs else {}
        for pair in pairs:
            if pair.camera not in cameras:
                raise UserError(
                    f"{self.table} names the camera {pair.camera!r}, the scene has none of that name"
                )
            yield self._task(cameras[pair.camera], pair)

    def _task(self, camera: HypersimCamera, pair: FramePair) -> DepthTask | SkippedPair:
        name = f"{pair.camera} {pair.first}-{pair.second}"
        files = _files(camera, pair.first, self.protocol, photo=False)
        files += _files(camera, pair.second, self.protocol, photo=True)
        lacking = next((path for path in files if not path.is_file()), None)
        if lacking is not None:
            photo = lacking.name.endswith("color.hdf5")
            return SkippedPair(self.name, name, f"{lacking} is missing", counted=photo)
        source = camera.view(pair.first, photo=_files(camera, pair.first, self.protocol, True)[-1].is_file())
        points = camera.points(pair.first) if self.protocol.legacy else None
        return make_task(source, camera.view(pair.second), self.protocol, self.name, name, points)
