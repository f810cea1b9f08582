from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.conftest import outcome_of, random_mask, tiny
from tests.studies.test_search import answer
from tombola.errors import InputError
from tombola.experiment import Experiment, expected_runs
from tombola.mask import Mask
from tombola.outcome import Outcome
from tombola.run import Run, Trained
from tombola.studies.early_bird import Drawing, agree, distance, early_bird_search

EARLY = {"search": {"levels": 1, "density": 0.2, "method": "early-bird"}, "early_bird": {"draws": 6}}


def settling(run: Run, after: int) -> Callable[..., Mask]:
    """Masks that differ until that iteration, and are one from there on."""
    return lambda _outcome, segment, _level: random_mask(run, 0.3, seed=min(segment.last, after))


def test_the_distance_is_the_fraction_of_weights_in_which_masks_differ() -> None:
    one = Mask({"a": torch.tensor([True, True, False, False])})
    other = Mask({"a": torch.tensor([True, False, True, False])})
    assert (distance(one, one), distance(one, other), distance(other, one)) == (0, 0.5, 0.5)


def test_all_pairs_of_the_window_must_agree() -> None:
    masks = [Mask({"a": torch.arange(100) < n}) for n in (50, 55, 60)]
    assert not agree(masks[:2], Drawing([], window=3))  # too few
    assert agree(masks, Drawing([], window=3, tolerance=0.1))
    assert not agree(masks, Drawing([], window=3, tolerance=0.09))  # neighbours do, the ends do not


def test_the_first_mask_that_the_last_few_agree_on_is_trained_from_the_initial_weights(dense: Run) -> None:
    drawing = Drawing([10, 20, 30, 40, 50, 60], window=3)
    asked, tickets = answer(early_bird_search(dense, drawing, settling(dense, 20)))
    asks = [ask for question in asked for ask in question]
    assert [(ask.branch, ask.run.begin, ask.run.last) for ask in asks] == [
        ("ticket", 0, 60),
        ("segment", 0, 10),
        ("segment", 10, 20),
        ("segment", 20, 30),
        ("segment", 30, 40),
        ("drawn", 30, 40),  # the same run: its row says when the mask was drawn
        ("ticket", 0, 60),
    ]
    assert all(ask.run.mask == dense.mask for ask in asks[:-1])
    assert asks[-1].run == dense.masked(random_mask(dense, 0.3, seed=20))
    assert tickets == [asks[0], asks[-1]]


def test_as_in_the_paper_it_goes_on_from_the_weights_it_was_drawn_from(dense: Run) -> None:
    drawing = Drawing([10, 20, 30], window=2, go_on=True)
    asked, tickets = answer(early_bird_search(dense, drawing, settling(dense, 10)))
    run = tickets[-1].run
    assert (run.begin, run.last) == (20, 60)
    assert run.start.trained == Trained(run=asked[2][0].run.key)


def test_where_masks_never_agree_the_last_is_taken_and_it_is_said(
    dense: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        asked, tickets = answer(early_bird_search(dense, Drawing([10, 20, 30]), settling(dense, 60)))
    assert "no early bird" in caplog.text
    assert asked[-2][0].run.last == 30
    assert tickets[-1].run == dense.masked(random_mask(dense, 0.3, seed=30))


def test_a_search_ends_where_the_dense_network_diverges(dense: Run) -> None:
    def diverge(ask: Any) -> Outcome:
        return outcome_of(ask.run, diverged=ask.run.last == 20)

    asked, tickets = answer(early_bird_search(dense, Drawing([10, 20, 30]), settling(dense, 60)), outcome=diverge)
    assert [ask.level for ask in tickets] == [0]
    assert asked[-1][0].run.last == 20


def test_no_more_runs_are_asked_for_than_expected() -> None:
    recipe = tiny(**EARLY)
    asked, _ = answer(Experiment(recipe).study(0))
    assert sum(map(len, asked)) * recipe.replicates <= expected_runs(recipe)


def test_a_tolerance_that_any_two_masks_meet_is_refused() -> None:
    with pytest.raises(InputError, match=r"any two masks of 0\.05 of the weights are within 0\.1; should be less"):
        tiny(**EARLY | {"search": {"levels": 1, "density": 0.05, "method": "early-bird"}})
