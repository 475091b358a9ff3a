"""Frames of a video on their way to disk: rendered in any order, written by threads, read back in order.

Memory is bounded however long a video is: few frames wait to be written, and videos are encoded from the
files, one frame after the other.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import torch

from common.cli import progress
from common.errors import UserError
from dataloader.images import read_image, to_uint8, write_image
from engine.method import Method
from engine.outputs import prepare_folder
from engine.tasks import ahead
from engine.video import Frame
from geometry.cameras import Cameras
from geometry.views import Rendering, Views

_THREADS = 2  # that write frames: PNG compression is slower than many a renderer
_WAITING = 8  # frames that may wait for them


def frame_file(folder: Path, index: int) -> Path:
    """The file of a frame, as the original numbers them (specs/mask_volume 1.4)."""
    return folder / f"{index:05d}.png"


class FrameWriter:
    """Writes frames as FOLDER/00000.png ... by threads; to be used in a `with` block.

    `put` waits while `waiting` frames are not yet taken up. The first frame that cannot be written ends it:
    `put`, or the end of the block, raises UserError naming the file, and later frames are dropped.
    """

    def __init__(self, folder: Path, threads: int = _THREADS, waiting: int = _WAITING) -> None:
        self.folder = folder
        self._queue: queue.Queue[tuple[int, Frame] | None] = queue.Queue(waiting)
        self._failure: Exception | None = None
        self._given_up = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def put(self, index: int, frame: Frame) -> None:
        """Hand over a frame [H, W, 3] uint8. Raises UserError when an earlier one could not be written."""
        self._raise_failure()
        self._queue.put((index, frame))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._given_up.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        if error is None:
            self._raise_failure()

    def _work(self) -> None:
        """Write frames until told to stop; after a failure only empty the queue, so that nobody waits."""
        while (item := self._queue.get()) is not None:
            if self._given_up.is_set():
                continue
            path = frame_file(self.folder, item[0])
            try:
                write_image(item[1], path)
            except Exception as error:  # handed to the thread that renders
                if not self._given_up.is_set():
                    self._failure = _as_user_error(error, path)
                self._given_up.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _as_user_error(error: Exception, path: Path) -> UserError:
    if isinstance(error, UserError):
        return error
    failure = UserError(f"cannot write {path} ({error})")
    failure.__cause__ = error
    return failure


@dataclass
class Footage:
    """The frames of a video in files. folder: of frames 0 ... count - 1. covered: whether any shows
    anything.
    """

    folder: Path
    count: int = 0
    covered: bool = False

    def frame(self, index: int) -> Frame:
        """[H, W, 3] uint8."""
        return read_image(frame_file(self.folder, index))

    def __iter__(self) -> Iterator[Frame]:
        """The frames in order, each read when it is asked for."""
        return (self.frame(i) for i in range(self.count))

    def move_to(self, folder: Path) -> None:
        """Move the files into another folder of the same disk, in place of frames that it has."""
        prepare_folder(folder)
        stale = [path for path in folder.glob("[0-9]" * 5 + ".png") if int(path.stem) >= self.count]
        try:
            for index in range(self.count):
                os.replace(frame_file(self.folder, index), frame_file(folder, index))
            for path in stale:  # of a longer video that was here before
                path.unlink()
        except OSError as error:
            raise UserError(f"cannot write the frames in {folder} ({error.strerror or error})") from None
        self.folder = folder


@contextmanager
def spooled(
    views: Iterable[tuple[int, Rendering]], count: int, name: str, folder: Path, quiet: bool = False
) -> Iterator[Footage]:
    """Write renders as files of a temporary folder beside the output, while the block lasts.

    views: pairs of a frame's number and its render [1], in any order; each of 0 ... count - 1 once, or none
    at all. name: of the video, for the progress bar. Raises UserError when a frame cannot be written.
    """
    with TemporaryDirectory(prefix=f".{name}.", dir=prepare_folder(folder)) as place:
        footage = Footage(Path(place))
        with FrameWriter(footage.folder) as writer:
            for index, rendering in progress(views, name, count, "frame", disable=quiet):
                footage.covered = footage.covered or bool(rendering.covered().any())
                writer.put(index, to_uint8(rendering.image[0]))
                footage.count += 1
        yield footage


def moments_of(cameras: Cameras, count: int) -> list[int]:
    """Which of a clip's `count` moments each camera [N] of a path sees: its `time`, else its place, from 0.

    Times count moments and are rounded; past the end the clip starts again (specs/mask_volume 1.4).
    """
    if cameras.time is None:
        return [i % count for i in range(len(cameras))]
    return [round(time) % count for time in cameras.time.tolist()]


def clip_views(
    method: Method,
    source: Callable[[int], Views],
    cameras: Cameras,
    moments: Sequence[int],
    batch_size: int = 1,
    first: Callable[[Any], None] | None = None,
) -> Iterator[tuple[int, Rendering]]:
    """Film a clip: pairs of the number of a pose and what it sees, a render [1].

    source: reads the views given at a moment, on the method's device. moments: of the poses cameras [N].
    first: is shown the state of the earliest of them. Poses are taken moment by moment, so that each moment
    is read and encoded once, the next one being read meanwhile; two moments' states are in memory at most. To
    be gone through without gradients. Raises UserError, with the frame's number, where a pose cannot be
    rendered.
    """
    state: Any = None
    earliest = min(moments)
    for moment, views in ahead(lambda moment: (moment, source(moment)), sorted(set(moments))):
        with torch.enable_grad():  # some methods optimise here
            state = method.encode(views, reuse=state if method.reuses_moments else None)
        if first is not None and moment == earliest:
            first(state)
        poses = [i for i, own in enumerate(moments) if own == moment]
        for start in range(0, len(poses), batch_size):
            chosen = poses[start : start + batch_size]
            try:
                rendering = method.render(state, cameras[torch.tensor(chosen)])
            except UserError as error:
                raise UserError(f"frame {', '.join(map(str, chosen))} of the path: {error}") from None
            yield from ((pose, _single(rendering, i)) for i, pose in enumerate(chosen))


def _single(rendering: Rendering, index: int) -> Rendering:
    """What a video needs of one of several renders."""
    opacity = rendering.opacity
    part = slice(index, index + 1)
    return Rendering(rendering.image[part], opacity=None if opacity is None else opacity[part])
