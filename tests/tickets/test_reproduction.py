from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.outcomes import outcome_of
from tombola.experiments.results_schema import FIGURES
from tombola.runs.outcome import Measures
from tombola.runs.run import Run
from tombola.tickets.reproduction import (
    EXACT_FIGURES,
    FigureReproduction,
    WeightReproduction,
    compare_weights,
    relative_distance,
    tolerance,
    tolerances,
)


@pytest.fixture
def here(dense: Run) -> Measures:
    return outcome_of(dense).measures


def test_differences_within_the_tolerance_are_reproduced(here: Measures) -> None:
    allowed = dict.fromkeys(FIGURES, 0.012) | {"stop_iteration": 10.0}
    near = FigureReproduction(here.model_copy(update={"test_accuracy_at_stop": 0.911}), here, allowed)
    assert (near.reproduced, near.exact, near.off) == (True, False, [])
    assert near.difference == pytest.approx(-0.011)
    assert replace(near, tolerances=allowed | {"test_accuracy_at_stop": 0.0109}).off == ["test_accuracy_at_stop"]
    gone = Measures(diverged=True, iterations=100)
    nowhere = FigureReproduction(here, gone, dict.fromkeys(FIGURES, 1000.0))
    assert (nowhere.difference, nowhere.reproduced) == (None, False)
    assert nowhere.off == ["diverged", *FIGURES]


@pytest.mark.parametrize("figure", Measures.model_fields)
def test_every_figure_is_compared(here: Measures, figure: str) -> None:
    value: Any = not here.diverged if figure == "diverged" else getattr(here, figure) + 1
    recorded = here.model_copy(update={figure: value})
    assert FigureReproduction(here, here, tolerances(here, [], 1)).exact
    other = FigureReproduction(recorded, here, dict.fromkeys(FIGURES, 0.5))
    assert (other.exact, other.reproduced, other.off) == (False, False, [figure])
    assert FigureReproduction(recorded, here, dict.fromkeys(FIGURES, 1.5)).reproduced == (figure not in EXACT_FIGURES)


def test_the_tolerance_is_the_spread_of_other_orders_and_at_least_a_point() -> None:
    assert tolerance([0.9, 0.91, 0.92]) == pytest.approx(9.925 * 0.01 * 2**0.5, rel=1e-3)  # Student's t, two degrees
    assert tolerance([0.95, 0.95, 0.95]) == 0.01
    assert tolerance([0.1, 0.9]) == tolerance([]) == 0.01
    rng = np.random.default_rng(0)
    draws = 0.95 + 0.01 * rng.standard_normal((2000, 7))
    seldom = np.mean([abs(one - other) > tolerance(list(rest)) for one, other, *rest in draws])
    assert 0.003 < seldom < 0.02


def test_the_tolerance_of_the_early_stop_is_at_least_the_evaluation_interval(here: Measures) -> None:
    gone = Measures(diverged=True, iterations=5)
    same = tolerances(here, [here, here, here, gone], step=20)
    assert same == dict.fromkeys(FIGURES, 0.01) | {"stop_iteration": 20.0}
    others = [here.model_copy(update={"stop_iteration": stop}) for stop in (40, 50, 60)]
    assert tolerances(here, others, step=20)["stop_iteration"] == pytest.approx(9.925 * 10 * 2**0.5, rel=1e-3)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_the_tolerance_is_finite_and_at_least_a_point(values: list[float]) -> None:
    assert 0.01 <= tolerance(values) < float("inf")


def test_the_distance_of_states_is_that_of_their_most_distant_tensor() -> None:
    big, small = torch.full((100,), 10.0), torch.tensor([1e-3, 0.0])
    one = {"big": big, "small": small, "seen": torch.tensor(7)}
    assert relative_distance(one, one) == relative_distance({}, {}) == 0
    assert relative_distance(one, one | {"small": 2 * small}) == pytest.approx(1)  # over all tensors: 1e-5
    assert relative_distance(one, one | {"big": big * 1.25}) == pytest.approx(0.25)
    assert relative_distance({"x": torch.zeros(2)}, {"x": torch.tensor([0.0, 1e-9])}) == 1
    for other in (
        {"seen": torch.tensor(8)},
        {"small": small[:1]},
        {"more": small},
        {"small": torch.tensor([1e-3, math.nan])},
        {"big": torch.full((100,), math.inf)},
    ):
        assert relative_distance(one, one | other) == relative_distance(one | other, one) == math.inf


def test_trained_weights_are_the_same_at_every_precision_of_files() -> None:
    here = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(0)), "seen": torch.tensor(3)}
    for precision in (torch.float32, torch.float16, torch.bfloat16):
        there = here | {"w": here["w"].to(precision).float()}
        assert compare_weights(there, here, 0.9).same
        moved = there["w"].clone()
        moved[0] += 0.01
        assert not compare_weights(there | {"w": moved}, here, 0.9).same
    assert not compare_weights(here | {"seen": torch.tensor(4)}, here, 0.9).same


@pytest.mark.parametrize("same", [True, False])
def test_weights_of_which_no_figure_is_known_must_be_the_same(same: bool) -> None:
    assert WeightReproduction(None, 0.4, same).reproduced(None, exact=False) is same


@pytest.mark.parametrize(
    ("weights", "exact", "reproduced"),
    [
        (WeightReproduction(0.91, 0.0, True), True, True),
        (WeightReproduction(0.91, 1e-3, False), True, False),  # a bitwise equal run ended with other weights
        (WeightReproduction(0.901, 0.4, False), False, True),
        (WeightReproduction(0.899, 0.4, False), False, False),
        (WeightReproduction(0.921, 0.4, False), False, False),
        (WeightReproduction(None, math.inf, False), False, False),
        (WeightReproduction(None, math.inf, False), True, False),
    ],
)
def test_when_trained_weights_are_reproduced(
    here: Measures, weights: WeightReproduction, exact: bool, reproduced: bool
) -> None:
    assert here["test_accuracy"] == 0.91
    assert weights.reproduced(here["test_accuracy"], exact) is reproduced


def test_least_tolerances_may_be_relative() -> None:
    recorded = Measures(diverged=False, iterations=10, validation_perplexity=200.0)
    assert tolerances(recorded, [], 1, relative=True) == {"validation_perplexity": 2.0}
    assert tolerances(recorded, [], 1) == {"validation_perplexity": 0.01}
