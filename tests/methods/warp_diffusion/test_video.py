"""The output folder of a video, as the original lays it out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geometry.cameras import Cameras
from geometry.mesh_files import read_mesh
from geometry.views import Rendering, Views
from methods.warp_diffusion.method import WarpDiffusion
from tests.methods.warp_diffusion.tiny import room_views, tiny_config, tiny_method

WARPED = {"warped/0.png", "warped/1.png", "warped/2.png", "warped/warpgrid.png", "warped/warps.gif"}
DRAWN = {f"per_view_generations/{i}.png" for i in range(3)} | {"videos/best.png", "videos/best.gif"}


@pytest.fixture(scope="module")
def photos() -> Views:
    return room_views(4, height=21)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def filmed(method: WarpDiffusion, photos: Views, folder: Path) -> list[Rendering]:
    return list(method.film(method.encode(photos[:1]), photos.cameras[1:], folder))


def test_photo_padded_photo_and_mesh(photos: Views, tmp_path: Path) -> None:
    method = tiny_method(tiny_config())
    state = method.encode(photos[:1])
    files = method.write_sources(state, tmp_path)
    assert [file.name for file in files] == ["reference.png", "reference_padded.png", "mesh.ply"]
    reference, padded = (np.asarray(Image.open(file)) for file in files[:2])
    assert (reference.shape, padded.shape) == ((21, 32, 3), (32, 32, 3))
    assert (padded[5:26] == reference).all()
    assert (padded[:5] == 255).all()
    assert (padded[26:] == 255).all()
    mesh = read_mesh(files[2])
    assert len(mesh.faces) == len(state.photos.mesh(0).faces)


@pytest.mark.parametrize("sequential", [False, True])
def test_the_output_tree(photos: Views, tmp_path: Path, sequential: bool) -> None:
    sampling = {"samples": 2, "batch": 4, "sequential": sequential}
    method = tiny_method(tiny_config(sampling=sampling))
    renderings = filmed(method, photos, tmp_path)
    assert tree(tmp_path) == WARPED | DRAWN
    assert len(renderings) == 3
    assert all(r.image.shape == (1, 3, 21, 32) for r in renderings)
    with Image.open(tmp_path / "videos/best.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (3, (32, 21), 100, 0)
    row = np.asarray(Image.open(tmp_path / "per_view_generations/0.png"))
    width = int(256 * 32 / 21)
    assert row.shape == (256, 2 * width + 5, 3)  # both samples in a row, 5 pixels between
    shown = np.asarray(Image.open(tmp_path / "warped/1.png"))
    own = renderings[1].extras["warp"][0]
    assert np.abs(shown / 255 - own.permute(1, 2, 0).numpy()).max() <= 1 / 255


def test_later_views_of_a_sequence_see_the_earlier_ones(photos: Views, tmp_path: Path) -> None:
    """Outwards from the photo; the state's surface grows by one view each, and so does what is covered."""
    method = tiny_method(tiny_config())
    plain = filmed(method, photos, tmp_path / "plain")
    method.config.sampling = replace(method.config.sampling, sequential=True)
    state = method.encode(photos[:1])
    views = list(method.film(state, photos.cameras[1:], tmp_path / "sequential"))
    assert len(state.photos.earlier) == 3
    covered = [[float(r.extras["coverage"].mean()) for r in film] for film in (plain, views)]
    assert covered[1][0] == pytest.approx(covered[0][0])  # the nearest sees the photo alone
    assert covered[1][2] > covered[0][2]


def test_a_sequence_may_look_away(photos: Views, tmp_path: Path) -> None:
    """A view that sees nothing of the scene adds nothing to it."""
    method = tiny_method(tiny_config(sampling={"sequential": True}))
    turn = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64))
    cameras = photos.cameras[1:3]
    away = Cameras(cameras.K, torch.stack([cameras.c2w[0], cameras.c2w[1] @ turn]), 21, 32)
    views = list(method.film(method.encode(photos[:1]), away, tmp_path))
    assert len(views) == 2
    assert all(view.image.isfinite().all() for view in views)


def test_without_weights_there_are_warps_alone(photos: Views, tmp_path: Path) -> None:
    method = WarpDiffusion.without_weights(tiny_config(), None, "no weights")
    for sequential in (False, True):
        method.config.sampling.sequential = sequential
        assert filmed(method, photos, tmp_path / str(sequential)) == []
        assert tree(tmp_path / str(sequential)) == WARPED
