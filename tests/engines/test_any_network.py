"""Engines held to the eager one: on networks that they do not know, with masks of parameters of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.any_networks import KINDS, model, with_every_weight_masked
from tests.support.recipes import TINY
from tests.support.training import (
    ENGINES,
    Interrupted,
    InterruptingCheckpoint,
    batch_orders,
    dense_run,
    module_learner,
    same_bits,
    same_state,
    train_alone,
    train_stacked,
)
from tombola.engines import Engine
from tombola.engines.sparse.engine import Sparse
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.stacked import engine as stacked_engine
from tombola.engines.stacked.engine import Stacked
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run

# Of vmap, which then computes the runs one by one.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

SPARSE_LAYERS = {
    "lstm": "output",
    "attention": "inner, output",
    "encoder layer": "encoder.linear1, encoder.linear2, output",
    "experts": "line",
    "embedding": "output",
    "by_keyword": "a, b, extra",
    "tied": "b, extra",
    "from_list": "a, b",
    "called_twice": "a, b, extra",
    "metadata": "b, extra",
    "by_class": "a, b, extra",
    "reads_in_evaluation": "a, extra",
    "clips_its_weight": "b, extra",
    "in_bfloat16": "b, extra",
}
"""By kind of network, the layers that can be sparse; `tied_outside` and `with_a_penalty` have none."""

UNSTACKABLE = ("lstm", "two bidirectional lstms", "gru", "rnn", "tied_outside", "clips_its_weight", "with_a_penalty")


@pytest.fixture(autouse=True)
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speeds, "sparse_is_faster", lambda *arguments: arguments[-1] < 1)
    monkeypatch.setattr(stacked_engine, "_LIMITS", {})


def any_run(kind: str, density: float = 0.4, seed: int = 0, biases: bool = False, **options: Any) -> Run:
    training = TINY["training"] | {"length": "6it", "evaluate_every": "1it"} | options
    return with_every_weight_masked(dense_run(model=model(kind), training=training), density, seed, biases)


def assert_like_eager(run: Run, outcome: Outcome) -> None:
    expected = train_alone(run)
    assert list(outcome.final) == list(expected.final)
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(outcome.curves[name], expected.curves[name], rtol=1e-3)
    for state in (outcome.final, expected.final):
        assert all((state[name][~kept] == 0).all() for name, kept in run.mask.items())
        assert all((state[name][kept] != 0).any() for name, kept in run.mask.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_sparse_engine_trains_as_the_eager_one(kind: str) -> None:
    run = any_run(kind)
    outcome = train_alone(run, engine=Sparse)
    assert_like_eager(run, outcome)
    if kind in SPARSE_LAYERS:
        assert outcome.engine.startswith(f"sparse (layers {SPARSE_LAYERS[kind]}) on cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_the_stacked_engine_trains_as_the_eager_one_or_by_it(kind: str) -> None:
    runs = [any_run(kind), any_run(kind, seed=1)]
    if kind in UNSTACKABLE:
        assert Stacked().capacity(runs[0]).max_runs == 1
        runs = runs[:1]
    outcomes = train_stacked(runs)
    for run, outcome in zip(runs, outcomes, strict=True):
        assert_like_eager(run, outcome)
        assert outcome.engine.startswith("eager" if kind in UNSTACKABLE else "stacked")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(KINDS)),
    density=st.sampled_from([0.05, 0.5, 0.95]),
    biases=st.booleans(),
    optimizer=st.sampled_from([{"lr": 3e-3}, {"optimizer": "sgd", "lr": 0.02, "momentum": 0.9}]),
    weight_decay=st.sampled_from([0.0, 0.01]),
    seed=st.integers(0, 99),
)
def test_the_first_losses_of_all_engines_are_equal_to_rounding(
    kind: str, density: float, biases: bool, optimizer: dict[str, Any], weight_decay: float, seed: int
) -> None:
    run = any_run(kind, density, seed, biases, weight_decay=weight_decay, **optimizer)
    eager = train_alone(run)
    for engine in (Sparse, Stacked):
        outcome = train_alone(run, engine=engine)
        np.testing.assert_allclose(outcome.curves["train_loss"], eager.curves["train_loss"], rtol=2e-3)
        assert all((outcome.final[name][~kept] == 0).all() for name, kept in run.mask.items())


@pytest.mark.parametrize("kind", ["lstm", "attention", "experts", "embedding"])
def test_pruned_weights_are_zero_at_every_step(kind: str) -> None:
    run = any_run(kind, biases=True, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    learner = module_learner(run)
    for step in range(4):
        learner.train(batch_orders([run], 1, step), step)
        (state,) = learner.weights()
        assert all((state[name][~kept] == 0).all() for name, kept in run.mask.items())


@pytest.mark.parametrize("kind", ["lstm", "attention", "experts", "by_keyword"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupted_training_ends_with_the_same_bits(
    kind: str, engine: Callable[[], Engine[Run]], tmp_path: Path
) -> None:
    run = any_run(kind, biases=True)
    with pytest.raises(Interrupted):
        engine().train([run], InterruptingCheckpoint(tmp_path / "state"))
    assert same_bits(train_alone(run, tmp_path / "state", engine), train_alone(run, engine=engine))


@pytest.mark.parametrize("kind", ["lstm", "attention", "experts", "embedding"])
@pytest.mark.parametrize("engine", ENGINES)
def test_outcomes_are_stored_by_their_kept_weights(kind: str, engine: Callable[[], Engine[Run]]) -> None:
    run = any_run(kind).paused(3)
    outcome = train_alone(run, engine=engine)
    tensors, about = outcome.to_tensors(run.mask)
    stored = Outcome.from_tensors(tensors, about)
    assert same_bits(stored, outcome)
    assert same_state(stored.optimizer, outcome.optimizer)
    for name, kept in run.mask.items():
        assert tensors[f"kept/{name}"].numel() == kept.sum()
        assert (stored.optimizer[f"exp_avg/{name}"][~kept] == 0).all()


# Not an LSTM: without AVX-512, torch has no bfloat16 kernel for it.
@pytest.mark.parametrize("kind", ["gru", "attention", "encoder layer", "embedding"])
@pytest.mark.parametrize("engine", ENGINES)
def test_they_train_in_bfloat16(kind: str, engine: Callable[[], Engine[Run]]) -> None:
    run = any_run(kind, precision="bf16")
    outcome = train_alone(run, engine=engine)
    assert outcome.curves["train_loss"].isfinite().all()
    assert all((outcome.final[name][~kept] == 0).all() for name, kept in run.mask.items())


def test_a_stack_with_pruned_biases_is_trained_as_a_module() -> None:
    run = with_every_weight_masked(dense_run(training__length="6it"), 0.3, biases=True)
    assert not Sparse().capacity(run).threads
    outcome = train_alone(run, engine=Sparse)
    assert outcome.engine.startswith("sparse (layers fc1, fc2, output)")
    assert not outcome.final["fc1.bias"][~run.mask["fc1.bias"]].any()
    assert outcome.final["fc1.bias"][run.mask["fc1.bias"]].any()


def test_the_random_state_is_that_of_the_eager_engine() -> None:
    """Trials draw dropout noise too."""
    run = any_run("dropout")
    for name, losses in train_alone(run).curves.items():
        torch.testing.assert_close(train_alone(run, engine=Sparse).curves[name], losses, rtol=1e-4, atol=1e-5)
