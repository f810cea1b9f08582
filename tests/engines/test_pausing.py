"""A training that was paused goes on with its optimizer, in every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import random_mask
from tests.engines.helpers import Interrupted, dense_run, same_bits
from tests.engines.test_retraining import NORMED, PLAIN, SCHEDULED, Once, close
from tombola.engines import Engine
from tombola.engines.eager import Eager
from tombola.engines.optimizers import optimizer
from tombola.engines.sparse import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.pruning.mask import Mask, State
from tombola.runs.initial_state import initial_optimizer_state
from tombola.runs.outcome import Outcome, without_pruned
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint, Store
from tombola.studies.conductor import train
from tombola.studies.segments import in_segments
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

ENGINES = [Eager, Sparse, Stacked]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "spared": {"momentum": 0.9, "weight_decay": 0.05, "decay_normalisation": False},
    "adam": {"optimizer": "adam", "lr": 3e-3},
    "decayed adam": {"optimizer": "adam", "lr": 3e-3, "weight_decay": 1e-2, "decay_normalisation": False},
}
LAST = {"momentum_buffer", "exp_avg", "exp_avg_sq"}


def remembering(store: Store, engine: Engine, *runs: Run) -> list[Outcome]:
    """What comes of runs one after another, by way of a store."""
    found = []
    for run in runs:
        train([run], store, engine)
        outcome = store.get(run)
        assert outcome is not None
        found.append(outcome)
    return found


def sparse_run(**options: Any) -> Run:
    dense = dense_run(**{"training": SCHEDULED} | options)
    return dense.masked(random_mask(dense, 0.3))


def same_state(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("model", [{}, {"model": NORMED}])
def test_pauses_do_not_change_a_bit(
    engine: Callable[[], Engine], options: str, model: dict[str, Any], tmp_path: Path
) -> None:
    whole = sparse_run(**model, training=SCHEDULED | OPTIMIZERS[options])
    first = whole.paused(13)
    second = whole.resuming(first).paused(26)
    store = Store(tmp_path)
    *_, end, expected = remembering(store, engine(), first, second, whole.resuming(second), whole)
    assert same_state(end.final, expected.final)
    assert torch.equal(
        end.curves["validation_loss"], expected.curves["validation_loss"][-len(end.curves["iteration"]) :]
    )
    assert end.optimizer == expected.optimizer == {}  # neither was paused
    kinds = {entry.partition("/")[0] for entry in store.recall(second.key, optimizer=True)}
    assert kinds == {"plain": set(), "adam": {"exp_avg", "exp_avg_sq", "step"}}.get(
        options.removeprefix("decayed "), {"momentum_buffer"}
    )


@pytest.mark.parametrize("options", ["nesterov", "adam"])
def test_engines_remember_alike(options: str, tmp_path: Path) -> None:
    """Of weights that come, nothing; of those that went and come again, nothing any more."""
    for model in ({}, {"model": NORMED}, {"model": {"name": "lenet-300-100"}}):
        run = sparse_run(**model, training=SCHEDULED | OPTIMIZERS[options])
        moved = run.masked(random_mask(run, 0.3, seed=9))
        first = run.paused(11)
        second = moved.resuming(first).paused(24)
        third = run.resuming(second).paused(40)
        expected, *others = (
            remembering(Store(tmp_path / f"{len(model)}{engine.__name__}{run.key}"), engine(), first, second, third)
            for engine in ENGINES
        )
        for found in others:
            for one, other in zip(found, expected, strict=True):
                close(one.final, other.final)
                assert one.optimizer.keys() == other.optimizer.keys()
                close(one.optimizer, other.optimizer, rtol=5e-2, atol=1e-3)
                np.testing.assert_allclose(one.curves["validation_loss"], other.curves["validation_loss"], rtol=1e-2)


@pytest.mark.parametrize("engine", ENGINES)
def test_segments_whose_mask_stays_are_one_training(engine: Callable[[], Engine], tmp_path: Path) -> None:
    whole, store = sparse_run(training=SCHEDULED | OPTIMIZERS["adam"]), Store(tmp_path)
    study = in_segments(whole, [7, 20, 29], lambda _outcome, segment, _k: segment.mask)
    ask = next(study)
    while ask.branch == "segment":
        (outcome,) = remembering(store, engine(), ask.run)
        ask = study.send(outcome)
    found, expected = remembering(store, engine(), ask.run, whole)
    assert same_state(found.final, expected.final)


@pytest.mark.parametrize("one", ENGINES)
@pytest.mark.parametrize("other", ENGINES)
def test_one_engine_goes_on_from_what_another_left(
    one: Callable[[], Engine], other: Callable[[], Engine], tmp_path: Path
) -> None:
    whole = sparse_run(model=NORMED, training=SCHEDULED | OPTIMIZERS["adam"])
    first = whole.paused(20)
    for run, engine in ((first, one), (whole.resuming(first), other)):
        (end,) = remembering(Store(tmp_path), engine(), run)
    (expected,) = remembering(Store(tmp_path / "whole"), Eager(), whole)
    close(end.final, expected.final)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", ["momentum", "adam"])
def test_nothing_is_remembered_of_pruned_weights(engine: Callable[[], Engine], options: str, tmp_path: Path) -> None:
    run = sparse_run(training=SCHEDULED | OPTIMIZERS[options])
    moved = run.masked(random_mask(run, 0.3, seed=9))
    first = run.paused(11)
    second = moved.resuming(first)
    (outcome,) = engine().train([first], Checkpoint(tmp_path / "checkpoint"))
    store = Store(tmp_path / "store")
    store.put(first, outcome)
    begin = initial_optimizer_state(second, store.recall)
    for entry, value in begin.items():
        kind, _, name = entry.partition("/")
        if kind in LAST and name in run.mask:
            there, left = run.mask[name], moved.mask[name]
            assert not outcome.optimizer[entry][~there].any()
            assert outcome.optimizer[entry][there].any()
            assert not value[~(there & left)].any()  # neither of those that went nor of those that come
            assert torch.equal(value[there & left], outcome.optimizer[entry][there & left])
    assert same_state(store.recall(first.key, optimizer=True), outcome.optimizer)


def test_a_mask_that_changes_is_a_loop_by_hand(tmp_path: Path) -> None:
    """The optimizer's state kept, momentum of what went set to zero: as if it were one training."""
    for options in ("momentum", "nesterov", "adam"):
        run = sparse_run(training=PLAIN | OPTIMIZERS[options])
        masks = [run.mask, random_mask(run, 0.3, seed=9)]
        first = run.paused(15)
        *_, found = remembering(Store(tmp_path), Eager(), first, run.masked(masks[1]).resuming(first))
        network, split = build(run.start), prepare(run.data)
        parameters = dict(network.named_parameters())
        stepped = optimizer(parameters, [], run.training)
        for k, rows in enumerate(batches(run.seed, len(split.train), run.training.batch_size, 0, 40)):
            mask = masks[k >= 15]
            mask.apply_(network)
            x, y = split.train[rows]
            stepped.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            for name, kept in mask.items():
                for kind in LAST & stepped.state[parameters[name]].keys():
                    stepped.state[parameters[name]][kind].mul_(kept)
                gradient = parameters[name].grad
                assert gradient is not None
                gradient.mul_(kept)
            stepped.step()
        masks[1].apply_(network)
        close(found.final, network.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", ["momentum", "adam"])
def test_what_is_killed_after_a_pause_goes_on_with_the_same_bits(
    engine: Callable[[], Engine], options: str, tmp_path: Path
) -> None:
    run = sparse_run(training=SCHEDULED | OPTIMIZERS[options])
    first = run.paused(17)
    second = run.resuming(first).paused(36)
    store = Store(tmp_path / "store")
    _, whole = remembering(store, engine(), first, second)
    for _ in range(2):
        with pytest.raises(Interrupted):
            engine().train([second], Once(tmp_path / "checkpoint"), store.recall)
    (resumed,) = engine().train([second], Checkpoint(tmp_path / "checkpoint"), store.recall)
    assert same_bits(resumed, whole)
    assert same_state(resumed.optimizer, whole.optimizer)


@pytest.mark.parametrize("options", ["momentum", "adam"])
def test_stacked_runs_go_on_with_their_own(options: str, tmp_path: Path) -> None:
    runs = [sparse_run(training=SCHEDULED | OPTIMIZERS[options]).reinitialised(n) for n in range(3)]
    firsts = [run.masked(random_mask(run, 0.4, n)).paused(17) for n, run in enumerate(runs)]
    seconds = [
        run.masked(random_mask(run, 0.4, n)).resuming(first)
        for n, (run, first) in enumerate(zip(runs, firsts, strict=True))
    ]
    assert len({run.shape for run in firsts}) == len({run.shape for run in seconds}) == 1
    store, alone = Store(tmp_path / "stacked"), Store(tmp_path / "alone")
    train(firsts, store, Stacked())
    train(seconds, store, Stacked())
    for first, second in zip(firsts, seconds, strict=True):
        _, expected = remembering(alone, Eager(), first, second)
        found = store.get(second)
        assert found is not None
        assert found.engine.startswith("stacked")
        close(found.final, expected.final)


def test_a_stack_has_one_count_of_steps(tmp_path: Path) -> None:
    run = sparse_run(training=SCHEDULED | OPTIMIZERS["adam"])
    trunk = run.until(10)
    paused = [run.paused(20), run.after(trunk, begin=10).paused(20)]  # the second has made ten
    store = Store(tmp_path)
    remembering(store, Eager(), trunk, *paused)
    resumed = [run.resuming(one) for one in paused]
    assert resumed[0].shape == resumed[1].shape
    with pytest.raises(ValueError, match="different numbers of steps"):
        Stacked().train(resumed, Checkpoint(tmp_path / "checkpoint"), store.recall)


def test_only_what_was_paused_is_resumed() -> None:
    run = dense_run(training=SCHEDULED)
    with pytest.raises(ValueError, match="was not paused"):
        run.resuming(run.until(10))
    assert run.resuming(run.paused(10)).shape != run.after(run.paused(10), begin=10).shape
    assert run.paused(10).shape != run.until(10).shape


def test_outcomes_written_before_there_were_optimizers_in_them_are_read() -> None:
    run = sparse_run(training=SCHEDULED)
    (outcome,) = Eager().train([run], Checkpoint(Path("nowhere")))
    tensors, about = outcome.to_tensors(run.mask)
    assert not any(name.startswith("optimizer/") for name in tensors)
    assert Outcome.from_tensors(tensors, about).optimizer == {}


def test_of_a_diverged_training_too_nothing_pruned_is_remembered() -> None:
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


def test_what_is_random_inside_a_network_goes_on_in_the_compiled_loop(tmp_path: Path) -> None:
    """Its draws are a function of the iteration; torch's stream begins anew in each run."""
    model = {"name": "mlp", "widths": [20, 10], "dropout": 0.2}
    whole = sparse_run(model=model, training=SCHEDULED | OPTIMIZERS["adam"])
    first = whole.paused(13)
    *_, end, expected = remembering(Store(tmp_path), Sparse(), first, whole.resuming(first), whole)
    assert same_state(end.final, expected.final)
