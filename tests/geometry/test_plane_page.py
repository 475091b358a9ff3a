"""The page of a multi-plane image, in a browser: it shows what our renderer shows, and it can be handled."""

from __future__ import annotations

import io
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.errors import UserError
from geometry.plane_page import write_page
from geometry.planes import PlaneImage
from tests.geometry.painted_planes import decibels, painted, seen_from, sliced_photo

PATIENCE = 30_000  # ms
# Graphics in software, as on machines without a graphics card.
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Writes planes to a page and opens it; the page must not raise errors or ask for anything."""
    pages, wrong = [], []

    def open_page(planes: PlaneImage, address: str = "", title: str = "Waves", **options: Any) -> Any:
        path = tmp_path / f"{len(pages)}.html"
        write_page(planes, path, title)
        page = browser.new_page(**{"viewport": {"width": 500, "height": 400}, **options})
        pages.append(page)
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url))
        page.goto(path.as_uri() + address)
        page.wait_for_selector("html[data-state=drawn]")
        assert wrong.pop(0).startswith(path.as_uri())  # the page itself
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not wrong


def picture(page: Any) -> Tensor:
    """[3, H, W]: what the page shows, in the screen's pixels."""
    shot = Image.open(io.BytesIO(page.locator("#view").screenshot())).convert("RGB")
    return torch.from_numpy(np.asarray(shot).copy()).permute(2, 0, 1).float() / 255


def picture_at(page: Any, x: float, y: float, z: float) -> Tensor:
    page.evaluate("hash => { location.hash = hash }", f"x={x}&y={y}&z={z}&size=native")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return picture(page)


@pytest.mark.parametrize(("premultiplied", "backdrop"), [(False, False), (False, True), (True, False)])
def test_it_shows_what_the_renderer_shows(premultiplied: bool, backdrop: bool, opened: Any) -> None:
    planes = painted(premultiplied, backdrop)
    page = opened(planes, "#size=native")
    for place in ((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (-0.15, 0.1, -0.4), (0.0, 0.1, 3.0)):
        wanted = seen_from(planes, *place)
        assert decibels(picture_at(page, *place), wanted) > 40, place
    assert decibels(wanted, seen_from(planes)) < 25  # the last place is another view indeed


def test_a_photo_cut_into_planes(opened: Any) -> None:
    planes = sliced_photo()
    page = opened(planes, "#size=native")
    assert decibels(picture(page), seen_from(planes)) > 40
    assert decibels(picture_at(page, 0.1, 0, 0), seen_from(planes, 0.1)) > 40


def test_off_centre_cameras_empty_planes_and_a_plane_at_infinity(opened: Any) -> None:
    planes = painted()
    K = planes.camera.K.clone()
    K[0, 0], K[0, 2], K[1, 2] = 90, 40, 35
    planes = replace(planes, camera=replace(planes.camera, K=K))
    planes.depths[0] = math.inf
    planes.layers[3, ..., 3] = 0
    page = opened(planes, "#size=native&x=0.1&z=0.2")
    assert decibels(picture(page), seen_from(planes, 0.1, 0, 0.2)) > 40


def test_dense_screens_show_the_same(opened: Any) -> None:
    planes = painted()
    page = opened(planes, "#size=native&y=0.1", device_scale_factor=2, reduced_motion="reduce")
    assert decibels(picture(page), seen_from(planes, 0, 0.1)) > 40
    page.evaluate("() => { location.hash = '' }")  # fitted to the window: twice as fine at most
    assert page.evaluate("() => canvas.width") == 192


def camera(page: Any) -> dict[str, float]:
    return page.evaluate("() => pose")


def until(page: Any, holds: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The camera, as soon as something holds for it."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not holds(found := camera(page)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def centred(pose: dict[str, float]) -> bool:
    return max(abs(value) for value in pose.values()) < 5e-3


def test_it_sways_until_it_is_taken(opened: Any) -> None:
    planes = painted()
    page = opened(planes)
    until(page, lambda pose: abs(pose["x"]) > 0.01)
    before = picture(page)
    page.keyboard.press("r")
    until(page, centred)
    time.sleep(0.3)
    assert centred(camera(page))
    assert decibels(picture(page), before) < 50


def test_people_who_want_no_motion_get_none(opened: Any) -> None:
    page = opened(painted(), reduced_motion="reduce")
    time.sleep(0.3)
    assert set(camera(page).values()) == {0}


def test_pointer_wheel_and_keys_move_within_the_range(opened: Any) -> None:
    page = opened(painted(), reduced_motion="reduce")
    reach = page.evaluate("() => scene.reach")
    box = page.locator("#view").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 1, middle[1])
    moved = until(page, lambda pose: pose["x"] > 0.95 * reach["x"])
    assert abs(moved["y"]) < 0.05 * reach["y"]
    page.mouse.wheel(0, -99999)
    until(page, lambda pose: pose["z"] > 0.95 * reach["z"])
    page.click("#reset")
    until(page, centred)
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
    moved = until(page, lambda pose: pose["x"] < -0.95 * reach["x"] and pose["y"] > 0.95 * reach["y"])
    assert moved["x"] >= -reach["x"]
    assert moved["y"] <= reach["y"]


def touch(client: Any, kind: str, *points: tuple[float, float]) -> None:
    fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
    client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def test_fingers_drag_and_pinch(opened: Any) -> None:
    page = opened(painted(), reduced_motion="reduce", has_touch=True)
    reach, client = page.evaluate("() => scene.reach"), page.context.new_cdp_session(page)
    touch(client, "touchStart", (200, 150))
    touch(client, "touchMove", (250, 150))
    touch(client, "touchEnd")
    moved = until(page, lambda pose: pose["x"] < -0.2 * reach["x"])
    assert moved["z"] == 0
    touch(client, "touchStart", (200, 150), (220, 150))
    touch(client, "touchMove", (150, 150), (270, 150))
    touch(client, "touchEnd")
    until(page, lambda pose: pose["z"] > 0.9 * reach["z"])


@pytest.mark.parametrize(("width", "height"), [(900, 300), (300, 640)])
def test_it_fits_the_window_in_its_proportions(width: int, height: int, opened: Any) -> None:
    page = opened(painted(), viewport={"width": width, "height": height})
    box = page.locator("#view").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(1.5, rel=0.01)
    room = page.locator("main").bounding_box()
    assert max(box["width"] / room["width"], box["height"] / room["height"]) == pytest.approx(1, rel=0.02)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_it_says_what_it_shows(opened: Any) -> None:
    page = opened(painted(), title="<b>Waves</b> & __SCENE__")
    assert page.title() == "<b>Waves</b> & __SCENE__"
    assert page.inner_text("footer b") == page.title()
    assert page.inner_text("#note") == "96 × 64 pixels, 6 planes, near 2, far 20"


def test_without_webgl_a_sentence_says_so(browser: Any, tmp_path: Path) -> None:
    write_page(painted(), tmp_path / "page.html", "Waves")
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("html[data-state=failed]")
    assert "WebGL 2" in page.inner_text("#failure")
    assert not page.is_visible("#view")
    page.close()


def test_the_page_holds_everything_and_may_ask_for_nothing(tmp_path: Path) -> None:
    write_page(painted(), tmp_path / "page.html", "Waves")
    text = (tmp_path / "page.html").read_text()
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|src=|@import|url\(", text)
    assert "__" not in text


def test_edges_stay_hidden_on_the_way(opened: Any) -> None:
    """At the ends of the range nothing of the black beyond the planes' edges is seen."""
    planes = painted()
    planes.layers[..., :3] = 1
    page = opened(planes, reduced_motion="reduce")
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        for _ in range(10):
            page.keyboard.press(key)
    reach = page.evaluate("() => scene.reach")
    until(page, lambda pose: pose["x"] > 0.99 * reach["x"] and pose["y"] > 0.99 * reach["y"])
    assert float(picture(page).min()) > 0.97


def broken(**changes: Any) -> PlaneImage:
    planes = painted()
    if "skew" in changes:
        planes.camera.K[0, 1] = changes["skew"]
    if "depth" in changes:
        planes.depths[1] = changes["depth"]
    if "value" in changes:
        planes.layers[1, 2, 3, 0] = changes["value"]
    return planes


@pytest.mark.parametrize(
    ("planes", "said"),
    [
        (broken(skew=1.0), "skewed"),
        (broken(depth=math.nan), "not above 0"),
        (broken(value=math.nan), "not finite"),
        (painted(planes=201), "201 planes"),
    ],
)
def test_what_no_page_can_show_is_refused(planes: PlaneImage, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        write_page(planes, tmp_path / "page.html", "Waves")
    assert not list(tmp_path.iterdir())


def test_one_image_at_a_time(tmp_path: Path) -> None:
    planes = painted()
    two = PlaneImage(
        planes.layers.expand(2, *planes.layers.shape), planes.depths.expand(2, -1), planes.camera
    )
    with pytest.raises(ValueError, match="one multi-plane image"):
        write_page(two, tmp_path / "page.html", "Waves")
