"""Noise measured on pixels most of which may move."""

import numpy as np
import pytest

from dataloader.rig.prepare.noise import spread


@pytest.mark.parametrize("sigma", [0.7, 2.0, 6.0])
def test_spread(sigma: float) -> None:
    rng = np.random.default_rng(0)
    still = np.abs(np.rint(rng.normal(0, sigma, 20000))).astype(int)
    assert spread(still) == pytest.approx(sigma, rel=0.15)
    moving = rng.integers(0, 200, 4000)
    assert spread(np.concatenate([still, moving])) == pytest.approx(sigma, rel=0.4)


def test_no_noise() -> None:
    assert spread(np.zeros(10, int)) < 0.5
