"""MVSNet camera texts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from common.errors import UserError
from dataloader.formats import mvsnet, open_scene, write_scene
from dataloader.images import resize_image, write_image
from dataloader.scene import Scene

TEXT = """extrinsic
0.6 0.0 0.8 1.5
0.0 1.0 0.0 -2.25
-0.8 0.0 0.6 3.0
0.0 0.0 0.0 1.0

intrinsic
50.5 0.0 16.25
0.0 49.5 11.75
0.0 0.0 1.0

2.0 0.5
"""


def numbers(text: str) -> list[float]:
    K, w2c, depth = mvsnet.parse_camera(text, "camera")
    return [*K.ravel(), *w2c.ravel(), *depth]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([" ", "\n", "\t", "  ", "\r\n", " \n\n "]), min_size=29, max_size=29))
def test_any_white_space_will_do(gaps: list[str]) -> None:
    words = TEXT.split()
    text = "".join(gap + word for gap, word in zip(gaps, words, strict=True))
    assert numbers(text) == numbers(TEXT)


def test_values() -> None:
    K, w2c, depth = mvsnet.parse_camera(TEXT, "camera")
    assert K.dtype == w2c.dtype == np.float64
    assert K.tolist() == [[50.5, 0, 16.25], [0, 49.5, 11.75], [0, 0, 1]]
    assert w2c[:, 3].tolist() == [1.5, -2.25, 3, 1]
    assert depth == [2.0, 0.5]


@pytest.mark.parametrize("count", range(28))
def test_a_cut_off_text_is_named(count: int) -> None:
    with pytest.raises(UserError, match=r"here/7_cam\.txt"):
        mvsnet.parse_camera(" ".join(TEXT.split()[: min(count, 26)]), "here/7_cam.txt")


@pytest.mark.parametrize("bad", ["nan", "inf", "1,5", "x"])
@pytest.mark.parametrize("index", [1, 12, 18, 26, 27])
def test_what_is_no_finite_number_is_named(bad: str, index: int) -> None:
    words = TEXT.split()
    words[index] = bad
    with pytest.raises(UserError, match=r"here/7_cam\.txt"):
        mvsnet.parse_camera(" ".join(words), "here/7_cam.txt")


@pytest.mark.parametrize("case", ["camera_mvsnet_ss1", "camera_mvsnet_ss2"])
def test_recorded_cameras(parity_dir: Path, case: str) -> None:
    data = load_file(parity_dir / "hash_manifold" / f"{case}.safetensors")
    for i in range(5):
        K, w2c, _ = mvsnet.parse_camera(data[f"input.text_{i}"].tobytes().decode(), str(i))
        np.testing.assert_allclose(K, data["output.K"][i], rtol=1e-6)
        np.testing.assert_allclose(w2c[:3, :3], data["output.R"][i], atol=1e-6)
        np.testing.assert_allclose(w2c[:3, 3], data["output.t"][i].ravel(), atol=1e-6)
        np.testing.assert_allclose(
            np.linalg.inv(w2c)[:3, 3], data["output.camera_center"][i].ravel(), atol=1e-5
        )


@pytest.fixture
def folder(posed_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    write_scene(posed_scene(3), tmp_path / "scene", "mvsnet")
    return tmp_path / "scene"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", None),
        ("2.5", None),
        ("2 0.01", (2.0, 2.0 + 191 * 0.01)),
        ("2 0.5 9", (2.0, 6.0)),
        ("2 0.5 9 7.5", (2.0, 7.5)),
        ("0 0", None),
    ],
)
def test_depth_line(folder: Path, line: str, expected: tuple[float, float] | None) -> None:
    path = folder / "cams" / "0001_cam.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n" + line)
    found = mvsnet.read(folder).records[1].bounds
    assert found == (None if expected is None else pytest.approx(expected))


def test_all_digits_survive(folder: Path, posed_scene: Callable[..., Scene]) -> None:
    for before, after in zip(posed_scene(3).records, mvsnet.read(folder).records, strict=True):
        assert (before.camera.K == after.camera.K).all()
        np.testing.assert_allclose(before.camera.c2w, after.camera.c2w, atol=1e-14)
        assert before.bounds == after.bounds


def test_missing_camera(folder: Path) -> None:
    (folder / "cams" / "0001_cam.txt").unlink()
    with pytest.raises(UserError, match=r"images/0001\.png has no camera"):
        mvsnet.read(folder)


def test_a_camera_without_photo_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "images" / "0001.png").unlink()
    assert mvsnet.read(folder).names == ["0000", "0002"]
    assert "0001_cam.txt" in caplog.text


def test_photo_of_another_size(folder: Path) -> None:
    """The format has no image sizes, but equal intrinsics give an odd photo away."""
    write_image(np.zeros((36, 48, 3), np.uint8), folder / "images" / "0001.png")
    with pytest.raises(UserError, match=r"0001\.png is 48x36, 0000\.png with the same intrinsics is 32x24"):
        mvsnet.read(folder)
    for i in range(3):
        write_image(np.zeros((12, 16, 3), np.uint8), folder / "images" / f"000{i}.png")
    with pytest.raises(UserError, match="belongs to another image size"):
        mvsnet.read(folder)


def test_resized_photos_with_and_without_cameras_of_their_own(folder: Path) -> None:
    full = mvsnet.read(folder)
    for record in full.records:
        write_image(resize_image(record.load(), (12, 16)), folder / "images_2" / f"{record.name}.png")
    scaled = mvsnet.read(folder, "images_2")
    assert scaled.cameras().K[0].tolist() == full.records[0].camera.resize(12, 16).K.tolist()
    (folder / "cams_2").mkdir()
    for path in (folder / "cams").iterdir():
        text = path.read_text().replace("16.0", "8.0").replace("12.0", "6.0")
        (folder / "cams_2" / path.name).write_text(text)
    own = mvsnet.read(folder, "images_2")
    assert own.records[0].camera.K[:2, 2].tolist() == [8, 6]
    assert own.records[0].camera.K[0, 0] == full.records[0].camera.K[0, 0]


def test_names_with_brackets_blanks_and_umlauts(folder: Path) -> None:
    for kind, end in (("images", ".png"), ("cams", "_cam.txt")):
        (folder / kind / f"0001{end}").rename(folder / kind / f"für [1] b{end}")
    full = mvsnet.read(folder)
    for record in full.records:
        write_image(resize_image(record.load(), (12, 16)), folder / "images_2" / f"{record.name}.png")
    scaled = mvsnet.read(folder, "images_2")
    assert scaled.names[-1] == "für [1] b"
    torch.testing.assert_close(scaled.cameras().K, full.cameras().resize(12, 16).K)


def test_name_up_to_the_first_dot(folder: Path) -> None:
    (folder / "images" / "0001.png").rename(folder / "images" / "0001.raw.png")
    assert mvsnet.read(folder).names == ["0000", "0001.raw", "0002"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w2c: w2c * [[2.0], [2.0], [2.0], [1.0]], "not a rotation"),
        (lambda w2c: w2c * [[1.0], [1.0], [-1.0], [1.0]], "mirrors"),
        (lambda w2c: w2c * 0, "cannot be inverted"),
        (lambda w2c: w2c + [[0], [0], [0], [0, 0, 0, 1]][3], "last row"),
    ],
)
def test_poses_that_are_none(folder: Path, change: Callable, message: str) -> None:
    camera = mvsnet.read(folder).records[0].camera
    w2c = np.asarray(change(camera.w2c.numpy()))
    rows = "\n".join(" ".join(map(str, row)) for row in w2c)
    text = f"extrinsic\n{rows}\n\nintrinsic\n30 0 16\n0 30 12\n0 0 1\n"
    (folder / "cams" / "0000_cam.txt").write_text(text)
    with pytest.raises(UserError, match=rf"0000_cam\.txt.*{message}"):
        mvsnet.read(folder)


def test_no_cameras_at_all(tmp_path: Path) -> None:
    write_image(np.zeros((4, 4, 3), np.uint8), tmp_path / "images" / "a.png")
    with pytest.raises(UserError, match="no folder 'cams'"):
        open_scene(tmp_path, "mvsnet")
