"""Controls and early birds of searches that prune units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.studies import drive, requests_of
from tombola.pruning.mask import Mask
from tombola.pruning.options import PruningOptions
from tombola.pruning.pruner import Pruner
from tombola.pruning.ranking import keep_best
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import uniform
from tombola.pruning.structures import UNSTRUCTURED, UnitStructure
from tombola.runs.initial_state import initial_state
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.controls import CONTROLS, NEW_MASK_CONTROLS, ControlPlan
from tombola.studies.early_bird import mask_distance
from tombola.studies.request import RunRequest
from tombola.studies.search import iterative_search
from tombola.zoo.models import build


def pruner_of(dense: Run, **options: Any) -> Pruner:
    chosen = PruningOptions(rate=0.4, structure="neurons", **options)
    return chosen.pruner(chosen.prunable(build(dense.start), torch.zeros(2, *dense.start.network.inputs)))


def tickets_of(dense: Run, pruner: Pruner) -> list[RunRequest]:
    def prune(outcome: Outcome, run: Run, level: int) -> Mask:  # noqa: ARG001
        return pruner(ScoreInputs({name: outcome.final[name] for name in run.mask}, run.mask))

    found: list[RunRequest] = drive(iterative_search(dense, 3, prune))[1]
    return found


def controls(name: str, tickets: Sequence[RunRequest], pruner: Pruner, draws: int = 1) -> list[RunRequest]:
    plan = ControlPlan(
        tickets,
        draws,
        lambda level, draw: 10 * level + draw,
        initial=lambda: initial_state(tickets[0].run.start),
        structure=pruner.structure,
    )
    return requests_of(CONTROLS[name](plan))


def assert_whole_units(structure: UnitStructure, dense: Mask, mask: Mask) -> None:
    assert structure.units.keep(dense, structure.units.left(mask)) == mask


@pytest.mark.parametrize("options", [{}, {"scope": "global"}, {"cost": "weights"}, {"round_to": 4}])
@pytest.mark.parametrize("name", NEW_MASK_CONTROLS)
def test_controls_keep_or_prune_whole_units_as_many_as_the_ticket(
    name: str, options: dict[str, Any], dense: Run
) -> None:
    pruner = pruner_of(dense, **options)
    tickets = tickets_of(dense, pruner)
    assert isinstance(pruner.structure, UnitStructure)
    for request in controls(name, tickets, pruner):
        ticket, mask = tickets[request.level].run.mask, request.run.mask
        assert_whole_units(pruner.structure, dense.mask, mask)
        if name == "random_global":
            assert 0.8 * ticket.count <= mask.count <= ticket.count
        else:
            assert pruner.structure.counts_like(mask) == pruner.structure.counts_like(ticket)
            assert mask.counts == ticket.counts
            assert mask != ticket


def test_random_units_of_one_draw_are_nested_and_shuffled_ones_are_not(dense: Run) -> None:
    pruner = pruner_of(dense)
    masks = {
        name: [request.run.mask for request in controls(name, tickets_of(dense, pruner), pruner)]
        for name in ("random", "random_global", "shuffled")
    }
    assert all(sparser <= denser for name in ("random", "random_global") for denser, sparser in pairwise(masks[name]))
    assert not all(sparser <= denser for denser, sparser in pairwise(masks["shuffled"]))
    assert len(set(masks["random"] + masks["shuffled"])) == 6


def test_large_init_keeps_the_units_that_are_largest_at_initialisation(dense: Run) -> None:
    pruner = pruner_of(dense)
    initial = initial_state(dense.start)
    request = controls("large_init", tickets_of(dense, pruner), pruner)[0]
    first, second = (initial[name].abs() for name in ("fc1.weight", "fc2.weight"))
    worth = (first.sum(1) + second.sum(0)) / (first.shape[1] + len(second))
    kept = request.run.mask["fc1.weight"].any(1)
    assert worth[kept].min() >= worth[~kept].max()


def test_controls_of_a_pattern_keep_it() -> None:
    made = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    options = PruningOptions(structure="2:4", leave_out=["0"])
    pruner = options.pruner(options.prunable(made))
    dense = Mask.full(made)
    ticket = pruner(ScoreInputs({name: p.detach() for name, p in made.named_parameters() if p.dim() > 1}, dense))
    drawn = pruner.structure.draw(dense, pruner.structure.counts_like(ticket), 1)
    assert drawn["0.weight"].all()
    assert (drawn["1.weight"].view(4, 2, 4).sum(2) == 2).all()
    assert drawn != ticket


def test_draws_of_single_weights_are_as_they_were(dense: Run) -> None:
    counts = {(layer,): 7 for layer in dense.mask.layers}
    assert UNSTRUCTURED.draw(dense.mask, counts, 3) == keep_best(uniform(dense.mask, 3), dense.mask, counts)


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)))
def test_the_distance_of_structured_masks_is_that_of_their_units(one: set[int], other: set[int]) -> None:
    made = nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 2))
    options = PruningOptions(structure="neurons")
    structure = options.pruner(options.prunable(made)).structure
    assert isinstance(structure, UnitStructure)
    masks = []
    for gone in (one, other):
        kept = torch.ones(structure.units.count, dtype=torch.bool)
        kept[structure.units.sets[0].ids[sorted(gone)]] = False
        masks.append(structure.units.keep(Mask.full(made), kept))
    groups = [("0.weight",), ("2.weight",)]
    assert mask_distance(masks[0], masks[1], groups, structure) == pytest.approx(len(one ^ other) / 30)
    assert mask_distance(masks[0], masks[1], groups[:1], structure) == pytest.approx(len(one ^ other) / 20)
