"""The page of cameras: what it draws, where, and that it needs nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.camera_figure import ViewGroup, draw_views, figure, plane_distance
from dataloader.scene import Scene
from engine.random_views import random_views


@pytest.fixture
def groups() -> list[ViewGroup]:
    views = random_views(5, 24, 32)
    return [
        ViewGroup("source", views.cameras[:3], views.images[:3]),
        ViewGroup("target", views.cameras[3:]),
    ]


def _traces(made: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in made.data}


def _points(trace: Any) -> np.ndarray:
    return np.stack([trace.x, trace.y, trace.z], -1)


def test_every_part_is_there_and_the_colours_of_rays_are_hidden(groups: list[ViewGroup]) -> None:
    traces = _traces(figure(groups))
    hidden = {name for name, trace in traces.items() if trace.visible == "legendonly"}
    colored = {f"{who}: {what}" for who in ("source", "target") for what in ("directions", "moments")}
    assert hidden == colored
    shown = {"origin", "source: cameras", "source: photos", "source: rays", "target: cameras", "target: rays"}
    assert set(traces) == shown | colored
    assert set(_traces(figure(groups, rays=False))) == {name for name in shown if "rays" not in name}


def test_rays_are_16_by_16_of_length_root_2(groups: list[ViewGroup]) -> None:
    segments = _points(_traces(figure(groups, distance=3.0))["source: rays"]).reshape(-1, 3, 3)
    assert len(segments) == 3 * 16 * 16
    assert np.isnan(segments[:, 2]).all()
    length = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=-1)
    np.testing.assert_allclose(length, 3 * np.sqrt(2), rtol=1e-5)
    centers = groups[0].cameras.center.repeat_interleave(256, 0).numpy()
    np.testing.assert_allclose(segments[:, 0], centers, atol=1e-5)


def test_photos_stand_on_their_image_planes_the_right_way_round(groups: list[ViewGroup]) -> None:
    """Each drawn triangle, projected into its camera, shows the colour that the photo has there."""
    image = torch.zeros(1, 3, 24, 32)
    image[:, 0, :12, :16] = 1  # red at the top left
    camera = groups[0].cameras[:1]
    mesh = _traces(figure([ViewGroup("one", camera, image)], distance=2.0, rays=False))["one: photos"]
    points = torch.from_numpy(_points(mesh)).double()
    pixels, depth = camera.project(points[None])
    torch.testing.assert_close(depth, torch.full_like(depth, 2.0), rtol=1e-4, atol=1e-4)
    middle = pixels[0][torch.from_numpy(np.stack([mesh.i, mesh.j, mesh.k], -1)).long()].mean(1)
    red = torch.tensor([color == "rgb(255,0,0)" for color in mesh.facecolor])
    inside = (middle[:, 0] < 15.5) & (middle[:, 1] < 11.5)
    outside = (middle[:, 0] > 16.5) | (middle[:, 1] > 12.5)
    assert red[inside].all()
    assert not red[outside].any()


def test_axes_are_equal_and_y_points_down(groups: list[ViewGroup]) -> None:
    scene = figure(groups, distance=1.0).layout.scene
    assert scene.aspectmode == "data"
    assert (scene.camera.up.x, scene.camera.up.y, scene.camera.up.z) == (0, -1, 0)
    centers = torch.cat([group.cameras.center for group in groups])
    for i, axis in enumerate((scene.xaxis, scene.yaxis, scene.zaxis)):
        assert axis.range[0] <= centers[:, i].min() - 1
        assert axis.range[1] >= max(centers[:, i].max(), 0) + 1


def test_the_distance_follows_the_cameras(groups: list[ViewGroup]) -> None:
    near = plane_distance(groups)
    for group in groups:
        group.cameras.c2w[:, :3, 3] *= 10
    assert plane_distance(groups) == pytest.approx(10 * near)
    assert plane_distance([ViewGroup("one", groups[0].cameras[:1])]) == 1


def test_the_page_needs_nothing_else(groups: list[ViewGroup], tmp_path: Path) -> None:
    draw_views(groups, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert text.lower().startswith(("<!doctype html>", "<html"))
    assert "Plotly.newPlot" in text
    assert len(text) > 3_000_000  # the library is inside
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", text)
    with pytest.raises(UserError, match="cannot write"):
        (tmp_path / "file").write_text("")
        draw_views(groups, tmp_path / "file" / "a.html")


def test_a_browser_draws_it(groups: list[ViewGroup], tmp_path: Path) -> None:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium or google-chrome")
    draw_views(groups, tmp_path / "a.html")
    words = [found, "--headless", "--no-sandbox", "--enable-unsafe-swiftshader", "--dump-dom"]
    words += ["--virtual-time-budget=20000", (tmp_path / "a.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert 'class="gl-container"' in done.stdout
    assert "source: photos" in done.stdout


def test_a_scene_of_real_sizes(posed_scene: Callable[..., Scene]) -> None:
    scene = posed_scene(4, size=(48, 64))
    views = scene.views([0, 1, 2])
    traces = _traces(figure([ViewGroup("all", views.cameras, views.images)]))
    assert len(traces["all: photos"].facecolor) == 3 * 36 * 48 * 2
