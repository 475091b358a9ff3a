"""The baselines on a GPU render what they render on the CPU."""

import pytest
import torch

from dataloader import toy
from engine.config import DataConfig
from engine.evaluator import Evaluator
from engine.metrics import ImageMetrics
from methods import BASELINES, method_class

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@cuda
@pytest.mark.parametrize("name", BASELINES)
def test_scores_on_the_gpu_are_those_on_the_cpu(name: str) -> None:
    scene = toy.make_scene(1, n_views=9, height=48, width=64)
    kind = method_class(name)
    scores = []
    for device in ("cpu", "cuda"):
        method = kind.create(kind.Config(), scene)
        report = Evaluator(scene, DataConfig(), ImageMetrics(), torch.device(device)).evaluate(name, method)
        scores.append([row["psnr"] for row in report.rows])
    assert scores[1] == pytest.approx(scores[0], abs=0.05)  # triangle edges may fall either way
