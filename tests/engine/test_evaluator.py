"""Reports: means over the images that have a score."""

import json
import math

import pytest

from engine.metrics import ImageMetrics
from engine.reports import Report


def report(*covered: float) -> Report:
    rows = [
        {"scene": "s", "view": str(i), "psnr": 10.0 + i, "psnr_covered": x} for i, x in enumerate(covered)
    ]
    return Report("method", rows)


def test_a_view_without_covered_pixels_does_not_spoil_the_mean() -> None:
    summary = report(30.0, math.nan, 20.0).summary(ImageMetrics())
    assert summary["n"] == 3
    assert summary["means"]["psnr"] == pytest.approx(11.0)
    assert summary["means"]["psnr_covered"] == pytest.approx(25.0)
    assert summary["n_where_fewer"] == {"psnr_covered": 2}


def test_a_score_that_no_view_has_is_null() -> None:
    summary = report(math.nan).summary(ImageMetrics())
    assert summary["means"]["psnr_covered"] is None
    assert json.loads(json.dumps(summary, allow_nan=False))["n_where_fewer"] == {"psnr_covered": 0}
    assert math.isnan(report(math.nan).mean("psnr_covered"))
