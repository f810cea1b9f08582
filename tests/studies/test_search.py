from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.studies import RATES, drive, prune_by_magnitude, requests_of
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.early_bird import EarlyBirdPlan, early_bird_search, mask_distance, masks_agree
from tombola.studies.request import RunRequest
from tombola.studies.search import iterative_search, one_shot_search
from tombola.utils.errors import InputError
from tombola.zoo.models.description import Trained


def test_the_iterative_search_trains_prunes_and_resets(dense: Run) -> None:
    yielded, tickets = drive(iterative_search(dense, 3, prune_by_magnitude))
    assert yielded == [[ticket] for ticket in tickets]
    assert [(ticket.branch, ticket.level) for ticket in tickets] == [("ticket", level) for level in range(4)]
    assert tickets[0].run == dense
    for before, ticket in pairwise(tickets):
        assert ticket.run == dense.masked(ticket.run.mask)  # the initial weights, and nothing else changed
        assert ticket.run.mask == prune_by_magnitude(outcome_of(before.run), before.run, ticket.level)
        for name, kept in ticket.run.mask.counts.items():
            unpruned = before.run.mask.counts[name]
            assert kept == unpruned - round(RATES[name] * unpruned)


def test_without_levels_there_is_only_the_dense_network(dense: Run) -> None:
    for search in (iterative_search, one_shot_search):
        assert drive(search(dense, 0, prune_by_magnitude))[1] == [RunRequest("ticket", 0, dense)]


def test_one_shot_prunes_the_dense_network_to_the_same_densities(dense: Run) -> None:
    yielded, tickets = drive(one_shot_search(dense, 3, prune_by_magnitude))
    assert [len(requests) for requests in yielded] == [1, 3]
    _, iterative = drive(iterative_search(dense, 3, prune_by_magnitude))
    assert [t.run.mask.counts for t in tickets] == [t.run.mask.counts for t in iterative]
    weights = outcome_of(dense).final["fc1.weight"].abs()
    for ticket in tickets[1:]:
        kept = ticket.run.mask["fc1.weight"]
        assert weights[kept].min() >= weights[~kept].max()  # always by the dense network's trained weights


def test_a_search_ends_if_a_training_diverges(dense: Run) -> None:
    _, tickets = drive(iterative_search(dense, 3, prune_by_magnitude), diverge_at=2)
    assert [ticket.level for ticket in tickets] == [0, 1, 2]
    _, tickets = drive(one_shot_search(dense, 3, prune_by_magnitude), diverge_at=0)
    assert [ticket.level for ticket in tickets] == [0]


EARLY = {"search": {"levels": 1, "density": 0.2, "method": "early-bird"}, "early_bird": {"draws": 6}}


def settling(run: Run, after: int) -> Callable[..., Mask]:
    """Masks that differ until that iteration, and are then the same."""
    return lambda _outcome, segment, _level: random_mask(run, 0.3, seed=min(segment.last, after))


def changing_weights(request: RunRequest) -> Outcome:
    """A made-up outcome whose weights differ between iterations."""
    generator = torch.Generator().manual_seed(request.run.last)
    final = {n: torch.randn(kept.shape, generator=generator) for n, kept in request.run.mask.items()}
    return replace(outcome_of(request.run), final=final)


def test_the_distance_is_the_fraction_of_weights_in_which_masks_differ() -> None:
    rest = torch.ones(96, dtype=torch.bool)
    one = Mask({"a": torch.tensor([True, True, False, False]), "unpruned": rest})
    other = Mask({"a": torch.tensor([True, False, True, False]), "unpruned": rest})
    assert (mask_distance(one, one), mask_distance(one, other), mask_distance(other, one)) == (0, 0.02, 0.02)
    assert mask_distance(one, other, [("a",)]) == 0.5
    assert masks_agree([one, other], EarlyBirdPlan([], window=2))
    assert not masks_agree([one, other], EarlyBirdPlan([], window=2, groups=[("a",)]))


@settings(deadline=None, max_examples=30)
@given(kept=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_the_density_limits_the_distance(kept: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (Mask({"a": torch.randperm(40, generator=generator) < kept}) for _ in range(2))
    assert mask_distance(one, other) <= 2 * min(kept, 40 - kept) / 40
    assert mask_distance(one, Mask({"a": one["a"].roll(20)})) <= 2 * min(kept, 40 - kept) / 40


def test_all_pairs_of_the_window_must_agree() -> None:
    masks = [Mask({"a": torch.arange(100) < n}) for n in (50, 55, 60)]
    assert not masks_agree(masks[:2], EarlyBirdPlan([], window=3))  # too few
    assert masks_agree(masks, EarlyBirdPlan([], window=3, tolerance=0.1))
    assert not masks_agree(masks, EarlyBirdPlan([], window=3, tolerance=0.09))  # neighbours do, the ends do not


def test_the_first_mask_to_agree_is_trained_from_the_initial_weights(dense: Run) -> None:
    plan = EarlyBirdPlan([10, 20, 30, 40, 50, 60], window=3)
    yielded, tickets = drive(early_bird_search(dense, plan, settling(dense, 20)))
    requests = [request for requests in yielded for request in requests]
    assert [(request.branch, request.run.begin, request.run.last) for request in requests] == [
        ("ticket", 0, 60),
        ("segment", 0, 10),
        ("segment", 10, 20),
        ("segment", 20, 30),
        ("segment", 30, 40),
        ("drawn", 30, 40),  # the same run: its row says when the mask was drawn
        ("ticket", 0, 60),
    ]
    assert all(request.run.mask == dense.mask for request in requests[:-1])
    assert requests[-1].run == dense.masked(random_mask(dense, 0.3, seed=20))
    assert tickets == [requests[0], requests[-1]]


def test_with_go_on_the_ticket_resumes_from_the_weights_its_mask_was_drawn_from(dense: Run) -> None:
    plan = EarlyBirdPlan([10, 20, 30], window=2, go_on=True)
    yielded, tickets = drive(early_bird_search(dense, plan, settling(dense, 10)))
    run = tickets[-1].run
    assert (run.begin, run.last) == (20, 60)
    assert run.start.trained == Trained(run=yielded[2][0].run.key)


def test_if_masks_never_agree_the_last_is_taken_with_a_warning(dense: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        yielded, tickets = drive(early_bird_search(dense, EarlyBirdPlan([10, 20, 30]), settling(dense, 60)))
    assert "0.1" in caplog.text
    assert yielded[-2][0].run.last == 30
    assert tickets[-1].run == dense.masked(random_mask(dense, 0.3, seed=30))


def test_a_search_ends_if_the_dense_network_diverges(dense: Run) -> None:
    def diverge(request: Any) -> Outcome:
        return outcome_of(request.run, diverged=request.run.last == 20)

    yielded, tickets = drive(
        early_bird_search(dense, EarlyBirdPlan([10, 20, 30]), settling(dense, 60)), outcome=diverge
    )
    assert [request.level for request in tickets] == [0]
    assert yielded[-1][0].run.last == 20


def test_no_more_runs_are_requested_than_counted() -> None:
    recipe = tiny(**EARLY)
    assert len(requests_of(RecipeExperiment(recipe).study(0))) * recipe.replicates <= count_runs(recipe)


@pytest.mark.parametrize(
    "search",
    [
        {"density": 0.05},
        {"density": 0.95},
        {"rate": 0.95, "rates": {"fc*": 0.0}, "output_rate": 0.04},
        {"density": 0.05, "leave_out": ["fc2"]},
    ],
)
def test_a_tolerance_that_any_two_masks_would_meet_is_refused(search: dict[str, Any]) -> None:
    recipe = tiny(**EARLY | {"search": {"levels": 1, "method": "early-bird"} | search})
    with pytest.raises(InputError, match=r"early_bird\.tolerance: should be less than 0\.\d+"):
        RecipeExperiment(recipe)


def test_masks_are_compared_only_in_layers_that_are_pruned() -> None:
    """fc1 has most of the weights and is left out: over all layers, unrelated masks would be close."""
    search = {"levels": 1, "density": 0.5, "method": "early-bird", "leave_out": ["fc1"]}
    recipe = tiny(search=search, early_bird={"draws": 6, "window": 2, "tolerance": 0.2})
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=changing_weights)
    assert [request.run.last for request in requests if request.branch == "drawn"] == [60]


def test_with_go_on_the_last_mask_is_drawn_before_the_end() -> None:
    recipe = tiny(**EARLY | {"early_bird": {"draws": 6, "tolerance": 1e-9, "go_on": True}})
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=changing_weights)
    assert [request.run.last for request in requests if request.branch == "segment"] == [9, 17, 26, 34, 43, 51]
    ticket = [request.run for request in requests if request.branch == "ticket"][-1]
    assert (ticket.begin, ticket.last) == (51, 60)


def test_with_go_on_the_ticket_is_not_rewound_but_the_control_is() -> None:
    recipe = tiny(**EARLY | {"early_bird": {"go_on": True}}, controls={"rewound": 1})
    assert recipe.no_ticket_reason == "weights not rewound"
    last = {request.branch: request.run for request in requests_of(RecipeExperiment(recipe).study(0))}
    assert last["ticket"].begin > 0
    assert last["rewound"] == RecipeExperiment(recipe).dense(0).masked(last["ticket"].mask)


@pytest.mark.parametrize("search", [iterative_search, one_shot_search])
def test_weights_are_dropped_when_the_network_has_been_pruned(dense: Run, search: Any) -> None:
    study = search(dense, 2, prune_by_magnitude)
    outcome = outcome_of(next(study).run)
    weights = [weakref.ref(tensor) for tensor in outcome.final.values()]
    study.send(outcome)
    del outcome
    assert not any(weight() is not None for weight in weights)
