"""Lines between tickets: which networks are asked for, in which order, and how many."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.studies import drive, with_biases
from tombola.engines.eager import Eager
from tombola.experiments.experiment import count_runs
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.conductor import ListenerGroup, conduct
from tombola.studies.lines import Line, evaluate_lines, final_figure
from tombola.studies.request import InterpolationPoint, RunRequest
from tombola.studies.ticket_lines import count_ticket_lines, ticket_lines
from tombola.utils.workers import InlineExecutor
from tombola.zoo.models.description import Trained

SEEDS, POINTS = [7, 8], 5


@pytest.fixture
def tickets(dense: Run) -> list[RunRequest]:
    """Three levels that were rewound to iteration 20."""
    rest = dense.after(dense.until(20), begin=20)
    half = random_mask(dense, 0.5)
    fewer = half.with_layers({name: kept & random_mask(dense, 0.5, 1)[name] for name, kept in half.items()})
    return [RunRequest("ticket", level, rest.masked(mask)) for level, mask in enumerate([dense.mask, half, fewer])]


def ended(request: RunRequest) -> Outcome:
    return outcome_of(request.run, iterations=request.run.end or 60)


def test_the_ends_are_asked_for_first_then_all_networks_in_between(tickets: list[RunRequest]) -> None:
    (ends, inner), _ = drive(ticket_lines(tickets, SEEDS, POINTS), outcome=ended)
    lines = count_ticket_lines(2, len(SEEDS))
    assert lines == 2 + 3 * 2
    assert (len(ends), len(inner)) == (2 * lines, (POINTS - 2) * lines)
    assert {request.point.share for request in ends if request.point} == {0.0, 1.0}
    assert {request.point.share for request in inner if request.point} == {0.25, 0.5, 0.75}
    assert len(set(ends + inner)) == len({request.request_id for request in ends + inner}) == POINTS * lines
    trained = {request.run for request in ends}
    assert len(trained) == 3 + 3 * 2  # the tickets, and each in two other batch orders


def test_a_ticket_is_joined_with_its_predecessor_whose_mask_networks_in_between_have(
    tickets: list[RunRequest],
) -> None:
    (ends, inner), _ = drive(ticket_lines(tickets, SEEDS, POINTS), outcome=ended)
    for level in (1, 2):
        ticket, before = tickets[level].run, tickets[level - 1].run
        along = [r for r in (*ends, *inner) if r.level == level and r.point and r.point.tickets == "predecessor"]
        by_share = {request.point.share: request.run for request in along if request.point}
        assert (by_share[0.0], by_share[1.0]) == (ticket, before)
        for share in (0.25, 0.5, 0.75):
            between = by_share[share]
            assert between.start.trained == Trained(run=ticket.key, towards=before.key, share=share)
            assert between.mask.digest == before.mask.digest
            assert (between.begin, between.end, between.interpolates) == (60, 60, True)  # nothing is trained


def test_a_ticket_is_joined_with_itself_in_other_batch_orders(tickets: list[RunRequest]) -> None:
    (ends, inner), _ = drive(ticket_lines(tickets, SEEDS, POINTS), outcome=ended)
    for ticket in tickets:
        of_level = [r for r in (*ends, *inner) if r.level == ticket.level and r.point and r.point.tickets == "order"]
        assert {request.run.mask.digest for request in of_level} == {ticket.run.mask.digest}
        others = {request.draw: request.run for request in of_level if request.point and request.point.share == 1.0}
        assert others == {pair: ticket.run.model_copy(update={"seed": seed}) for pair, seed in enumerate(SEEDS)}
        assert {request.point.k for request in of_level if request.point} == {20}


def test_the_lines_of_the_dense_network_are_those_of_its_stability(dense: Run) -> None:
    """They have the same runs, so these are trained once, and those of earlier experiments are found again."""
    rest = dense.after(dense.until(20), begin=20)
    other = rest.model_copy(update={"seed": 7})
    (_, inner), _ = drive(ticket_lines([RunRequest("ticket", 0, rest)], [7], 3), outcome=ended)
    assert [request.run for request in inner] == [dense.between(rest, other, 0.5, 60)]
    assert Line(rest, other, 20).between(0.5, 60).run == inner[0].run


def test_nothing_is_evaluated_between_ends_of_which_one_diverged(tickets: list[RunRequest]) -> None:
    diverged = tickets[2].run
    (ends, inner), _ = drive(
        ticket_lines(tickets, SEEDS, POINTS), outcome=lambda r: outcome_of(r.run, diverged=r.run == diverged)
    )
    assert len(ends) == 2 * count_ticket_lines(2, 2)
    assert {request.level for request in inner} == {0, 1}


def test_the_barrier_between_equal_ends_is_0(dense: Run, tmp_path: Path) -> None:
    study = evaluate_lines([Line(dense.until(5), dense.until(5), 0)], 4)
    (along,) = conduct([study], Store(tmp_path), Eager(), InlineExecutor(), ListenerGroup([]))[0]
    assert len(along) == 4
    assert len({final_figure(outcome, "validation_accuracy") for outcome in along}) == 1


def test_interpolated_networks_keep_what_either_ticket_keeps(tickets: list[RunRequest]) -> None:
    (_, inner), _ = drive(ticket_lines(tickets, [], 3), outcome=with_biases)
    for request in inner:
        kept = [request.run.mask[name] | tickets[request.level].run.mask[name] for name in request.run.mask]
        assert all(torch.equal(one, own) for one, own in zip(kept, request.run.mask.layers.values(), strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"search__one_shot": True},
        {"rewind": {"to": "20it"}, "stability__candidates": ["0it", "20it"]},
        {"rewind": {"to": "20it"}, "stability__pairs": 2},
    ],
)
def test_as_many_runs_are_requested_as_counted(changes: dict[str, object]) -> None:
    recipe = tiny(**{"stability__tickets": True, "stability__points": 4} | changes)
    yielded, _ = drive(RecipeExperiment(recipe).study(0), outcome=ended)
    requests = [request for requests in yielded for request in requests]
    assert len(set(requests)) * recipe.replicates == count_runs(recipe)
    assert count_runs(recipe) > count_runs(tiny(**changes | {"stability": None}))
    assert {request.branch for request in requests if request.point} == {"stability"}
    assert InterpolationPoint(recipe.rewind.to.iterations, 0.0, "order") in {request.point for request in requests}
