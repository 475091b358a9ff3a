"""What the web demo does behind its page: one scene at a time from an uploaded photo, stoppable.

Nothing here knows the page. A `Studio` checks a photo, gives its job a folder with a name that cannot be
guessed, and makes one scene after the other.
"""

from __future__ import annotations

import logging
import math
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import replacing
from dataloader.focal import focal_length
from dataloader.images import (
    EncodedImage,
    fit_size,
    image_size,
    read_image,
    resize_image,
    to_uint8,
    write_image,
)
from engine.outputs import prepare_folder
from geometry.glb_files import read_bounds
from methods.scene_lifting.outputs import write_scene
from methods.scene_lifting.state import LiftedScene, LiftedView

logger = logging.getLogger(__name__)

MODEL, GAUSSIANS = "mesh.glb", "gaussians.ply"  # what `write_scene` calls what is shown and given
ARCHIVE = "scene.zip"  # all of it, beside the scene's folder
FILM = "fly_through.mp4"  # shown where `MakeScene` wrote one into its folder
_MULTIPLE = 8  # pixels; sides that the painting model takes
_SMALLEST = 32  # pixels


class MakeScene(Protocol):
    """Makes the scene of a photo. Calls on_view(index, total, view) as each view is there, the photo first.

    focal: in pixels of `photo`; None where the upload does not tell. What `on_view` raises stops it. Files
    that it leaves in `folder` go to the user with the scene's own.
    """

    def __call__(
        self,
        photo: Path,
        focal: float | None,
        prompt: str,
        negative_prompt: str,
        mode: str,
        seed: int,
        on_view: Callable[[int, int, LiftedView], None],
        folder: Path,
    ) -> LiftedScene: ...


@dataclass(frozen=True)
class Limits:
    """What may be uploaded, and the longest side in pixels that photos are reduced to."""

    upload_mb: float = 20.0
    megapixels: float = 50.0
    side: int = 720

    @property
    def upload_bytes(self) -> int:
        return int(self.upload_mb * 2**20)


@dataclass(frozen=True)
class Order:
    """What a user asks for; `photo` is the uploaded file."""

    photo: Path
    prompt: str
    negative_prompt: str = ""
    mode: str = "stage"
    seed: int = 0


@dataclass
class Progress:
    """How far a job is.

    previews: pictures [H, W, 3] of the views so far. seconds: since its start. message: what is 'bad'.
    result: the scene's folder, and viewpoint: see `viewpoint`, once it is 'done'.
    """

    state: Literal["waiting", "working", "writing", "done", "stopped", "bad"] = "waiting"
    done: int = 0
    total: int = 0
    previews: list[NDArray[np.uint8]] = field(default_factory=list)
    seconds: float = 0.0
    message: str = ""
    result: Path | None = None
    viewpoint: tuple[float, float, float] | None = None

    @property
    def over(self) -> bool:
        return self.state in ("done", "stopped", "bad")

    @property
    def seconds_left(self) -> float | None:
        """As if every view took as long as those so far; None while there is none."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None


class _StoppedError(Exception):
    """The user no longer wants the scene."""


class Job:
    """One scene in the making, in a thread of its own that waits for its turn."""

    def __init__(
        self, make_scene: MakeScene, order: Order, focal: float | None, folder: Path, turn: threading.Lock
    ) -> None:
        self.folder = folder
        self._make_scene, self._order, self._focal, self._turn = make_scene, order, focal, turn
        self._progress = Progress()
        self._started = time.monotonic()
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"scene {folder.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop before the next view. Does nothing to a job that is over."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def follow(self, every: float = 1.0) -> Iterator[Progress]:
        """Progress as it happens, and at least every so many seconds; the last one is over."""
        while not (current := self._now()).over:
            yield current
            self._news.wait(every)
            self._news.clear()
        yield current

    def _now(self) -> Progress:
        current = self._progress
        if current.state in ("working", "writing"):
            return replace(current, seconds=time.monotonic() - self._started)
        return current

    def _tell(self, **changes: object) -> None:
        self._progress = replace(self._now(), **changes)  # type: ignore[arg-type]
        self._news.set()

    def _work(self) -> None:
        with self._turn:
            self._started = time.monotonic()
            try:
                self._make()
            except _StoppedError:
                self._give_up(state="stopped")
            except UserError as error:
                self._give_up(state="bad", message=str(error))
            except Exception:
                logger.exception("the scene of %s could not be made", self.folder)
                self._give_up(state="bad", message="The scene could not be made: the server's log says why.")

    def _give_up(self, **changes: object) -> None:
        shutil.rmtree(self.folder)
        self._tell(**changes)

    def _make(self) -> None:
        self._check()
        self._tell(state="working")
        result, order = self.folder / "scene", self._order
        scene = self._make_scene(
            photo=order.photo,
            focal=self._focal,
            prompt=order.prompt,
            negative_prompt=order.negative_prompt,
            mode=order.mode,
            seed=order.seed,
            on_view=self._on_view,
            folder=prepare_folder(result),
        )
        self._check()
        self._tell(state="writing")
        write_scene(scene, result)
        _pack(result, self.folder / ARCHIVE)
        self._tell(state="done", result=result, viewpoint=viewpoint(scene, result / MODEL))

    def _on_view(self, index: int, total: int, view: LiftedView) -> None:
        self._check()
        previews = [*self._progress.previews, to_uint8(view.image)]
        self._tell(done=index + 1, total=total, previews=previews)

    def _check(self) -> None:
        if self._stop.is_set():
            raise _StoppedError


def _pack(folder: Path, archive: Path) -> None:
    """All files of a folder as .zip, quickly packed: most are floats, which hardly shrink."""
    with (
        replacing(archive) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, True, 1) as packed,
    ):
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(file, file.relative_to(folder.parent))


def viewpoint(scene: LiftedScene, model: Path) -> tuple[float, float, float]:
    """Where the photo's camera stands about the middle of the scene's model (.glb).

    From there nothing is torn. Returns azimuth from +x towards +z and angle from +y in degrees, and the
    distance, in glTF's axes (x right, y up, z backwards), as viewers that turn about the middle take it.
    """
    low, high = read_bounds(model)
    camera = scene.views[0].camera.center.detach().cpu().double().numpy() * [1, -1, -1]
    x, y, z = camera - (low + high) / 2
    tilt = math.degrees(math.atan2(math.hypot(x, z), y))
    return math.degrees(math.atan2(z, x)), tilt, math.hypot(x, y, z)


class Studio:
    """Takes orders and makes scenes one at a time, each in a new folder below `output_dir`.

    paints: whether views beside the photo's are painted, so that a prompt is needed for them.
    """

    def __init__(
        self, make_scene: MakeScene, output_dir: Path, limits: Limits | None = None, paints: bool = True
    ) -> None:
        self.output_dir = prepare_folder(output_dir.expanduser().resolve())
        self.limits, self.paints = limits or Limits(), paints
        self._make_scene = make_scene
        self._turn = threading.Lock()

    def start(self, order: Order) -> Job:
        """Check and store the photo, and start its job. Raises UserError for an order that cannot be met."""
        if self.paints and order.mode != "single" and not order.prompt:
            raise UserError("Say in a few words what the scene shows: views are painted after the prompt.")
        folder = self.output_dir / secrets.token_hex(16)
        photo = folder / "photo.png"
        focal = take_photo(order.photo, photo, self.limits)
        return Job(self._make_scene, replace(order, photo=photo), focal, folder, self._turn)


def take_photo(source: Path, target: Path, limits: Limits) -> float | None:
    """Store an uploaded photo as PNG: upright, RGB, longest side reduced to `limits.side`, its right and
    bottom cropped to multiples of 8 (the original's web demo does the same).

    Returns its focal length in pixels as stored, where its EXIF data tell. Raises UserError, which names no
    path of the server, when the photo is too large, too small or none.
    """
    size = source.stat().st_size
    if size > limits.upload_bytes:
        raise UserError(f"The photo has {size / 2**20:.1f} MB: give one of at most {limits.upload_mb:g} MB.")
    pixels = _decode(EncodedImage(source.read_bytes(), "the photo"), limits)
    height, width = fit_size(pixels.shape[0], pixels.shape[1], limits.side)
    focal, full = focal_length(source), pixels.shape[1]
    pixels = resize_image(pixels, (height, width))
    write_image(pixels[: height // _MULTIPLE * _MULTIPLE, : width // _MULTIPLE * _MULTIPLE], target)
    return None if focal is None else focal * width / full


def _decode(photo: EncodedImage, limits: Limits) -> NDArray[np.uint8]:
    """[H, W, 3] of a photo whose size is checked before its pixels are unpacked."""
    unreadable = "The file is no picture that can be read: give a JPEG, PNG or WebP photo."
    try:
        height, width = image_size(photo)
    except UserError:
        raise UserError(unreadable) from None
    if height * width > limits.megapixels * 1e6:
        raise UserError(
            f"The photo has {height * width / 1e6:.0f} million pixels: give one of at most "
            f"{limits.megapixels:g} million."
        )
    if min(fit_size(height, width, limits.side)) < _SMALLEST:
        raise UserError(f"The photo is {width}x{height} pixels: both sides need at least {_SMALLEST}.")
    try:
        return read_image(photo)
    except UserError:
        raise UserError(unreadable) from None
