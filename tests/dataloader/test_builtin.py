import pytest
import torch

from common.errors import UserError
from dataloader.builtin import motorcycle, open_builtin


def test_motorcycle_is_metric_and_rectified() -> None:
    """A left pixel of disparity d reappears d further left in the right image, by its depth alone."""
    from skimage.data import stereo_motorcycle

    _, _, disparity = stereo_motorcycle()
    scene = motorcycle()
    left = scene.views([0])
    assert left.depth is not None
    assert left.valid is not None
    points = left.cameras.unproject(left.depth[:, 0].double())
    pixels, _ = scene.records[1].camera.project(points.reshape(-1, 3))
    shift = left.cameras.pixel_centers().reshape(-1, 2) - pixels
    known = left.valid.reshape(-1) > 0
    expected = torch.from_numpy(disparity.copy()).reshape(-1)[known].double()
    torch.testing.assert_close(shift[known, 0], expected, atol=1e-3, rtol=0)
    assert shift[known, 1].abs().max() < 1e-9
    assert 1.0 < float(left.depth[left.depth > 0].median()) < 10.0  # metres


def test_names() -> None:
    assert open_builtin("room:3").name == "room3"
    with pytest.raises(UserError, match="motorcycle, room"):
        open_builtin("castle")
