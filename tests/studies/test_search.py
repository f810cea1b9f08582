from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from tests.conftest import outcome_of
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import Layerwise
from tombola.pruning.scores import magnitude
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.controls import ControlPlan, reinit
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import iterative_search, one_shot_search

RATES = {"fc1.weight": 0.4, "fc2.weight": 0.4, "output.weight": 0.2}


def prune_by_magnitude(outcome: Outcome, run: Run, level: int) -> Mask:  # noqa: ARG001
    weights = {name: outcome.final[name] for name in run.mask}
    return Pruner(magnitude, Layerwise(RATES))(ScoreInputs(weights, run.mask))


def answer(
    study: Study[Any], diverge_at: int | None = None, outcome: Callable[[RunRequest], Outcome] | None = None
) -> tuple[list[list[RunRequest]], Any]:
    """Drive a study with made-up outcomes; what it asked, and what it returned."""
    made_up = outcome or (lambda ask: outcome_of(ask.run, diverged=ask.level == diverge_at))
    asked: list[list[RunRequest]] = []
    reply: Any = None
    while True:
        try:
            question = study.send(reply)
        except StopIteration as end:
            return asked, end.value
        asks = question if isinstance(question, list) else [question]
        asked.append(asks)
        outcomes = [made_up(ask) for ask in asks]
        reply = outcomes if isinstance(question, list) else outcomes[0]


def test_the_iterative_search_trains_prunes_and_resets(dense: Run) -> None:
    asked, tickets = answer(iterative_search(dense, 3, prune_by_magnitude))
    assert [[(ask.branch, ask.level) for ask in asks] for asks in asked] == [[("ticket", n)] for n in range(4)]
    assert tickets == [asks[0] for asks in asked]
    assert tickets[0].run == dense
    for before, ticket in pairwise(tickets):
        assert ticket.run.start == dense.start  # reset to the initial weights
        assert ticket.run == dense.masked(ticket.run.mask)  # and nothing else changed
        assert ticket.run.mask == prune_by_magnitude(outcome_of(before.run), before.run, ticket.level)
        for name, left in ticket.run.mask.counts.items():
            was = before.run.mask.counts[name]
            assert left == was - round(RATES[name] * was)


def test_no_levels_is_the_dense_network_alone(dense: Run) -> None:
    assert answer(iterative_search(dense, 0, prune_by_magnitude))[1] == [RunRequest("ticket", 0, dense)]
    assert answer(one_shot_search(dense, 0, prune_by_magnitude))[1] == [RunRequest("ticket", 0, dense)]


def test_one_shot_prunes_the_dense_network_to_the_same_densities(dense: Run) -> None:
    asked, tickets = answer(one_shot_search(dense, 3, prune_by_magnitude))
    assert [len(asks) for asks in asked] == [1, 3]
    _, iterative = answer(iterative_search(dense, 3, prune_by_magnitude))
    assert [t.run.mask.counts for t in tickets] == [t.run.mask.counts for t in iterative]
    weights = outcome_of(dense).final["fc1.weight"].abs()
    for ticket in tickets[1:]:
        kept = ticket.run.mask["fc1.weight"]
        assert weights[kept].min() >= weights[~kept].max()  # all by the dense network's trained weights


def test_a_search_ends_where_training_diverges(dense: Run) -> None:
    _, tickets = answer(iterative_search(dense, 3, prune_by_magnitude), diverge_at=2)
    assert [ticket.level for ticket in tickets] == [0, 1, 2]
    _, tickets = answer(one_shot_search(dense, 3, prune_by_magnitude), diverge_at=0)
    assert [ticket.level for ticket in tickets] == [0]


def test_reinit_changes_the_initial_weights_and_nothing_else(dense: Run) -> None:
    tickets = answer(iterative_search(dense, 2, prune_by_magnitude))[1]
    asked, _ = answer(reinit(ControlPlan(tickets, 3, lambda level, draw: 10 * level + draw)))
    (asks,) = asked
    assert [(ask.branch, ask.level, ask.draw) for ask in asks] == [
        ("reinit", level, draw) for level in (1, 2) for draw in range(3)
    ]
    for ask in asks:
        ticket = tickets[ask.level].run
        assert ask.run.start.seed == 10 * ask.level + ask.draw
        assert ask.run == ticket.reinitialised(ask.run.start.seed)
        assert ask.run.mask == ticket.mask
        assert ask.run.seed == ticket.seed


def test_reinitialised_weights_are_really_others(dense: Run) -> None:
    from tombola.zoo.models import build

    original, drawn = (build(run.start).state_dict() for run in (dense, dense.reinitialised(5)))
    for name in dense.mask:
        assert not torch.isclose(original[name], drawn[name]).any()
