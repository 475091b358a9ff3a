"""The web demo in a browser, with rooms in place of networks; and its command line."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
from PIL import Image

from methods.scene_lifting.state import LiftedScene
from methods.scene_lifting.web.jobs import Limits, Studio
from tests.cli.conftest import CallMain
from tests.methods.scene_lifting.lifted_rooms import lifted_room

PATIENCE = 30_000  # ms


@dataclass
class Rooms:
    """Makes rooms for photos. A prompt with 'slow' makes views without end, one for each `go`."""

    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    orders: list[dict[str, Any]] = field(default_factory=list)
    views: int = 0

    def __call__(self, **order: Any) -> LiftedScene:
        self.orders.append(order)
        yaws = range(0, 360, 2) if "slow" in order["prompt"] else (0, 25, -25)

        def on_view(*told: Any) -> None:
            self.views += 1
            order["on_view"](*told)
            if "slow" in order["prompt"]:
                assert self.go.acquire(timeout=PATIENCE / 1000)

        return lifted_room(32, 48, yaws, order["seed"], on_view)


@dataclass
class Served:
    url: str
    rooms: Rooms
    folder: Path
    port: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio")
    from methods.scene_lifting.web.demo import serving

    folder, rooms = tmp_path_factory.mktemp("web") / "scenes", Rooms()
    example = folder.parent / "example.png"
    Image.effect_noise((64, 48), 60).convert("RGB").save(example)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    studio = Studio(rooms, folder, Limits(upload_mb=1))
    with serving(studio, [(example, "a room of noise")], port=port) as url:
        yield Served(url, rooms, folder, port)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    page.wait_for_selector("#make")
    yield page
    page.close()


def picture(size: tuple[int, int] = (80, 64)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(file, "PNG")
    return file.getvalue()


def upload(page: Any, content: bytes, name: str = "photo.png", kind: str = "image/png") -> None:
    file = {"name": name, "mimeType": kind, "buffer": content}
    page.set_input_files("#photo input[type=file]", files=[file])


def status(page: Any, pattern: str) -> str:
    page.wait_for_function(f"/{pattern}/.test(document.querySelector('#status').innerText)")
    return page.inner_text("#status")


def fetch(served: Served, path: str) -> bytes:
    with urllib.request.urlopen(served.url.rstrip("/") + path, timeout=10) as answer:
        return answer.read()


def test_from_photo_to_scene(page: Any, served: Served) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    upload(page, picture())
    page.wait_for_selector("#photo img")
    page.fill("#prompt textarea", "a <i>quiet</i> room")
    page.click("#make")
    status(page, "Done: 3 views")
    page.wait_for_selector("#views img >> nth=2")
    page.wait_for_selector("#model canvas")
    order = served.rooms.orders[-1]
    assert (order["prompt"], order["mode"], order["seed"]) == ("a <i>quiet</i> room", "stage", 0)
    with page.expect_download() as download:
        page.click("#ply")
    gaussians = plyfile.PlyData.read(str(download.value.path()))["vertex"]
    assert len(gaussians.properties) == 62
    (job,) = (folder for folder in served.folder.iterdir() if (folder / "scene.zip").is_file())
    points = plyfile.PlyData.read(str(job / "scene" / "points.ply"))["vertex"]
    assert np.allclose(gaussians["x"], points["x"])
    with page.expect_download() as download:
        page.click("#zip")
    packed = zipfile.ZipFile(str(download.value.path())).namelist()
    assert {"scene/mesh.ply", "scene/transforms.json", "scene/images/view_002.png"} <= set(packed)
    assert page.is_enabled("#make")
    assert not page.is_enabled("#cancel")
    assert all(re.match(r"http://127\.0\.0\.1:|data:|blob:", url) for url in asked), asked
    refused(served, f"/gradio_api/file={job / 'photo.png'}")


def test_the_model_is_seen_as_the_photo_is(page: Any, served: Served) -> None:
    """The viewer really draws the scene: its colours are those of the first view."""
    page.click("text=a room of noise")
    page.wait_for_selector("#photo img")
    page.click("#make")
    status(page, "Done")
    page.wait_for_selector("#model canvas")
    wanted = lifted_room(32, 48).views[0].image[:, 8:-8, 12:-12].mean((1, 2)).numpy() * 255
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        shown = np.asarray(Image.open(io.BytesIO(page.locator("#model canvas").screenshot())).convert("RGB"))
        height, width = shown.shape[:2]
        middle = shown[height // 3 : -height // 3, width // 3 : -width // 3].mean((0, 1))
        if np.abs(middle - wanted).max() < 40 or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert np.abs(middle - wanted).max() < 40


def test_cancel_stops_after_the_current_view(page: Any, served: Served) -> None:
    before, kept = served.rooms.views, sorted(served.folder.iterdir())
    upload(page, picture())
    page.wait_for_selector("#photo img")
    page.fill("#prompt textarea", "slow")
    page.click("#make")
    status(page, "View 1 of 180 is there")
    served.rooms.go.release()
    assert "left" in status(page, "View 2 of 180 is there")
    page.click("#cancel")
    page.wait_for_function("document.querySelector('#cancel').disabled")
    served.rooms.go.release()
    status(page, "Cancelled")
    assert served.rooms.views == before + 3  # the third was told that it is the last
    assert sorted(served.folder.iterdir()) == kept
    page.wait_for_function("!document.querySelector('#make').disabled")


def test_closing_the_page_stops_its_job(browser: Any, served: Served) -> None:
    page = browser.new_page()
    page.goto(served.url)
    upload(page, picture())
    page.wait_for_selector("#photo img")
    page.fill("#prompt textarea", "slow")
    before = served.rooms.views
    page.click("#make")
    status(page, "View 1 of 180 is there")
    page.close()
    deadline = time.monotonic() + PATIENCE / 1000
    working = [thread for thread in threading.enumerate() if thread.name.startswith("scene ")]
    while any(thread.is_alive() for thread in working) and time.monotonic() < deadline:
        served.rooms.go.release()
        time.sleep(0.1)
    assert not any(thread.is_alive() for thread in working)
    assert served.rooms.views < before + 180
    while served.rooms.go.acquire(blocking=False):
        pass


def test_what_is_wrong_is_said_in_words(page: Any, served: Served) -> None:
    made = len(served.rooms.orders)
    page.click("#make")
    status(page, "Give a photo first")
    upload(page, picture((600, 600)) + bytes(1_050_000))
    page.wait_for_selector("text=exceed the maximum")
    page.click("#make")
    status(page, "Give a photo first")
    for content, said in (
        (picture(), "Say in a few words"),
        (picture((40, 20)), "at least 32"),
        (b"no picture at all", "no picture that can be read"),
    ):
        upload(page, content)
        page.wait_for_selector("#photo img")
        page.click("#make")
        assert "/" not in status(page, said)
        page.click("#photo button[aria-label='Remove Image']")
        page.wait_for_selector("#photo input[type=file]", state="attached")
        page.fill("#prompt textarea", "a room")
    assert page.is_enabled("#make")
    assert len(served.rooms.orders) == made


def test_large_uploads_are_refused_without_the_page_too(served: Served) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head + bytes(1_100_000) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{served.url}gradio_api/upload", body, kind)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=9)
    assert error.value.code == 413


def refused(served: Served, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(served, path)
    assert error.value.code in (403, 404)


@pytest.mark.parametrize("place", ["/etc/passwd", "../../../../etc/passwd", "train.py", ""])
def test_no_other_file_is_given(place: str, served: Served, repo_root: Path) -> None:
    refused(served, f"/gradio_api/file={repo_root / place if place == 'train.py' else place}")


def test_a_forged_path_is_not_read(served: Served) -> None:
    """A client that names a file of the server as its photo gets an error, and nothing is made."""
    config = json.loads(fetch(served, "/config"))
    (make,) = (entry["id"] for entry in config["dependencies"] if len(entry["inputs"]) == 5)
    forged = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    order = {"data": [forged, "a room", "", "stage", 0], "fn_index": make, "session_hash": "forged"}
    request = urllib.request.Request(
        f"{served.url}gradio_api/queue/join",
        json.dumps(order).encode(),
        {"Content-Type": "application/json"},
    )
    made = len(served.rooms.orders)
    urllib.request.urlopen(request, timeout=10).close()
    with urllib.request.urlopen(f"{served.url}gradio_api/queue/data?session_hash=forged", timeout=20) as told:
        outcome = next(line for line in told if b"process_completed" in line)
    assert json.loads(outcome.removeprefix(b"data:"))["success"] is False
    assert len(served.rooms.orders) == made


def test_only_this_computer_is_served(served: Served) -> None:
    table = Path("/proc/net/tcp")
    if not table.is_file():
        pytest.skip("no /proc/net/tcp")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == served.port]
    assert listening == [f"0100007F:{served.port:04X}"]


@pytest.fixture
def tiny_experiment(tmp_path: Path) -> tuple[Path, Path]:
    """An experiment folder and a checkpoint of random weights."""
    import yaml

    from engine.config import to_dict
    from engine.pretrained import save
    from methods.scene_lifting.method import SceneLifting
    from tests.methods.scene_lifting.tiny import tiny_config

    method = SceneLifting.create(tiny_config())
    method.initialise()
    (tmp_path / "weights").mkdir()
    save(method, tmp_path / "weights")
    (tmp_path / "tiny").mkdir()
    content = {"method": "scene_lifting", "model": {"network": to_dict(tiny_config().network)}}
    (tmp_path / "tiny" / "config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "tiny", tmp_path / "weights"


def test_the_script_serves_until_it_is_interrupted(
    tiny_experiment: tuple[Path, Path],
    call_main: CallMain,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, weights = tiny_experiment
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    seen: list[bytes] = []

    def interrupted() -> None:
        with urllib.request.urlopen(url, timeout=10) as answer:
            seen.append(answer.read())
        raise KeyboardInterrupt

    assert "examples:" in call_main("scripts/demo_gradio.py", "--help")[1]
    monkeypatch.setattr(sys.modules["demo_gradio_script"], "wait", interrupted)
    words = ["-e", folder, "-r", weights, "--inpainter", "none", "--port", url.split(":")[-1].strip("/")]
    code, printed, errors = call_main("scripts/demo_gradio.py", *words, "--output_dir", tmp_path / "scenes")
    assert (code, b"Scene from one photo" in seen[0]) == (130, True), errors
    assert f"open {url}" in printed
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-r", "latest"], "holds no checkpoint"),
        (["-e", "configs/lvsm/toy"], "of the method lvsm"),
        (["--max_upload", "0"], "must be above 0"),
        (["-e", "configs/nothing"], "configs/nothing"),
    ],
)
def test_bad_command_lines_are_one_line(
    words: list[str], said: str, call_main: CallMain, monkeypatch: pytest.MonkeyPatch, repo_root: Path
) -> None:
    monkeypatch.chdir(repo_root)
    code, _, errors = call_main("scripts/demo_gradio.py", *words)
    assert code == 2
    assert said in errors
    assert "Traceback" not in errors


def test_a_missing_library_is_one_line(
    call_main: CallMain, monkeypatch: pytest.MonkeyPatch, repo_root: Path
) -> None:
    monkeypatch.chdir(repo_root)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, errors = call_main("scripts/demo_gradio.py")
    assert (code, "pip install" in errors, "Traceback" in errors) == (2, True, False)
