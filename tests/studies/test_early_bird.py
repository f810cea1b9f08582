from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import outcome_of, random_mask, tiny
from tests.studies.test_search import answer
from tombola.experiments.experiment import Experiment, expected_runs
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.early_bird import Drawing, agree, distance, early_bird_search
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError
from tombola.zoo.models.description import Trained

EARLY = {"search": {"levels": 1, "density": 0.2, "method": "early-bird"}, "early_bird": {"draws": 6}}


def settling(run: Run, after: int) -> Callable[..., Mask]:
    """Masks that differ until that iteration, and are one from there on."""
    return lambda _outcome, segment, _level: random_mask(run, 0.3, seed=min(segment.last, after))


def other_each_time(ask: RunRequest) -> Outcome:
    """A made-up outcome whose weights are other ones at each iteration."""
    generator = torch.Generator().manual_seed(ask.run.last)
    final = {n: torch.randn(kept.shape, generator=generator) for n, kept in ask.run.mask.items()}
    return replace(outcome_of(ask.run), final=final)


def test_the_distance_is_the_fraction_of_weights_in_which_masks_differ() -> None:
    one = Mask({"a": torch.tensor([True, True, False, False])})
    other = Mask({"a": torch.tensor([True, False, True, False])})
    assert (distance(one, one), distance(one, other), distance(other, one)) == (0, 0.5, 0.5)


def test_layers_that_are_never_pruned_do_not_bring_masks_closer() -> None:
    rest = torch.ones(96, dtype=torch.bool)
    one = Mask({"a": torch.tensor([True, True, False, False]), "b": rest})
    other = Mask({"a": torch.tensor([True, False, True, False]), "b": rest})
    assert (distance(one, other), distance(one, other, ["a"])) == (0.02, 0.5)
    assert agree([one, other], Drawing([], window=2))
    assert not agree([one, other], Drawing([], window=2, layers=["a"]))


@settings(deadline=None)
@given(kept=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_no_two_masks_are_further_apart_than_their_density_lets_them(kept: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (Mask({"a": torch.randperm(40, generator=generator) < kept}) for _ in range(2))
    assert distance(one, other) <= 2 * min(kept, 40 - kept) / 40
    assert distance(one, Mask({"a": one["a"].roll(20)})) <= 2 * min(kept, 40 - kept) / 40


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


@pytest.mark.parametrize(
    "search",
    [
        {"density": 0.05},
        {"density": 0.95},
        {"rate": 0.95, "rates": {"fc*": 0.0}, "output_rate": 0.04},
        {"density": 0.05, "leave_out": ["fc2"]},
    ],
)
def test_a_tolerance_that_any_two_masks_meet_is_refused(search: dict[str, Any]) -> None:
    recipe = tiny(**EARLY | {"search": {"levels": 1, "method": "early-bird"} | search})
    with pytest.raises(
        InputError, match=r"any two masks that leave so many weights are within 0\.\d+; should be less"
    ):
        Experiment(recipe)


def test_masks_are_compared_where_they_are_pruned() -> None:
    """fc1, most of the weights, is left out: over all layers unrelated masks would be close."""
    search = {"levels": 1, "density": 0.5, "method": "early-bird", "leave_out": ["fc1"]}
    recipe = tiny(search=search, early_bird={"draws": 6, "window": 2, "tolerance": 0.2})
    asked, _ = answer(Experiment(recipe).study(0), outcome=other_each_time)
    assert [ask.run.last for question in asked for ask in question if ask.branch == "drawn"] == [60]


def test_fewer_draws_than_must_agree_are_refused() -> None:
    with pytest.raises(InputError, match="early_bird: draws should be at least window, 5, not 4"):
        tiny(**EARLY | {"early_bird": {"draws": 4}})


def test_a_ticket_that_goes_on_is_trained_even_where_masks_never_agree() -> None:
    recipe = tiny(**EARLY | {"early_bird": {"draws": 6, "tolerance": 1e-9, "go_on": True}})
    asked, _ = answer(Experiment(recipe).study(0), outcome=other_each_time)
    asks = [ask for question in asked for ask in question]
    assert [ask.run.last for ask in asks if ask.branch == "segment"] == [9, 17, 26, 34, 43, 51]
    ticket = [ask.run for ask in asks if ask.branch == "ticket"][-1]
    assert (ticket.begin, ticket.last) == (51, 60)


def test_what_goes_on_is_not_rewound_so_its_mask_may_be() -> None:
    recipe = tiny(**EARLY | {"early_bird": {"go_on": True}}, controls={"rewound": 1})
    assert (recipe.no_ticket, recipe.rewound) == ("weights not rewound", False)
    asked, _ = answer(Experiment(recipe).study(0))
    asks = {ask.branch: ask.run for question in asked for ask in question}  # the last of each
    assert asks["ticket"].begin > 0
    assert asks["rewound"] == Experiment(recipe).dense(0).masked(asks["ticket"].mask)
    with pytest.raises(InputError, match=r"controls\.rewound: these tickets are rewound themselves"):
        tiny(**EARLY, controls={"rewound": 1})
