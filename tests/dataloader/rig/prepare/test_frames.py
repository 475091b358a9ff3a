"""Camera folders, and images made of all their files."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from dataloader.images import read_image, write_image
from dataloader.rig.prepare.frames import convert_frames, open_rig, per_camera, read_frame, write_frame
from tests.dataloader.rig.prepare.makers import write_frames


def test_a_rig_is_opened(tmp_path: Path) -> None:
    rig = open_rig(write_frames(tmp_path, count=12, moments=2))
    assert rig.names == [f"cam{i:02d}" for i in range(12)]
    assert (len(rig), rig.size) == (2, (12, 16))
    assert [path.name for path in rig.cameras["cam10"]] == ["00000.png", "00001.png"]
    before = rig.fingerprint()
    write_image(np.zeros((12, 16, 3), np.uint8), tmp_path / "cam03/00001.png")
    assert open_rig(tmp_path).fingerprint() != before


def test_what_is_no_rig_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        open_rig(tmp_path / "none")
    with pytest.raises(UserError, match=r"holds no camera folder .*from-videos"):
        open_rig(tmp_path)
    write_frames(tmp_path)
    (tmp_path / "cam01/00003.png").unlink()
    with pytest.raises(
        UserError, match=r"different numbers of frames \(cam00 4, cam01 3, cam02 4\).* 3 of cam01"
    ):
        open_rig(tmp_path)
    write_image(np.zeros((12, 16, 3), np.uint8), tmp_path / "cam01/00000.jpg")
    with pytest.raises(UserError, match=r"cam01 holds 00000\.png and 00000\.jpg"):
        open_rig(tmp_path)


def test_sizes_that_differ_are_refused_where_they_matter(tmp_path: Path) -> None:
    write_frames(tmp_path)
    write_image(np.zeros((10, 16, 3), np.uint8), tmp_path / "cam02/00000.png")
    rig = open_rig(tmp_path)
    with pytest.raises(UserError, match=r"cam02 is 16x10, .*cam00 is 16x12"):
        rig.size  # noqa: B018
    with pytest.raises(UserError, match=r"00001\.png is 16x12, its camera's first frame 16x10"):
        read_frame(tmp_path / "cam02/00001.png", rig.sizes["cam02"])


def test_conversion_continues_where_it_was_killed(tmp_path: Path) -> None:
    files = open_rig(write_frames(tmp_path / "rig", moments=6)).cameras["cam00"]
    calls = []

    def convert(path: Path, limit: int) -> np.ndarray:
        calls.append(path.stem)
        if len(calls) > limit:
            raise UserError("killed")
        return 255 - read_image(path)

    with pytest.raises(UserError, match="killed"):
        convert_frames(files, tmp_path / "out", ".png", lambda path: convert(path, 3))
    assert not (tmp_path / "out").exists()
    done = convert_frames(files, tmp_path / "out", ".png", lambda path: convert(path, 99))
    assert 3 <= done < 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"0000{i}.png" for i in range(6)]
    np.testing.assert_array_equal(read_image(tmp_path / "out/00004.png"), 255 - read_image(files[4]))
    assert convert_frames(files, tmp_path / "out", ".png", lambda path: convert(path, 0)) == 0
    assert not list(tmp_path.glob(".*"))


def test_written_frames(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    write_frame(frame, tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), frame[..., :3])
    for quality in (30, 95):
        write_frame(frame[..., :3], tmp_path / f"{quality}.jpg", quality)
    assert (tmp_path / "30.jpg").stat().st_size < (tmp_path / "95.jpg").stat().st_size


def test_values_per_camera() -> None:
    assert per_camera([5.0], 3, "--focal") == [5.0] * 3
    assert per_camera([1.0, 2.0], 2, "--focal") == [1.0, 2.0]
    with pytest.raises(UserError, match="--focal has 2 values for 3 cameras"):
        per_camera([1.0, 2.0], 3, "--focal")
