from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.support.experiments import Recorder
from tests.support.networks import WITH_GELU
from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tests.support.training import dense_run, pruned_run, same_bits, train_alone
from tombola.engines.sparse import engine as module
from tombola.engines.sparse.engine import Sparse
from tombola.engines.sparse.speeds import Speeds
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.conductor import conduct
from tombola.studies.request import RunRequest
from tombola.utils.workers import parallel_executor

MODULE = {"model": WITH_GELU | {"channels": 8}}


def sparse(run: Run, path: Path | None = None) -> Outcome:
    return train_alone(run, path, Sparse)


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speeds, "sparse_is_faster", lambda *arguments: arguments[-1] < 1)


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("changes", [{}, MODULE])
@pytest.mark.parametrize("density", [1.0, 0.8, 0.3])
def test_its_outcomes_are_those_of_the_eager_engine(changes: dict[str, Any], density: float) -> None:
    run = pruned_run(density, training__test_curve=True, **changes)
    ours, eager = sparse(run), train_alone(run)
    assert list(ours.final) == list(eager.final)
    assert list(ours.curves) == list(eager.curves)
    for name, values in eager.curves.items():
        np.testing.assert_allclose(ours.curves[name], values, rtol=1e-2, atol=0.01)
    best = int(ours.curves["validation_loss"].argmin())
    assert ours.measures.stop_iteration == int(ours.curves["iteration"][best])
    assert ours.measures["test_accuracy_at_stop"] == pytest.approx(float(ours.curves["test_accuracy"][best]))
    assert ours.measures["test_accuracy"] == pytest.approx(float(ours.curves["test_accuracy"][-1]))
    for name, kept in run.mask.items():
        assert (ours.final[name][~kept] == 0).all()


@pytest.mark.usefixtures("always_sparse")
def test_outcomes_name_the_kernels_and_the_sparse_layers() -> None:
    run = dense_run()
    assert sparse(run).engine.startswith("sparse (loop) on cpu, kernels ")
    run = dense_run(**MODULE)
    assert sparse(run).engine.startswith("sparse (no layer) on cpu")
    assert sparse(run.masked(random_mask(run, 0.3))).engine.startswith("sparse (layers conv, output) on cpu")


class Residual(nn.Module):
    """A module that is not a stack: a convolution, batch norm, a sum of two branches, dropout."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False)  # batch norm would undo a bias
        self.norm = nn.BatchNorm2d(6)
        self.left, self.right = nn.Linear(96, 20), nn.Linear(96, 20, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x[:, None]))).flatten(1)
        logits: Tensor = self.output(self.dropout(functional.relu(self.left(x) + self.right(x))))
        return logits


@pytest.mark.usefixtures("always_sparse")
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    density=st.sampled_from([0.0, 0.05, 0.5, 0.95]),
    batch=st.integers(8, 70),
    optimizer=st.sampled_from(["adam", "sgd"]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    dropout=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 99),
)
def test_modules_with_sparse_layers_follow_eager_to_rounding(
    density: float, batch: int, optimizer: str, weight_decay: float, dropout: float, seed: int
) -> None:
    run = dense_run(
        seed=seed,
        model={"name": f"{__name__}:Residual", "dropout": dropout},
        training={
            "optimizer": optimizer,
            "lr": 3e-3 if optimizer == "adam" else 0.02,
            "momentum": 0.9 if optimizer == "sgd" else 0.0,
            "batch_size": batch,
            "length": "20it",
            "evaluate_every": "1it",
            "weight_decay": weight_decay,
        },
    )
    run = run.masked(random_mask(run, density, seed))
    ours, eager = sparse(run), train_alone(run)
    # The mask may keep all 54 weights of conv.
    thinned = [name.removesuffix(".weight") for name, kept in run.mask.items() if not kept.all()]
    assert f"layers {', '.join(thinned)}" in ours.engine
    np.testing.assert_allclose(ours.curves["train_loss"], eager.curves["train_loss"], rtol=1e-3, atol=1e-4)
    for name, tensor in eager.final.items():
        torch.testing.assert_close(ours.final[name], tensor, rtol=1e-2, atol=1e-3)
    for name, kept in run.mask.items():
        assert (ours.final[name][~kept] == 0).all()


def train_experiment(folder: Path, workers: int) -> dict[tuple[int, RunRequest], Outcome | None]:
    recorder, store, experiment = Recorder(), Store(folder), RecipeExperiment(tiny())
    assert Sparse().capacity(experiment.dense(0)).threads
    with parallel_executor(workers, threads=True) as executor:
        conduct(experiment.studies(), store, Sparse(), executor, recorder, workers)
    return {(study, request): store.get(request.run) for study, request in recorder.answers}


def test_an_experiment_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    one, three = (train_experiment(tmp_path / str(workers), workers) for workers in (1, 3))
    assert one.keys() == three.keys()
    for request, outcome in one.items():
        other = three[request]
        assert outcome is not None
        assert other is not None
        assert same_bits(outcome, other)
    assert len(one) == 2 * (1 + 3 * 3)


def test_compiled_loops_train_in_threads_and_other_modules_in_processes() -> None:
    assert Sparse().capacity(dense_run()).threads
    assert not Sparse().capacity(dense_run(**MODULE)).threads


def test_without_numba_it_trains_dense_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module._warn_once.cache_clear()
    monkeypatch.setattr(module, "_why_unavailable", lambda: "numba is missing")
    run = dense_run()
    assert not Sparse().capacity(run).threads
    with caplog.at_level(logging.WARNING):
        assert same_bits(sparse(run), train_alone(run))
        assert sparse(run).engine.startswith("eager on cpu")
    assert len(caplog.records) == 1  # not for each run


def test_bfloat16_is_trained_by_the_eager_engine() -> None:
    assert sparse(dense_run(training__precision="bf16", training__length="10it")).engine.startswith("eager")


def test_threads_do_not_plan_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing replaces methods of `nn.Module`."""
    planning, most = 0, 0

    def plan(*_: object) -> str:
        nonlocal planning, most
        planning += 1
        most = max(most, planning)
        time.sleep(0.02)
        planning -= 1
        return "not planned here"

    monkeypatch.setattr(module, "_PLANS", {})
    monkeypatch.setattr("tombola.engines.sparse.compiled_plan.compiled_plan", plan)
    runs = [dense_run(model={"name": "mlp", "widths": [width]}) for width in (5, 6, 7, 5)]
    with ThreadPoolExecutor(len(runs)) as pool:
        capacities = list(pool.map(Sparse().capacity, runs))
    assert most == 1
    assert len(module._PLANS) == 3
    assert not any(capacity.threads for capacity in capacities)
