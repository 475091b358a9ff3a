"""Videos of scenes and of clips: what a method renders along a path, as files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import UserError
from dataloader.images import to_tensor
from engine.camera_paths import path_name
from engine.clip_takes import ClipTake
from engine.film import Footage, clip_views, spooled
from engine.memory import FILMING, out_of_memory
from engine.method import Method
from engine.sheets import contact_sheet, write_sheet
from engine.takes import Take
from engine.video import write_video
from geometry.cameras import Cameras
from geometry.path_files import write_camera_path
from geometry.views import Rendering

log = logging.getLogger(__name__)

FORMATS = ("gif", "mp4", "png")
FPS = 10.0  # where neither the user nor the path says it
_SHEET_FRAMES = 6


@dataclass
class Filming:
    """How videos are made and written.

    formats: of `FORMATS`; png is a folder of numbered frames. fps: None takes each path's own. at_once: poses
    of a clip rendered together.
    """

    device: torch.device
    formats: Sequence[str] = ("gif", "mp4")
    fps: float | None = None
    at_once: int = 1

    def film_scene(self, method: Method, take: Take) -> Iterator[Path]:
        """Render the paths of a scene; gives the files, as they are written.

        No video where the method makes no views for want of weights.
        """
        with out_of_memory(FILMING):
            state = method.encode(take.source().to(self.device))
        yield from method.write_sources(state, take.folder)
        for path, cameras, own_fps in take.paths:
            cameras = cameras.to(self.device)
            views = enumerate(method.film(state, cameras, take.folder / path_name(path)))
            fps = self.fps or own_fps or FPS
            yield from self.write(views, path, cameras, fps, take.folder, bool(method.missing))

    def film_clip(self, method: Method, take: ClipTake) -> Iterator[Path]:
        """Render the paths of a clip while its time runs; gives the files, as they are written."""
        sources: list[Path] = []

        def write_sources(state: Any) -> None:
            if not sources:
                sources.extend(method.write_sources(state, take.folder))

        for path, cameras, own_fps, moments in take.paths:
            cameras = cameras.to(self.device)
            timed = replace(cameras, time=torch.tensor(moments, device=self.device).double())
            views = clip_views(
                method,
                lambda moment: take.source(moment).to(self.device),
                timed,
                moments,
                self.at_once,
                write_sources,
            )
            written = len(sources)
            files = self.write(views, path, timed, self.fps or own_fps, take.folder)
            yield from (*sources[written:], *files)

    def write(
        self,
        views: Iterable[tuple[int, Rendering]],
        path: str,
        cameras: Cameras,
        fps: float,
        folder: Path,
        partly: bool = False,
    ) -> list[Path]:
        """Write one path's videos, contact sheet and cameras; returns the files.

        views: numbers of frames and their renders. partly: there may be none; then nothing is written.
        Raises UserError when no frame shows anything, and when a file cannot be written.
        """
        name = path_name(path)
        files = [folder / f"{name}.{suffix}" for suffix in self.formats if suffix != "png"]
        with (
            torch.no_grad(),
            out_of_memory(FILMING),
            spooled(views, len(cameras), name, folder, quiet=partly) as footage,
        ):
            if not footage.count:
                return []
            if not footage.covered:
                raise UserError(
                    f"path {path}: the scene is out of view in every frame; does the path fit it?"
                )
            for file in files:
                write_video(footage, file, fps)
            write_sheet(_sheet(footage), folder / f"{name}.png")
            if "png" in self.formats:
                footage.move_to(folder / name)
                files.append(folder / name)
        return [*files, *_write_path(path, cameras, fps, folder / f"{name}.json"), folder / f"{name}.png"]


def _write_path(path: str, cameras: Cameras, fps: float, record: Path) -> list[Path]:
    """Write the cameras as JSON where the format can hold them, never over the path's own file."""
    if record.exists() and record.resolve() == Path(path).resolve():
        return []
    try:
        write_camera_path(cameras, record, fps)
    except UserError as error:  # nerfstudio's format knows centred principal points only
        log.info("the path is not written as JSON: %s", error)
        return []
    return [record]


def _sheet(footage: Footage) -> NDArray[np.uint8]:
    """A few frames side by side."""
    count = min(_SHEET_FRAMES, footage.count)
    chosen = torch.linspace(0, footage.count - 1, count).round().int().tolist()
    return contact_sheet([[to_tensor(footage.frame(i)) for i in chosen]], [f"frame {i}" for i in chosen])
