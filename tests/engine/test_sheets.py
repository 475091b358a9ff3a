from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from engine.outputs import write_provenance
from engine.sheets import contact_sheet, depth_map, error_map, write_sheet


def test_sheet_places_images_in_rows_and_columns() -> None:
    red, blue = torch.zeros(3, 20, 30), torch.zeros(3, 20, 30)
    red[0], blue[2] = 1, 1
    sheet = contact_sheet(
        [[red, blue], [blue, red]], titles=["a", "b"], captions=[["1", "2"], ["3", "4"]], height=40
    )
    assert sheet.dtype == np.uint8
    height, width = sheet.shape[:2]
    quarter = lambda y, x: sheet[int(height * y), int(width * x)].tolist()  # noqa: E731
    assert quarter(0.3, 0.25) == [255, 0, 0] == quarter(0.75, 0.75)
    assert quarter(0.3, 0.75) == [0, 0, 255] == quarter(0.75, 0.25)


def test_columns_are_as_wide_as_their_texts() -> None:
    narrow = [[torch.zeros(3, 40, 10)] * 2]
    plain = contact_sheet(narrow, height=40)
    captioned = contact_sheet(narrow, ["a", "b"], [["a caption of some length", "short"]], height=40)
    assert captioned.shape[1] > plain.shape[1] + 100


def test_error_map_is_black_without_error_and_white_at_full_scale() -> None:
    image = torch.rand(3, 8, 9)
    assert error_map(image, image).max() == 0
    torch.testing.assert_close(
        error_map(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.25)), torch.ones(3, 4, 4)
    )


def test_depth_map_shows_near_brighter_than_far_and_nothing_black() -> None:
    depth = torch.linspace(1, 10, 100).reshape(1, 10, 10)
    depth[0, 0, 5] = 0
    picture = depth_map(depth)
    assert picture[:, 0, 0].mean() > picture[:, 9, 9].mean()
    assert picture[:, 0, 5].max() == 0


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*run\.json"):
        write_provenance(tmp_path, {}, 0)
    with pytest.raises(UserError, match=r"cannot write .*sheet\.png"):
        write_sheet(np.zeros((4, 4, 3), np.uint8), tmp_path / "file/sheet.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run.json"]
