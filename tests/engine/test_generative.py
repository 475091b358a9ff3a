"""FID and KID: known values, order, duplicates, several processes, and weights that are missing or wrong."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from common.errors import UserError
from engine import generative
from engine.generative import (
    ImageSetMetrics,
    frechet_distance,
    kernel_distance,
    load_inception,
)
from engine.metrics import ImageMetrics
from engine.set_scores import load_set_network


class _Means(nn.Module):
    """Stand-in features: the mean colours of the four quarters, [N, 12]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float() / 255, 2).flatten(1)


def _images(n: int, seed: int, offset: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(offset, 200 + offset, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)


def _filled(n: int = 24) -> ImageSetMetrics:
    metrics = ImageSetMetrics(_Means())
    metrics.update(_images(n, 0, offset=20), _images(n, 1))
    return metrics


def test_fid_is_the_frechet_distance_of_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(200, 5, generator=generator)
    b = 0.5 + 1.5 * torch.randn(150, 5, generator=generator)
    means = [x.double().mean(0).numpy() for x in (a, b)]
    covariances = [np.cov(x.double().numpy().T) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_kid_is_the_unbiased_cubic_mmd() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 4, generator=generator), 1 + torch.randn(30, 4, generator=generator)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x @ y.T / 4 + 1) ** 3

    n = len(a)
    within = sum((kernel(x, x).sum() - kernel(x, x).trace()) / (n * (n - 1)) for x in (a, b))
    mean, std = kernel_distance(a, b, subset_size=n)
    assert mean == pytest.approx(float(within - 2 * kernel(a, b).mean()), rel=1e-4)
    assert std == pytest.approx(0, abs=1e-4)


def test_kid_takes_subsets_of_n_less_one_and_keeps_the_random_state() -> None:
    metrics = _filled()
    before = torch.get_rng_state()
    first = metrics.compute()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(first["kid"], list)
    assert first["kid"][1] > 0
    assert first["n"] == 24
    assert metrics.compute() == first
    state = metrics.state()
    assert first["kid"] == list(kernel_distance(state["generated"], state["real"], subset_size=23))


def test_processes_score_as_one_whatever_the_order_and_repeats() -> None:
    generated, real = _images(10, 0, offset=20), _images(10, 1)
    alone, first, second = (ImageSetMetrics(_Means()) for _ in range(3))
    alone.update(generated, real)
    for metrics, chosen in ((first, [0, 2, 4, 6, 8, 0]), (second, [1, 3, 5, 7, 9, 1])):
        indices = torch.tensor(chosen)
        metrics.update(generated[indices], real[indices], indices)
    second.merge(first.state())
    second.merge(ImageSetMetrics(_Means()).state())
    assert second.compute() == alone.compute()


def test_wrong_images_are_refused() -> None:
    metrics = ImageSetMetrics(_Means())
    with pytest.raises(ValueError, match="uint8"):
        metrics.update(_images(3, 0).float(), _images(3, 1))
    with pytest.raises(ValueError, match="3 generated images, 4 real"):
        metrics.update(_images(3, 0), _images(4, 1))
    metrics.update(_images(2, 0), _images(2, 1))
    with pytest.raises(UserError, match="there are 2"):
        metrics.compute()


def test_missing_weights_are_said_not_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        network, why = load_inception(tmp_path)
    assert network is None
    assert str(tmp_path) in why
    assert "--weights_dir" in why
    assert why in caplog.text
    metrics = ImageMetrics()
    assert load_set_network(metrics, tmp_path, torch.device("cpu")) is None
    assert metrics.missing == {"fid": why, "kid": why}


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / generative.INCEPTION_FILE).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the published file"):
        load_inception(tmp_path)


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / generative.INCEPTION_FILE
    path.write_bytes(b"something else")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(generative, "INCEPTION_HASH", digest[:8])
    with pytest.raises(UserError, match="not a readable weights file"):
        load_inception(tmp_path)


def test_inception_gives_2048_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published network's shape, with random weights."""
    from torch_fidelity import feature_extractor_inceptionv3 as published

    def random_weights(*_: object, **__: object) -> dict[str, torch.Tensor]:
        return {}

    build = published.FeatureExtractorInceptionV3
    monkeypatch.setattr(published, "load_state_dict_from_url", random_weights)
    monkeypatch.setattr(build, "load_state_dict", lambda self, state: None)
    torch.save(build("inception-v3-compat", ["2048"]).state_dict(), tmp_path / generative.INCEPTION_FILE)
    monkeypatch.undo()
    digest = hashlib.sha256((tmp_path / generative.INCEPTION_FILE).read_bytes()).hexdigest()
    monkeypatch.setattr(generative, "INCEPTION_HASH", digest[:8])
    network, why = load_inception(tmp_path)
    assert network is not None
    assert not why
    features = ImageSetMetrics(network).extract(_images(2, 0))
    assert features.shape == (2, 2048)
    assert features.isfinite().all()
