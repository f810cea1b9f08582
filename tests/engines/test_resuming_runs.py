"""Paused runs resume with their optimizer's state, with every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.networks import BATCH_NORM, MLP_WITH_DROPOUT
from tests.support.outcomes import random_mask
from tests.support.training import (
    ENGINES,
    SGD,
    STEP_SCHEDULE,
    Interrupted,
    InterruptingCheckpoint,
    assert_close,
    dense_run,
    pruned_run,
    same_bits,
    same_state,
)
from tombola.engines import Engine
from tombola.engines.eager import Eager
from tombola.engines.optimizers import build_optimizer
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.pruning.mask import Mask
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import initial_optimizer_state
from tombola.runs.outcome import Outcome, without_pruned
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.dynamic_masks import train_in_segments
from tombola.studies.local_training import train_missing
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "spared": {"momentum": 0.9, "weight_decay": 0.05, "decay_normalisation": False},
    "adam": {"optimizer": "adam", "lr": 3e-3},
    "decayed adam": {"optimizer": "adam", "lr": 3e-3, "weight_decay": 1e-2, "decay_normalisation": False},
}
MOMENTS = {"momentum_buffer", "exp_avg", "exp_avg_sq"}


def train_in_store(store: Store, engine: Engine, *runs: Run) -> list[Outcome]:
    """The outcomes of runs, trained in order with a store."""
    found = []
    for run in runs:
        train_missing([run], store, engine)
        outcome = store.get(run)
        assert outcome is not None
        found.append(outcome)
    return found


def sparse_run(**options: Any) -> Run:
    return pruned_run(0.3, **{"training": STEP_SCHEDULE} | options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("model", [{}, {"model": BATCH_NORM}])
def test_pauses_do_not_change_a_bit(
    engine: Callable[[], Engine], options: str, model: dict[str, Any], tmp_path: Path
) -> None:
    whole = sparse_run(**model, training=STEP_SCHEDULE | OPTIMIZERS[options])
    first = whole.paused(13)
    second = whole.resuming(first).paused(26)
    store = Store(tmp_path)
    *_, end, expected = train_in_store(store, engine(), first, second, whole.resuming(second), whole)
    assert same_state(end.final, expected.final)
    assert torch.equal(
        end.curves["validation_loss"], expected.curves["validation_loss"][-len(end.curves["iteration"]) :]
    )
    assert end.optimizer == expected.optimizer == {}  # neither was paused
    kinds = {entry.partition("/")[0] for entry in store.load_state(second.key, optimizer=True)}
    assert kinds == {"plain": set(), "adam": {"exp_avg", "exp_avg_sq", "step"}}.get(
        options.removeprefix("decayed "), {"momentum_buffer"}
    )


@pytest.mark.parametrize("options", ["nesterov", "adam"])
def test_engines_agree_on_paused_runs_whose_mask_changes(options: str, tmp_path: Path) -> None:
    """The optimizer's state of weights that return to the mask is zero."""
    for model in ({}, {"model": BATCH_NORM}, {"model": {"name": "lenet-300-100"}}):
        run = sparse_run(**model, training=STEP_SCHEDULE | OPTIMIZERS[options])
        moved = run.masked(random_mask(run, 0.3, seed=9))
        first = run.paused(11)
        second = moved.resuming(first).paused(24)
        third = run.resuming(second).paused(40)
        expected, *others = (
            train_in_store(
                Store(tmp_path / f"{len(model)}{engine.__name__}{run.key}"), engine(), first, second, third
            )
            for engine in ENGINES
        )
        for found in others:
            for one, other in zip(found, expected, strict=True):
                assert_close(one.final, other.final)
                assert one.optimizer.keys() == other.optimizer.keys()
                assert_close(one.optimizer, other.optimizer, rtol=5e-2, atol=1e-3)
                np.testing.assert_allclose(one.curves["validation_loss"], other.curves["validation_loss"], rtol=1e-2)


@pytest.mark.parametrize("engine", ENGINES)
def test_segments_with_the_same_mask_are_one_training(engine: Callable[[], Engine], tmp_path: Path) -> None:
    whole, store = sparse_run(training=STEP_SCHEDULE | OPTIMIZERS["adam"]), Store(tmp_path)
    study = train_in_segments(whole, [7, 20, 29], lambda _outcome, segment, _k: segment.mask)
    ask = next(study)
    while ask.branch == "segment":
        (outcome,) = train_in_store(store, engine(), ask.run)
        ask = study.send(outcome)
    found, expected = train_in_store(store, engine(), ask.run, whole)
    assert same_state(found.final, expected.final)


@pytest.mark.parametrize("one", ENGINES)
@pytest.mark.parametrize("other", ENGINES)
def test_an_engine_resumes_what_another_has_paused(
    one: Callable[[], Engine], other: Callable[[], Engine], tmp_path: Path
) -> None:
    whole = sparse_run(model=BATCH_NORM, training=STEP_SCHEDULE | OPTIMIZERS["adam"])
    first = whole.paused(20)
    for run, engine in ((first, one), (whole.resuming(first), other)):
        (end,) = train_in_store(Store(tmp_path), engine(), run)
    (expected,) = train_in_store(Store(tmp_path / "whole"), Eager(), whole)
    assert_close(end.final, expected.final)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", ["momentum", "adam"])
def test_the_optimizer_state_of_pruned_weights_is_zero(
    engine: Callable[[], Engine], options: str, tmp_path: Path
) -> None:
    run = sparse_run(training=STEP_SCHEDULE | OPTIMIZERS[options])
    moved = run.masked(random_mask(run, 0.3, seed=9))
    first = run.paused(11)
    second = moved.resuming(first)
    (outcome,) = engine().train([first], Checkpoint(tmp_path / "checkpoint"))
    store = Store(tmp_path / "store")
    store.put(first, outcome)
    begin = initial_optimizer_state(second, store.load_state)
    for entry, value in begin.items():
        kind, _, name = entry.partition("/")
        if kind in MOMENTS and name in run.mask:
            there, left = run.mask[name], moved.mask[name]
            assert not outcome.optimizer[entry][~there].any()
            assert outcome.optimizer[entry][there].any()
            assert not value[~(there & left)].any()  # of weights in only one of the masks
            assert torch.equal(value[there & left], outcome.optimizer[entry][there & left])
    assert same_state(store.load_state(first.key, optimizer=True), outcome.optimizer)


def test_a_mask_that_changes_follows_a_loop_written_by_hand(tmp_path: Path) -> None:
    """As in one training in which the momentum of newly pruned weights is set to zero."""
    for options in ("momentum", "nesterov", "adam"):
        run = sparse_run(training=SGD | OPTIMIZERS[options])
        masks = [run.mask, random_mask(run, 0.3, seed=9)]
        first = run.paused(15)
        *_, found = train_in_store(Store(tmp_path), Eager(), first, run.masked(masks[1]).resuming(first))
        network, split = build(run.start), prepare(run.data)
        parameters = dict(network.named_parameters())
        stepped = build_optimizer(parameters, [], run.training)
        for k, rows in enumerate(batches(run.seed, len(split.train), run.training.batch_size, 0, 40)):
            mask = masks[k >= 15]
            mask.apply_(network)
            x, y = split.train[rows]
            stepped.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            for name, kept in mask.items():
                for kind in MOMENTS & stepped.state[parameters[name]].keys():
                    stepped.state[parameters[name]][kind].mul_(kept)
                gradient = parameters[name].grad
                assert gradient is not None
                gradient.mul_(kept)
            stepped.step()
        masks[1].apply_(network)
        assert_close(found.final, network.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", ["momentum", "adam"])
def test_an_interrupted_resumed_run_gives_the_same_bits(
    engine: Callable[[], Engine], options: str, tmp_path: Path
) -> None:
    data = {"name": "digits", "validation": 200, "flip": True}
    run = sparse_run(training=STEP_SCHEDULE | OPTIMIZERS[options], data=data)
    first = run.paused(17)
    second = run.resuming(first).paused(36)
    store = Store(tmp_path / "store")
    _, whole = train_in_store(store, engine(), first, second)
    for _ in range(2):
        with pytest.raises(Interrupted):
            engine().train([second], InterruptingCheckpoint(tmp_path / "checkpoint", saves=1), store.load_state)
    (resumed,) = engine().train([second], Checkpoint(tmp_path / "checkpoint"), store.load_state)
    assert same_bits(resumed, whole)
    assert same_state(resumed.optimizer, whole.optimizer)


@pytest.mark.parametrize("options", ["momentum", "adam"])
def test_each_run_of_a_stack_resumes_its_own_optimizer(options: str, tmp_path: Path) -> None:
    runs = [sparse_run(training=STEP_SCHEDULE | OPTIMIZERS[options]).reinitialised(n) for n in range(3)]
    firsts = [run.masked(random_mask(run, 0.4, n)).paused(17) for n, run in enumerate(runs)]
    seconds = [
        run.masked(random_mask(run, 0.4, n)).resuming(first)
        for n, (run, first) in enumerate(zip(runs, firsts, strict=True))
    ]
    assert len({run.shape for run in firsts}) == len({run.shape for run in seconds}) == 1
    store, alone = Store(tmp_path / "stacked"), Store(tmp_path / "alone")
    train_missing(firsts, store, Stacked())
    train_missing(seconds, store, Stacked())
    for first, second in zip(firsts, seconds, strict=True):
        _, expected = train_in_store(alone, Eager(), first, second)
        found = store.get(second)
        assert found is not None
        assert found.engine.startswith("stacked")
        assert_close(found.final, expected.final)


def test_a_stack_of_optimizers_with_different_numbers_of_steps_is_an_error(tmp_path: Path) -> None:
    run = sparse_run(training=STEP_SCHEDULE | OPTIMIZERS["adam"])
    trunk = run.until(10)
    paused = [run.paused(20), run.after(trunk, begin=10).paused(20)]  # the second has made ten
    store = Store(tmp_path)
    train_in_store(store, Eager(), trunk, *paused)
    resumed = [run.resuming(one) for one in paused]
    assert resumed[0].shape == resumed[1].shape
    with pytest.raises(ValueError, match="numbers of steps"):
        Stacked().train(resumed, Checkpoint(tmp_path / "checkpoint"), store.load_state)


def test_only_paused_runs_can_be_resumed() -> None:
    run = dense_run(training=STEP_SCHEDULE)
    with pytest.raises(ValueError, match=run.until(10).key):
        run.resuming(run.until(10))
    assert run.resuming(run.paused(10)).shape != run.after(run.paused(10), begin=10).shape
    assert run.paused(10).shape != run.until(10).shape


def test_nan_in_the_optimizer_state_of_pruned_weights_becomes_zero() -> None:
    mask = Mask({"a": torch.tensor([True, False])})
    state = {
        "exp_avg/a": torch.tensor([torch.nan, torch.nan]),
        "step/a": torch.tensor(3.0),
        "exp_avg/b": torch.ones(2),
    }
    found = without_pruned(state, mask)
    assert found["exp_avg/a"].tolist()[1] == 0
    assert found["exp_avg/a"][0].isnan()
    assert found["step/a"] == 3
    assert found["exp_avg/b"].tolist() == [1, 1]


def test_dropout_in_the_compiled_loop_continues_after_a_pause(tmp_path: Path) -> None:
    """Its draws depend on the iteration; with torch the random stream would restart."""
    model = MLP_WITH_DROPOUT
    whole = sparse_run(model=model, training=STEP_SCHEDULE | OPTIMIZERS["adam"])
    first = whole.paused(13)
    *_, end, expected = train_in_store(Store(tmp_path), Sparse(), first, whole.resuming(first), whole)
    assert same_state(end.final, expected.final)
