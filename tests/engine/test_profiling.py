"""Measured FLOPs, memory and failures are what the work does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.profiling import count_flops, matmul_peak, measure, ran_out_of_memory
from engine.random_views import random_views
from engine.workloads import Bench, Work, inference, inference_table, parameter_counts, training_table
from methods.baselines.photos import NearestView
from tests.engine.toy_method import ToyMethod, ToySample, toy_experiment

CPU = torch.device("cpu")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class RandomToy(ToyMethod):
    """Makes random samples, until there are too many for the machine."""

    def random_sample(self, batch: int, sources: int, targets: int) -> ToySample:
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ToySample(torch.rand(batch, 3), torch.rand(batch, 1), torch.arange(batch))

    def tokens_per_sample(self, sample: ToySample) -> int:
        return 7


def test_flops_are_those_of_the_matrix_products() -> None:
    layer = nn.Linear(30, 50)
    assert count_flops(lambda: layer(torch.rand(7, 30))) == 2 * 7 * 30 * 50
    x = torch.rand(7, 30, requires_grad=True)
    assert count_flops(lambda: layer(x).sum().backward()) == 3 * 2 * 7 * 30 * 50


def test_memory_of_the_process_grows_by_what_is_held() -> None:
    kept: list[torch.Tensor] = []
    found = measure(lambda: kept.append(torch.ones(1 << 26)), CPU, repeats=1)  # 256 MiB
    assert found.memory["resident"] > 192 << 20  # meanwhile the system may take back what lay idle
    assert found.seconds > 0


@cuda
def test_memory_on_a_gpu_is_what_torch_counts() -> None:
    found = measure(lambda: torch.ones(1 << 24, device="cuda"), torch.device("cuda"), repeats=1)
    assert found.memory["allocated"] >= 64 << 20
    assert found.memory["reserved"] >= found.memory["allocated"]


def test_no_work_beats_the_peak_by_much() -> None:
    peak = matmul_peak(CPU, torch.float32, seconds=0.1)
    a = torch.rand(512, 512)
    found = measure(lambda: a @ a, CPU)
    work = Work("product", 1, found)
    assert peak > 1e8
    assert 0 < work.utilisation(peak) < 2
    assert work.per_second == pytest.approx(1 / found.seconds)


def test_random_views_look_at_one_point_from_different_places() -> None:
    views = random_views(3, 12, 16)
    pixels, depth = views.cameras.project(torch.zeros(3, 1, 3, dtype=torch.float64))
    torch.testing.assert_close(pixels, torch.tensor([8.0, 6.0]).double().expand(3, 1, 2))
    assert views.depth is not None
    torch.testing.assert_close(depth[:, 0].float(), views.depth[:, 0, 6, 8])
    assert len(views.cameras.center.unique(dim=0)) == 3
    assert torch.equal(random_views(2, 12, 16).images, random_views(2, 12, 16).images)


def test_a_training_table_reports_what_does_not_fit() -> None:
    method = RandomToy.create(toy_experiment().model)
    rows = training_table(method, (2, 4, 8), lambda n: method.random_sample(n, 1, 1), Bench(CPU, repeats=1))
    assert [row.settings for row in rows] == [{"batch": 2}, {"batch": 4}, {"batch": 8}]
    assert [row.failure for row in rows] == ["", "", "out of memory"]
    assert [row.tokens for row in rows] == [7, 7, 0]
    assert rows[0].measured is not None
    assert rows[1].measured is not None
    # forward and gradient of the weights of two layers, and of what lies between; the lifting has no gradient
    assert rows[0].measured.flops == 2 * 2 * (8 * 3 + 8 * 16 + 16 + 8 * 16 + 16 + 16)
    assert rows[1].measured.flops == 2 * rows[0].measured.flops
    assert all(parameter.grad is None for parameter in method.parameters())


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    assert ran_out_of_memory(MemoryError())
    assert not ran_out_of_memory(RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError) as too_large:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert ran_out_of_memory(too_large.value)

    def fail(error: Exception) -> Any:
        raise error

    bench = Bench(CPU, repeats=1)
    work = bench.try_out(Work("render", 1), lambda: fail(torch.OutOfMemoryError("no")))
    assert (work.failure, work.measured, work.per_second) == ("out of memory", None, 0.0)
    with pytest.raises(RuntimeError, match="shapes"):
        bench.try_out(Work("render", 1), lambda: fail(RuntimeError("shapes differ")))


def test_inference_is_measured_by_views() -> None:
    views = random_views(4, 12, 16)
    encoded, rendered = inference(NearestView(), views[:3], views.cameras[3:], Bench(CPU, repeats=1))
    assert (encoded.what, encoded.count, rendered.what, rendered.count) == ("encode", 3, "render", 1)
    rows = inference_table(NearestView(), (12, 16), range(1, 4), Bench(CPU, repeats=1))
    assert [row.settings["sources"] for row in rows] == [1, 2, 3]
    assert all(row.measured is not None for row in rows)


def test_parameters_are_counted(tmp_path: Path) -> None:
    method = ToyMethod.create(toy_experiment({"model.payload": 10}).model)
    assert parameter_counts(method) == (32 + 8 * 16 + 16 + 17 + 10, 8 * 16 + 16 + 17 + 10)


def test_autocast_is_that_of_the_bench() -> None:
    layer = nn.Linear(3, 3)
    with Bench(CPU, "bf16").autocast():
        assert layer(torch.rand(1, 3)).dtype == torch.bfloat16
    with Bench(CPU).autocast():
        assert layer(torch.rand(1, 3)).dtype == torch.float32
