"""Structure from motion: which pairs are matched, and what comes of photos with known cameras."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from dataloader.formats import colmap
from dataloader.images import write_image
from dataloader.prepare import sfm
from dataloader.toy import make_scene
from geometry.alignment import pose_errors


@given(st.integers(2, 60))
def test_every_pair_is_matched_once(n: int) -> None:
    names = [f"{i:03d}" for i in range(n)]
    pairs = sfm.image_pairs(names, "exhaustive")
    assert len(pairs) == len(set(pairs)) == n * (n - 1) // 2
    assert all(one < two for one, two in pairs)
    near = sfm.image_pairs(names, "sequential")
    assert {int(two) - int(one) for one, two in near} == {g for g in [*range(1, 11), 16, 32] if g < n}


def run(photos: Path, out: Path, groups: list[list[str]]) -> tuple[sfm.SfmSummary, int]:
    """Features, matches and cameras of a folder's photos. Returns the summary and the matching pairs."""
    out.mkdir()
    names = [name for group in groups for name in group]
    assert sfm.extract_features(photos, groups, out / "sfm.db", "SIMPLE_PINHOLE") > 20
    matched = sfm.match_features(out / "sfm.db", sfm.image_pairs(names, "exhaustive"))
    return sfm.reconstruct(out / "sfm.db", photos, out / "sparse", len(names)), matched


def test_cameras_of_a_known_room(tmp_path: Path) -> None:
    truth = make_scene(seed=2, n_views=7, height=240, width=320)
    for record in truth.records:
        write_image(record.load(), tmp_path / "photos" / f"{record.name}.png")
    files = [f"{name}.png" for name in truth.names]
    found, matched = run(tmp_path / "photos", tmp_path / "one", [files])
    assert (found.registered, found.photos) == (7, 7)
    assert 10 < matched <= 21
    assert found.points > 100
    assert found.error < 0.8
    (tmp_path / "one" / "images").symlink_to(tmp_path / "photos")
    scene = colmap.read(tmp_path / "one")
    assert len({record.camera.K.numpy().tobytes() for record in scene.records}) == 1
    assert scene.records[0].camera.K[0, 0] == pytest.approx(288, rel=0.02)
    errors = pose_errors(scene.cameras(), truth.cameras())
    assert errors.centers.mean() < 0.03
    assert errors.rotations.mean() < 1.0
    # the same photos give the same cameras, bit for bit; two groups have two cameras
    run(tmp_path / "photos", tmp_path / "two", [files])
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        assert (tmp_path / "one/sparse" / name).read_bytes() == (tmp_path / "two/sparse" / name).read_bytes()
    run(tmp_path / "photos", tmp_path / "groups", [files[:4], files[4:]])
    (tmp_path / "groups" / "images").symlink_to(tmp_path / "photos")
    cameras = colmap.read(tmp_path / "groups").cameras()
    assert len({K.numpy().tobytes() for K in cameras.K}) == 2


def test_photos_of_nothing_in_common_are_refused(tmp_path: Path) -> None:
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        write_image(noise, tmp_path / "photos" / f"{i}.png")
    with pytest.raises(UserError, match="only 0 of 4 photos could be placed together: add photos"):
        run(tmp_path / "photos", tmp_path / "out", [[f"{i}.png" for i in range(4)]])
