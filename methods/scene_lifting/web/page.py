"""What happens on the page of the web demo when a button is pressed (gradio)."""

from __future__ import annotations

import html
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from common.errors import UserError
from methods.scene_lifting.web.jobs import ARCHIVE, FILM, GAUSSIANS, MODEL, Job, Order, Progress, Studio

MODES = [("Photo only", "single"), ("Stage: a look to either side", "stage"), ("All around", "360")]
_MAX_PROMPT = 1000  # characters; painting models read fewer
_SEEDS = 2**31  # seeds are below


@dataclass
class Outputs:
    """The components that change while a scene is made."""

    make: gr.Button
    cancel: gr.Button
    status: gr.HTML
    views: gr.Gallery
    model: gr.Model3D
    film: gr.Video
    splats: gr.DownloadButton
    archive: gr.DownloadButton

    def all(self) -> list[Any]:
        return [getattr(self, item.name) for item in fields(self)]


class Page:
    """What the buttons do. One job per session at most; a session that closes stops its job.

    shelf: the folder from which browsers get files. Scenes are copied there; nothing else can be fetched.
    """

    def __init__(self, studio: Studio, shelf: Path) -> None:
        self.studio, self.shelf = studio, shelf
        self.outputs: Outputs
        self._jobs: dict[str, Job] = {}
        self._finished: dict[str, Progress] = {}  # by session, until it is shown
        self._unwanted: set[str] = set()  # sessions that cancelled an order that still waits

    def begin(self, request: gr.Request) -> tuple[Any, Any, str]:
        """The press of 'Make', before it is the order's turn."""
        self._unwanted.discard(_session(request))
        waiting = status_line(Progress())
        return gr.update(interactive=False), gr.update(interactive=True), waiting

    def make(
        self,
        photo: str | None,
        prompt: str | None,
        negative: str | None,
        mode: str | None,
        seed: float | None,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Make a scene; yields what changes on the page."""
        session = _session(request)
        if session in self._unwanted:
            yield self._end(Progress("stopped"))
            return
        try:
            job = self.studio.start(_order(photo, prompt, negative, mode, seed))
        except UserError as error:
            yield self._end(Progress("bad", message=str(error)))
            return
        self._jobs[session] = job
        try:
            yield from self._show(job, session)
        finally:
            job.stop()
            self._jobs.pop(session, None)

    def cancel(self, request: gr.Request) -> Any:
        """The press of 'Cancel'."""
        session = _session(request)
        self._unwanted.add(session)
        if session in self._jobs:
            self._jobs[session].stop()
        return gr.update(interactive=False)

    def leave(self, request: gr.Request) -> None:
        """The page is closed."""
        self.cancel(request)
        self._finished.pop(_session(request), None)

    def present(self, request: gr.Request) -> dict[Any, Any]:
        """The finished scene, once: in one piece, because the viewer drops a model that is sent piecemeal."""
        progress = self._finished.pop(_session(request), None)
        if progress is None or progress.result is None:  # nothing was made
            return {self.outputs.model: gr.skip()}
        out, folder = self.outputs, progress.result
        changes = {
            out.model: gr.update(value=self._shelved(folder / MODEL), camera_position=progress.viewpoint),
            out.splats: gr.update(value=self._shelved(folder / GAUSSIANS), interactive=True),
            out.archive: gr.update(value=self._shelved(folder.parent / ARCHIVE), interactive=True),
        }
        if (folder / FILM).is_file():
            changes[out.film] = gr.update(value=self._shelved(folder / FILM), visible=True)
        return changes

    def _shelved(self, file: Path) -> str:
        """A copy of a scene's file below a name that cannot be guessed, for browsers."""
        copy = self.shelf / secrets.token_hex(16) / file.name
        copy.parent.mkdir(parents=True)
        shutil.copyfile(file, copy)
        return str(copy)

    def _show(self, job: Job, session: str) -> Iterator[dict[Any, Any]]:
        out, shown = self.outputs, 0
        yield self._empty()
        for progress in job.follow():
            changes: dict[Any, Any] = {out.status: status_line(progress)}
            if len(progress.previews) > shown:
                shown = len(progress.previews)
                changes[out.views] = [(view, f"View {i + 1}") for i, view in enumerate(progress.previews)]
            yield changes
        if progress.state == "done":
            self._finished[session] = progress
        yield self._end(progress)

    def _empty(self) -> dict[Any, Any]:
        """Nothing of the scene before."""
        out, nothing = self.outputs, gr.update(value=None, interactive=False)
        return {
            out.views: [],
            out.model: None,
            out.film: gr.update(value=None, visible=False),
            out.splats: nothing,
            out.archive: nothing,
        }

    def _end(self, progress: Progress) -> dict[Any, Any]:
        out = self.outputs
        return {
            out.status: status_line(progress),
            out.make: gr.update(interactive=True),
            out.cancel: gr.update(interactive=False),
        }


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _order(
    photo: str | None, prompt: str | None, negative: str | None, mode: str | None, seed: float | None
) -> Order:
    """The order that the fields describe; empty ones are None. Raises UserError for what a user can mend."""
    prompt, negative = (prompt or "").strip(), (negative or "").strip()
    if photo is None:
        raise UserError("Give a photo first: drop one on the field at the left, or paste it.")
    if max(len(prompt), len(negative)) > _MAX_PROMPT:
        raise UserError(f"The prompt is too long: at most {_MAX_PROMPT} characters.")
    if mode not in [value for _, value in MODES]:
        raise UserError("Choose which views to make.")
    number = int(seed or 0)
    if not 0 <= number < _SEEDS:
        raise UserError(f"The seed must be a number from 0 to {_SEEDS - 1}.")
    return Order(Path(photo), prompt, negative, str(mode), number)


def status_line(progress: Progress | None) -> str:
    """A bar and a sentence (HTML) about how a job is doing; None: nothing has been asked for yet."""
    if progress is None:
        return "<p>Nothing made yet.</p>"
    if progress.state == "bad":
        return f'<p class="bad" role="alert">{html.escape(progress.message)}</p>'
    if progress.state == "stopped":
        return "<p>Cancelled: nothing was kept.</p>"
    bar = f'<progress max="{max(progress.total, 1)}" value="{progress.done}"></progress>'
    return f"{bar}<p>{html.escape(_sentence(progress))}</p>"


def _sentence(progress: Progress) -> str:
    if progress.state == "waiting":
        return "Waiting: another scene is being made."
    if progress.state == "done":
        made = "1 view" if progress.total == 1 else f"{progress.total} views"
        return f"Done: {made} in {_duration(progress.seconds)}."
    spent = f"{_duration(progress.seconds)} so far"
    if progress.state == "writing":
        return f"Writing the files, {spent}."
    if progress.seconds_left is None:
        return f"Making the first view, {spent}."
    left = f"about {_duration(progress.seconds_left)} left" if progress.done < progress.total else "finishing"
    return f"View {progress.done} of {progress.total} is there, {spent}, {left}."


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
