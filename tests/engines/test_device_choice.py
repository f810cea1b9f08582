from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.cuda_device import CudaDevice
from tests.support.recipes import tiny
from tests.support.training import dense_run
from tombola.engines import device_choice
from tombola.engines.device_choice import (
    CUDA_START,
    EAGER_STEP,
    STACKED_STEP,
    Demand,
    choose,
    choose_device,
    count_multiply_adds,
    cpu_seconds,
    cuda_seconds,
)
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment

LENET = Demand([5] * 22 + [300], iterations=50_000, multiply_adds=48_000_000, density=0.2, stackable=True)


def never() -> Demand:
    raise AssertionError("the demand is not needed")


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_a_named_device_is_used(device: str) -> None:
    assert choose_device(device, "auto", None, never) == device


def test_without_a_gpu_nothing_is_estimated_and_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert choose_device("auto", "stacked", None, never) == "cpu"
    assert not caplog.records


def test_the_sparse_engine_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert choose_device("auto", "sparse", None, never) == "cpu"


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs and four cores, and whatever is computed there succeeds."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(device_choice, "cores", lambda: 4)
    monkeypatch.setattr(device_choice, "_why_not_usable", lambda: None)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("iterations", "workers", "expected", "said"),
    [
        (50_000, None, "cuda", ["4 cores", "2 GPUs"]),
        (5, None, "cpu", ["4 cores", "2 GPUs"]),
        (50_000, 1, "cuda", ["1 core,", "1 GPU"]),
        (50_000, 8, "cuda", ["8 cores", "2 GPUs"]),
    ],
)
def test_with_a_gpu_the_choice_is_said_in_one_line_with_both_estimates(
    iterations: int, workers: int | None, expected: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    demand = replace(LENET, iterations=iterations)
    assert choose_device("auto", "auto", workers, lambda: demand) == expected
    (record,) = caplog.records
    for part in (f"auto: {expected};", *said):
        assert part in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_gpu_that_nothing_can_be_computed_on_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def no_kernel(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    monkeypatch.setattr("torch.zeros", no_kernel)
    assert choose_device("auto", "auto", None, lambda: LENET) == "cpu"
    (record,) = caplog.records
    assert record.getMessage().endswith("no kernel image is available for execution on the device")


def test_a_gpu_that_works_is_chosen(cuda: CudaDevice) -> None:  # noqa: ARG001
    assert choose_device("auto", "auto", None, lambda: LENET) == "cuda"


@pytest.mark.parametrize("cores", [4, 64])
def test_short_experiments_of_small_networks_stay_on_the_cpu_and_long_ones_do_not(cores: int) -> None:
    digits = RecipeExperiment(load_recipe("digits")).demand()
    resnet = Demand([5] * 12, iterations=30_000, multiply_adds=15_600_000_000, density=0.3, stackable=True)
    devices = [choose(demand, "auto", cores, 1)[0] for demand in (digits, LENET, resnet)]
    assert devices == ["cpu", "cuda", "cuda"]


def test_a_stack_takes_as_long_as_its_launches_or_its_arithmetic() -> None:
    def step(runs: int, engine: str = "auto", gpus: int = 1, **changes: Any) -> float:
        demand = replace(LENET, at_once=[runs], iterations=1, **changes)
        return cuda_seconds(demand, engine, gpus) - CUDA_START

    arithmetic = 2 * 48e6 / 35e12
    assert step(1) == pytest.approx(STACKED_STEP)
    assert step(1000) == pytest.approx(1000 * arithmetic)
    assert step(1000, precision="tf32") < step(1000)
    assert step(1000, gpus=3) == pytest.approx(334 * arithmetic)
    assert step(10, "eager") == step(10, stackable=False) == pytest.approx(10 * EAGER_STEP)
    assert step(2, "eager", multiply_adds=10**12) == pytest.approx(4e12 / 35e12)


def test_cores_train_one_run_each_with_the_kept_weights() -> None:
    def step(runs: int, engine: str = "auto", cores: int = 4, **changes: Any) -> float:
        return cpu_seconds(replace(LENET, at_once=[runs], iterations=1, **changes), engine, cores)

    assert step(4) == step(1) == step(5) / 2 == pytest.approx(2 * 48e6 * 0.2 / 60e9)
    assert step(1, density=0.0) == step(1, multiply_adds=0) == device_choice.CPU_STEP
    assert step(1, "eager") == step(1, precision="bf16") == pytest.approx(step(1) * 5)


def test_multiply_adds_of_forward_and_backward_pass() -> None:
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    # the inputs need no gradient
    assert count_multiply_adds(network, (6,)) == max(2 * 30 + 3 * 20, 3 * (30 + 5 + 20 + 4))
    convolution = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    state = torch.get_rng_state()
    assert count_multiply_adds(convolution, (1, 8, 8)) == 2 * 64 * 27
    assert torch.equal(state, torch.get_rng_state())


class Recurrent(nn.Module):
    """Batches of sequences of 3 features."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0][:, -1]  # type: ignore[no-any-return]


def test_weights_of_recurrent_layers_count_once_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(parameter.numel() for parameter in Recurrent().parameters())
    assert count_multiply_adds(Recurrent(), (5, 3)) >= 3 * weights
    monkeypatch.setattr(device_choice, "build", lambda _: nn.Sequential(Recurrent(), nn.Linear(4, 2)))
    run = dense_run()
    shapes = run.start.network.model_copy(update={"inputs": (5, 3)})
    run = run.model_copy(update={"start": run.start.model_copy(update={"network": shapes})})
    assert not Demand.of(run, [1], 1.0).stackable


def test_a_network_that_raises_an_error_is_estimated_by_its_weights() -> None:
    assert count_multiply_adds(nn.Linear(3, 4), (2,)) == 3 * 16


def test_the_demand_of_an_experiment() -> None:
    experiment = RecipeExperiment(tiny())
    demand = experiment.demand()
    # four levels of two searches, then two reinitialised controls for each ticket
    assert list(demand.at_once) == [2, 2, 2, 2, 12]
    assert demand.iterations == 60
    assert demand.multiply_adds > 3 * 40 * experiment.dense(0).mask.size * 0.9
    assert 0.4**3 < demand.density < 1
    assert demand.stackable
    assert list(RecipeExperiment(tiny(search__one_shot=True)).demand().at_once) == [2, 2, 16]
