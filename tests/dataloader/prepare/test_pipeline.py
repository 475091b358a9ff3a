"""Photos to a scene, against scenes whose cameras and surface are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataloader.formats import open_scene
from dataloader.images import write_image
from dataloader.prepare.dense import coverage
from dataloader.prepare.pipeline import PrepareOptions, prepare
from dataloader.scene import Scene
from dataloader.toy import make_scene
from geometry.alignment import pose_errors
from geometry.rasterize import Rasterizer

OPTIONS = PrepareOptions(camera_model="SIMPLE_PINHOLE", depth_size=128)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def truth() -> Scene:
    return make_scene(seed=2, n_views=8, height=240, width=320)


@pytest.fixture(scope="module")
def photos(truth: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for record in truth.records:
        write_image(record.load(), folder / f"{record.name}.png")
    return folder


@pytest.fixture(scope="module")
def root(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared") / "scene"
    prepare(photos, root, OPTIONS, CPU)
    return root


def contents(root: Path) -> dict[str, int]:
    """When each file of a folder was last written."""
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


def test_the_scene_opens_with_the_true_cameras(root: Path, truth: Scene) -> None:
    scene = open_scene(root)
    assert scene.names == truth.names
    assert sorted(path.name for path in root.iterdir()) == ["images", "mesh.ply", "sparse", "work"]
    errors = pose_errors(scene.cameras(), truth.cameras())
    assert errors.centers.mean() < 0.02
    assert errors.rotations.mean() < 0.8
    K = scene.cameras().K
    assert torch.equal(K[:, 0, 0], K[:, 1, 1])
    assert torch.equal(K[:, :2, 2], torch.tensor([160.0, 120.0]).double().expand(8, 2))
    for record, original in zip(scene.records, truth.records, strict=True):
        assert np.abs(record.load().astype(int) - original.load()).mean() < 12  # zoomed a little at most


def test_the_mesh_lies_where_the_room_is(root: Path, truth: Scene) -> None:
    scene = open_scene(root)
    covered = coverage(scene.mesh(), [record.camera for record in scene.records])
    assert covered.mean() > 0.93
    assert covered.min() > 0.8
    similarity = pose_errors(scene.cameras(), truth.cameras()).similarity
    rasterizer = Rasterizer(scene.mesh())
    for record in truth.records:
        here = record.camera.resize(60, 80)
        c2w = here.c2w.clone()  # the true camera, in the prepared frame
        c2w[:3, :3] = similarity.rotation.T @ c2w[:3, :3]
        c2w[:3, 3] = similarity.rotation.T @ (here.center - similarity.translation) / similarity.scale
        found = rasterizer.depth(here.with_poses(c2w))[0] * similarity.scale
        exact = torch.from_numpy(record.load_depth()[2::4, 2::4])
        error = (found / exact - 1).abs()[found > 0]
        assert error.median() < 0.03


def test_a_finished_scene_is_left_alone(root: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(root)
    caplog.set_level("INFO")
    prepare(photos, root, OPTIONS, CPU)
    assert contents(root) == before
    stages = [line for line in caplog.messages if line.startswith("[")]
    assert len(stages) == 7
    assert all(line.endswith("(done before)") for line in stages)


def test_a_lost_mesh_is_made_again_to_the_bit(root: Path, photos: Path) -> None:
    before = (root / "mesh.ply").read_bytes()
    (root / "mesh.ply").unlink()
    prepare(photos, root, OPTIONS, CPU)
    assert (root / "mesh.ply").read_bytes() == before


def test_other_photos_do_not_touch_a_scene(root: Path, photos: Path, tmp_path: Path) -> None:
    before = contents(root)
    for path in sorted(photos.iterdir())[1:]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "0003.png").write_bytes((photos / "0004.png").read_bytes())
    with pytest.raises(UserError, match="0 new, 1 missing, 1 changed"):
        prepare(tmp_path, root, OPTIONS, CPU)
    with pytest.raises(UserError, match="not an empty folder"):
        prepare(photos, tmp_path, OPTIONS, CPU)
    assert contents(root) == before


def test_nothing_is_left_of_photos_that_cannot_be_read(photos: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    for path in photos.iterdir():
        (bad / path.name).write_bytes(path.read_bytes())
    (bad / "0005.png").write_bytes((photos / "0005.png").read_bytes()[:3000])
    with pytest.raises(UserError, match=r"0005\.png is not a readable image"):
        prepare(bad, tmp_path / "scene", OPTIONS, CPU)
    assert not (tmp_path / "scene").exists()


def test_photos_that_made_no_scene_may_be_replaced(tmp_path: Path) -> None:
    """A folder without a finished scene starts over when photos are added."""
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        write_image(noise, tmp_path / "photos" / f"{i}.png")
    for _ in range(2):
        with pytest.raises(UserError, match="photos could be placed together"):
            prepare(tmp_path / "photos", tmp_path / "scene", OPTIONS, CPU)
        (tmp_path / "photos" / "3.png").unlink(missing_ok=True)
    assert not (tmp_path / "scene" / "images").exists()


@pytest.mark.parametrize("options", [{"camera_model": "FISHEYE"}, {"max_size": -1}, {"depth_size": 3}])
def test_meaningless_options_are_refused(options: dict) -> None:
    with pytest.raises(UserError, match=r"camera model|max_size"):
        PrepareOptions(**options)


@pytest.mark.slow
def test_real_photos_against_the_poses_given(parity_data: Path, tmp_path: Path) -> None:
    given = open_scene(parity_data / "scene_a", format="mvsnet")
    prepare(parity_data / "scene_a" / "images", tmp_path / "scene", PrepareOptions(), CPU)
    scene = open_scene(tmp_path / "scene")
    assert scene.names == given.names  # all 30 photos were placed
    errors = pose_errors(scene.cameras(), given.cameras())
    assert errors.centers.mean() < 0.005 * 5  # of the median depth
    assert errors.rotations.mean() < 0.7
    covered = coverage(scene.mesh(), [record.camera for record in scene.records])
    assert covered.mean() > 0.95
    assert covered.min() > 0.88
    # the surface agrees with the one given, which comes of another stereo method
    similarity, theirs = errors.similarity, Rasterizer(given.mesh())
    ours = Rasterizer(scene.mesh())
    for record, other in zip(scene.records, given.records, strict=True):
        small, same = record.camera.resize(192, 108), other.camera.resize(192, 108)
        here, there = ours.depth(small)[0] * similarity.scale, theirs.depth(same)[0]
        both = (here > 0) & (there > 0)
        assert (here / there - 1).abs()[both].median() < 0.01
