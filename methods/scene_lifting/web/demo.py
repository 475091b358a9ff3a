"""The page of the web demo (gradio): a photo and a prompt in, views as they are made and a 3D scene out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from common.errors import UserError
from methods.scene_lifting.web.jobs import Studio
from methods.scene_lifting.web.page import MODES, Outputs, Page, status_line

TITLE = "Scene from one photo"
STYLE = """
.gradio-container { max-width: 1240px !important; width: 100%; margin: auto; }
main.app { width: 100%; }
#views .caption-label { bottom: 4px; }
#status progress { width: 100%; height: 10px; accent-color: #2b6cb0; }
#status p { margin: 4px 0 0 0; }
#status .bad { color: #c53030; font-weight: 600; }
"""
_INTRODUCTION = """Give a photo and say in a few general words what it shows. What the photo does not show is
painted and lifted to 3D view by view; every view appears below as it is made."""
_QUEUE = 16  # orders that may wait
_HOUR = 3600  # seconds


@contextmanager
def serving(
    studio: Studio,
    examples: Sequence[tuple[Path, str]] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
) -> Iterator[str]:
    """Serve the page of a studio while the block runs; gives its address.

    examples: photos on disk and their prompts. host: interface that is listened to; this computer only by
    default. port: None takes the first free one from 7860 on. share: also open a public address through
    gradio's servers. Uploads and what browsers may fetch lie in a temporary folder, which goes with the
    block. Raises UserError for a port that is taken.
    """
    with TemporaryDirectory(prefix="parallax_web_") as folder, _gradio_folder(folder):
        blocks = build(studio, Path(folder), examples)
        blocks.queue(max_size=_QUEUE)
        try:
            _, local, public = blocks.launch(
                server_name=host,
                server_port=port,
                share=share,
                max_file_size=studio.limits.upload_bytes,
                css=STYLE,
                footer_links=[],
                ssr_mode=False,
                prevent_thread_lock=True,
                quiet=True,
            )
        except OSError as error:
            raise UserError(f"the page cannot be served at {host}, port {port or 7860} ({error})") from None
        try:
            yield public or local
        finally:
            blocks.close(verbose=False)


@contextmanager
def _gradio_folder(folder: str) -> Iterator[None]:
    """gradio keeps its files in `folder`, which it learns from the environment."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


def build(studio: Studio, shelf: Path, examples: Sequence[tuple[Path, str]] = ()) -> gr.Blocks:
    """The page of a studio. shelf: see `Page`. examples: photos on disk and their prompts."""
    page = Page(studio, shelf)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_HOUR, 24 * _HOUR)) as blocks:
        gr.Markdown(f"# {TITLE}\n{_INTRODUCTION}")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                inputs, make, cancel = _left_side(studio.limits.upload_mb)
                if examples:
                    rows = [[str(file), text] for file, text in examples]
                    gr.Examples(rows, inputs[:2], label="Examples", cache_examples=False)
            with gr.Column(scale=3, min_width=420):
                page.outputs = _right_side(make, cancel)
        _wire(blocks, page, inputs)
    return blocks


def _left_side(upload_mb: float) -> tuple[list[Any], gr.Button, gr.Button]:
    photo = gr.Image(
        type="filepath",
        sources=["upload", "clipboard"],
        label=f"Photo (at most {upload_mb:g} MB)",
        height=300,
        elem_id="photo",
    )
    # the upload as it is, whatever it holds: `jobs.take_photo` says in words what is wrong with it
    photo.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    prompt = gr.Textbox(label="Prompt", placeholder="a quiet alley", lines=2, elem_id="prompt")
    mode = gr.Radio(MODES, value="stage", label="Views", elem_id="mode")
    with gr.Accordion("More", open=False, elem_id="more"):
        negative = gr.Textbox(label="Negative prompt: what must not be painted", elem_id="negative")
        seed = gr.Number(value=0, precision=0, label="Seed", elem_id="seed")
    with gr.Row():
        make = gr.Button("Make the scene", variant="primary", elem_id="make")
        cancel = gr.Button("Cancel", variant="stop", interactive=False, elem_id="cancel")
    return [photo, prompt, negative, mode, seed], make, cancel


def _right_side(make: gr.Button, cancel: gr.Button) -> Outputs:
    status = gr.HTML(status_line(None), elem_id="status")
    views = gr.Gallery(
        label="Views", columns=3, fit_columns=False, height=230, object_fit="contain", elem_id="views"
    )
    model = gr.Model3D(
        label="Scene: drag to turn, wheel to come closer",
        height=400,
        clear_color=(0.13, 0.14, 0.16, 1),
        elem_id="model",
    )
    film = gr.Video(label="Fly-through", visible=False, autoplay=True, loop=True, elem_id="film")
    with gr.Row():
        splats = gr.DownloadButton("Gaussians (.ply)", interactive=False, elem_id="ply")
        archive = gr.DownloadButton("Everything (.zip)", interactive=False, elem_id="zip")
    return Outputs(make, cancel, status, views, model, film, splats, archive)


def _wire(blocks: gr.Blocks, page: Page, inputs: list[Any]) -> None:
    out = page.outputs
    begun = out.make.click(
        page.begin,
        None,
        [out.make, out.cancel, out.status],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    made = begun.then(
        page.make,
        inputs,
        out.all(),
        concurrency_limit=1,
        show_progress="hidden",
        api_visibility="private",
    )
    made.then(
        page.present,
        None,
        [out.model, out.film, out.splats, out.archive],
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    out.cancel.click(
        page.cancel, None, out.cancel, queue=False, show_progress="hidden", api_visibility="private"
    )
    blocks.unload(page.leave)
