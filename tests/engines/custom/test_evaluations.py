"""Evaluations during a training by the user's own function."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.support.custom_runs import custom_run, trained
from tests.support.custom_search import small
from tests.support.custom_trainings import adam
from tests.support.errors import raises_input_error
from tombola.engines.custom.evaluations import Evaluations
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome


@given(
    st.lists(st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=12),
    st.booleans(),
)
def test_the_early_stop_is_the_first_of_the_best_finite_values(values: list[float], minimize: bool) -> None:
    evaluations = Evaluations(small(), {}, None, 0, minimize)
    for iteration, value in enumerate(values):
        evaluations.add(iteration, {"figure": value})
    finite = [value for value in values if math.isfinite(value)]
    best = (min if minimize else max)(finite) if finite else None
    assert evaluations.best == (None if best is None else values.index(best))


def test_early_stop_may_be_by_another_figure_than_the_judged_one() -> None:
    evaluations = Evaluations(small(), {}, None, 0, stop_on="loss")
    for iteration, loss in enumerate((0.9, 0.2, 0.4)):
        evaluations.add(iteration, {"accuracy": iteration / 10, "loss": loss})
    assert evaluations.best == 1
    with raises_input_error('"los"', '"loss"'):
        Evaluations(small(), {}, None, 0, stop_on="los").add(0, {"accuracy": 0.5, "loss": 0.1})


def test_missing_figures_are_nan_in_curves() -> None:
    evaluations = Evaluations(small(), {}, None, 0)
    evaluations.add(1, {"a": 1.0})
    evaluations.add(2, {"a": 2.0, "b": 3.0})
    curves = evaluations.curves()
    assert curves["figure/a"].tolist() == [1.0, 2.0]
    assert math.isnan(curves["figure/b"][0])
    assert curves["figure/b"][1] == 3.0


def test_the_order_of_figures_and_old_outcomes_survive_the_store() -> None:
    outcome = trained(custom_run(), adam, lambda _: {"z": 1.0, "a": 0.5})
    mask = Mask({})
    again = Outcome.from_tensors(*outcome.to_tensors(mask))
    assert [*again.measures.figures] == [*outcome.measures.figures]
    tensors, about = outcome.to_tensors(mask)
    about["measures"] = {"diverged": False, "iterations": 12}  # as before figures were measured
    del about["figures"]
    old = Outcome.from_tensors(tensors, about)
    assert old.measures == outcome.measures
