from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.conftest import random_mask, tiny
from tests.engines.helpers import CONVOLUTIONAL, Interrupted, Interrupting, dense_run, same_bits, train
from tombola.engines import engine
from tombola.engines import sparse as module
from tombola.engines.sparse import Sparse
from tombola.engines.sparse.speeds import Speeds
from tombola.experiments.experiment import Experiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint, Store
from tombola.studies.conductor import conduct
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError
from tombola.utils.workers import parallel_executor

MLP_WITH_DROPOUT = {"model": {"name": "mlp", "widths": [20, 10], "dropout": 0.3}}
MODULE = {"model": CONVOLUTIONAL | {"channels": 8}}


def sparse(run: Run, path: Path = Path("nowhere")) -> Outcome:
    (outcome,) = Sparse().train([run], Checkpoint(path))
    return outcome


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speeds, "sparse_is_faster", lambda *arguments: arguments[-1] < 1)


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("changes", [{}, MODULE])
@pytest.mark.parametrize("density", [1.0, 0.8, 0.3])
def test_it_gives_what_eager_gives(changes: dict[str, Any], density: float) -> None:
    run = dense_run(training__test_curve=True, **changes)
    run = run.masked(random_mask(run, density)) if density < 1 else run
    ours, eager = sparse(run), train(run)
    assert list(ours.final) == list(eager.final)
    assert list(ours.curves) == list(eager.curves)
    for name, values in eager.curves.items():
        np.testing.assert_allclose(ours.curves[name], values, rtol=1e-2, atol=0.01)
    assert ours.measures.stop_iteration == eager.measures.stop_iteration
    assert ours.measures.test_accuracy == pytest.approx(eager.measures.test_accuracy, abs=0.01)
    for name, kept in run.mask.items():
        assert (ours.final[name][~kept] == 0).all()


@pytest.mark.usefixtures("always_sparse")
def test_outcomes_say_how_they_were_trained() -> None:
    run = dense_run()
    assert sparse(run).engine.startswith("sparse (loop) on cpu, kernels ")
    run = dense_run(**MODULE)
    assert sparse(run).engine.startswith("sparse (no layer) on cpu")
    assert sparse(run.masked(random_mask(run, 0.3))).engine.startswith("sparse (layers conv, output) on cpu")


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize(
    "changes",
    [{}, MLP_WITH_DROPOUT, MODULE, {"training__length": "57it"}, {"training__evaluate_every": "60it", "stretch": 7}],
)
def test_a_resumed_training_gives_the_same_bits(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = dict(changes)
    stretch = changes.pop("stretch", 1000)
    unstretched = sparse(dense_run(**changes))
    monkeypatch.setattr("tombola.engines.training_loop.STRETCH", stretch)
    assert same_bits(sparse(dense_run(**changes)), unstretched)
    run = dense_run(**changes)
    run = run.masked(random_mask(run, 0.3))
    path = tmp_path / "checkpoint.safetensors"
    whole = sparse(run)
    with pytest.raises(Interrupted):
        Sparse().train([run], Interrupting(path))
    assert path.exists()
    assert same_bits(sparse(run, path), whole)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged() -> None:
    outcome = sparse(dense_run(training__optimizer="sgd", training__lr=1e30))
    assert outcome.measures.diverged
    assert (
        outcome.measures.iterations
        == train(dense_run(training__optimizer="sgd", training__lr=1e30)).measures.iterations
    )


class Residual(nn.Module):
    """Something that is no stack: a convolution, batch norm, a sum of two branches, dropout."""

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
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    ours, eager = sparse(run), train(run)
    # All 54 weights of conv may be left.
    thinned = [name.removesuffix(".weight") for name, kept in run.mask.items() if not kept.all()]
    assert f"layers {', '.join(thinned)}" in ours.engine
    np.testing.assert_allclose(ours.curves["train_loss"], eager.curves["train_loss"], rtol=1e-3, atol=1e-4)
    for name, tensor in eager.final.items():
        torch.testing.assert_close(ours.final[name], tensor, rtol=1e-2, atol=1e-3)
    for name, kept in run.mask.items():
        assert (ours.final[name][~kept] == 0).all()


def accuracies(folder: Path, named: str, workers: int) -> dict[tuple[int, RunRequest], float]:
    found: dict[tuple[int, RunRequest], float] = {}

    class Notes:
        def started(self, study: int, ask: RunRequest) -> None:
            pass

        def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
            found[study, ask] = outcome.measures.test_accuracy_at_stop or 0.0

    experiment = Experiment(tiny(training__length="200it"))
    made = engine(named)
    threads = made.capacity(experiment.dense(0)).threads
    with parallel_executor(workers, threads) as executor:
        conduct(experiment.studies(), Store(folder), made, executor, Notes(), workers)
    return found


def test_a_whole_experiment_agrees_with_eager_and_not_on_the_number_of_workers(tmp_path: Path) -> None:
    eager, one, three = (
        accuracies(tmp_path / f"{named}{workers}", named, workers)
        for named, workers in (("eager", 1), ("sparse", 1), ("sparse", 3))
    )
    assert one == three
    assert len(one) == len(eager) == 2 * (1 + 3 * 3)
    assert np.mean(list(one.values())) == pytest.approx(np.mean(list(eager.values())), abs=0.01)


def test_stacks_train_in_threads_and_other_modules_in_processes() -> None:
    assert Sparse().capacity(dense_run()).threads
    assert not Sparse().capacity(dense_run(**MODULE)).threads


def test_without_numba_it_says_so_and_trains_dense(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module._say_once.cache_clear()
    monkeypatch.setattr(module, "_missing", lambda: "the sparse engine needs numba, which cannot be imported (no)")
    run = dense_run()
    assert not Sparse().capacity(run).threads
    with caplog.at_level(logging.WARNING):
        assert same_bits(sparse(run), train(run))
        assert sparse(run).engine.startswith("eager on cpu")
    assert caplog.text.count("training dense") == 1  # once is enough


def test_bfloat16_is_left_to_eager() -> None:
    assert sparse(dense_run(training__precision="bf16", training__length="10it")).engine.startswith("eager")


def test_auto_is_sparse_on_a_cpu_and_sparse_is_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine("auto") == Sparse(None, "cpu")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert type(engine("auto", device="cuda")).__name__ == "Stacked"
    with pytest.raises(InputError, match="is for the CPU"):
        engine("sparse", device="cuda")
