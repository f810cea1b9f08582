from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tombola.engines.eager import Eager
from tombola.engines.short_training import Measured
from tombola.experiments.planning import trial
from tombola.experiments.planning.run_costs import Load, RunCosts
from tombola.experiments.planning.trial import measure
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run

SPEED = 1e-3
"""Seconds of an iteration."""


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[list[Run]]:
    """The runs of all short trainings; these take time in proportion to the weights left."""
    found: list[list[Run]] = []

    def short(engine: object, runs: Sequence[Run]) -> Measured:  # noqa: ARG001
        found.append(list(runs))
        return Measured(10, 30, 20 * SPEED * runs[0].mask.density, finished=False)

    monkeypatch.setattr(trial, "time_short_training", short)
    return found


def examples(*densities: float, **changes: object) -> dict[Load, Run]:
    dense = RecipeExperiment(tiny(**changes)).dense(0)
    runs = [dense.masked(random_mask(dense, density)) if density < 1 else dense for density in densities]
    return {Load.of(run): run for run in runs}


def test_dense_and_sparse_networks_are_tried(tried: list[list[Run]]) -> None:
    costs, wanted = RunCosts(), examples(1, 0.8, 0.5, 0.3, 0.1)
    measure(costs, wanted, Eager(), None)
    lowest, *_, median, _, highest = sorted(load.density for load in wanted)
    found = [run.mask.density for (run,) in tried]
    assert found[0] == highest == 1
    assert found[1] == pytest.approx(lowest, abs=0.002)
    assert len(found) == 3
    for load in wanted:
        seconds = costs.seconds(load)
        assert seconds is not None
        assert seconds.high == pytest.approx(seconds.low, rel=0.02)
    assert median


def test_when_the_time_is_spent_one_density_of_each_kind_must_do(tried: list[list[Run]]) -> None:
    wanted = examples(1, 0.1) | examples(1, 0.1, training__batch_size=20)
    costs = RunCosts()
    measure(costs, wanted, Eager(), None, budget=0)
    assert len(tried) == 2
    assert all(costs.seconds(load) is not None for load in wanted)


def test_what_was_measured_is_not_tried_again(tried: list[list[Run]]) -> None:
    costs, wanted = RunCosts(), examples(1, 0.1)
    for load in wanted:
        costs.add(load, 1.0)
    measure(costs, wanted, Eager(), None)
    assert tried == []


def test_whole_trainings_from_new_weights_are_tried(tried: list[list[Run]]) -> None:
    dense = RecipeExperiment(tiny()).dense(0)
    later = dense.after(dense.until(20), begin=20)  # the weights of which nobody has
    measure(RunCosts(), {Load.of(later): later}, Eager(), None)
    ((run,),) = tried
    assert run.start.trained is None
    assert (run.begin, run.last) == (0, 60)
    assert run.mask == dense.mask


def test_as_many_are_tried_at_once_as_are_trained_at_once(
    tried: list[list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.engines.training_loop import Capacity

    monkeypatch.setattr(Eager, "capacity", lambda *_: Capacity(max_runs=5))
    measure(RunCosts(), examples(1), Eager(), None, at_once=3)
    measure(RunCosts(), examples(1), Eager(), None, at_once=30)
    assert [len({run.key for run in runs}) for runs in tried] == [3, 5]
