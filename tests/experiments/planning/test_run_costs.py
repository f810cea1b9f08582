from __future__ import annotations

import pytest

from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tombola.experiments.planning.run_costs import HANDLING, Interval, Load, RunCosts, wall_time
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run
from tombola.utils.duration import ZERO, Duration

WORK = 100.0


def costs(**seconds: float) -> RunCosts:
    """Of trainings at these densities, in percent."""
    found = RunCosts()
    for density, each in seconds.items():
        found.add(Load("kind", float(density[1:]) / 100, WORK), each)
    return found


def seconds(of: RunCosts, density: float, work: float = WORK) -> Interval:
    found = of.seconds(Load("kind", density, work))
    assert found is not None
    return Interval(found.low - HANDLING, found.high - HANDLING)


def test_between_measured_densities_time_is_interpolated() -> None:
    found = costs(d100=8, d20=2)
    assert seconds(found, 1.0) == pytest.approx((8, 8))
    assert seconds(found, 0.2) == pytest.approx((2, 2))
    assert seconds(found, 0.6) == pytest.approx((5, 5))
    assert seconds(found, 0.6, work=2 * WORK) == pytest.approx((10, 10))


def test_beyond_them_it_may_follow_the_weights_left_or_not() -> None:
    found = costs(d50=4)
    assert seconds(found, 0.25) == pytest.approx((2, 4))
    assert seconds(found, 1.0) == pytest.approx((4, 8))


def test_trainings_of_one_density_are_averaged() -> None:
    found = costs(d100=1)
    found.add(Load("kind", 1.0, 3 * WORK), 7)
    assert seconds(found, 1.0) == pytest.approx((2, 2))


def test_of_other_kinds_nothing_is_known() -> None:
    found = costs(d100=1)
    other = Load("other", 1.0, WORK)
    assert found.seconds(other) is None
    assert found.total({other: 1}) is None
    assert not found.knows("other")
    assert found.knows("kind")
    assert found.knows("kind", 1.0)
    assert not found.knows("kind", 0.5)
    assert not RunCosts()


def test_the_sum_counts_trainings_of_a_load() -> None:
    total = costs(d100=1).total({Load("kind", 1.0, WORK): 3, Load("kind", 1.0, 2 * WORK): 1})
    assert total == pytest.approx((5 + 4 * HANDLING,) * 2)


def test_more_workers_do_not_shorten_a_chain() -> None:
    assert wall_time(Interval(60, 120), Interval(20, 40), workers=2) == Interval(30, 60)
    assert wall_time(Interval(60, 120), Interval(20, 40), workers=100) == Interval(20, 40)


def test_the_work_of_a_run() -> None:
    train, validation, test = 997, 200, 600
    dense = RecipeExperiment(tiny()).dense(0)  # 60 iterations of 40 examples, evaluated 6 times
    whole = Load.of(dense)
    assert whole.work == 3 * 60 * 40 + 6 * validation + 2 * (train + test)
    assert whole.density == 1
    part = Load.of(dense.until(25))
    assert part.work == 3 * 25 * 40 + 3 * validation + 2 * (train + test)
    assert part.kind == whole.kind
    evaluated = Load.of(dense.until(0))
    assert evaluated.work == train + validation + train + test
    averages = [dense.averaging([dense], 60, length) for length in (ZERO, Duration(epochs=1, iterations=2))]
    assert Load.of(averages[1]).work - Load.of(averages[0]).work == (25 + 2) * 40  # running statistics


def test_speed_does_not_depend_on_seeds_and_learning_rates(dense: Run) -> None:
    slower = RecipeExperiment(tiny(training__lr=0.5, seed=3)).dense(1)
    assert Load.of(slower) == Load.of(dense)
    assert Load.of(RecipeExperiment(tiny(training__batch_size=20)).dense(0)).kind != Load.of(dense).kind
    assert Load.of(RecipeExperiment(tiny(model__widths=[20, 11])).dense(0)).kind != Load.of(dense).kind
    sparse = dense.masked(random_mask(dense, 0.5))
    assert Load.of(sparse) == Load.of(dense)._replace(density=sparse.mask.density)
