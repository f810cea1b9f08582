from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from tests.conftest import outcome_of
from tests.studies.test_search import answer, prune_by_magnitude
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.studies.controls import CONTROLS, ControlPlan
from tombola.studies.request import RunRequest
from tombola.studies.search import iterative_search
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build

DRAWN = sorted(name for name in CONTROLS if name.upper() in Purpose.__members__)
MASKS = ["random", "shuffled", "random_global", "large_init", "one_shot"]


@pytest.fixture
def tickets(dense: Run) -> list[RunRequest]:
    found: list[RunRequest] = answer(iterative_search(dense, 3, prune_by_magnitude))[1]
    return found


def controls(
    name: str, tickets: Sequence[RunRequest], draws: int = 2, levels: Sequence[int] | None = None, seed: int = 0
) -> list[RunRequest]:
    """What a control asks for, the dense network apart."""
    draws = draws if name in DRAWN else 1
    plan = ControlPlan(
        tickets, draws, lambda level, draw: 1000 * seed + 10 * level + draw, levels, prune_by_magnitude
    )
    asked, _ = answer(CONTROLS[name](plan))
    return [ask for asks in asked for ask in asks if ask.branch != "ticket"]


def ticket_of(control: RunRequest, tickets: Sequence[RunRequest]) -> Run:
    return next(ticket.run for ticket in tickets if ticket.level == control.level)


@pytest.mark.parametrize("name", CONTROLS)
def test_each_is_asked_for_at_each_level_and_draw(name: str, tickets: list[RunRequest]) -> None:
    draws = 2 if name in DRAWN else 1
    asks = controls(name, tickets)
    assert [(ask.branch, ask.level, ask.draw) for ask in asks] == [
        (name, level, draw) for level in (1, 2, 3) for draw in range(draws)
    ]
    assert {ask.level for ask in controls(name, tickets, levels=[1, 3])} == {1, 3}
    chosen = [ask.run for ask in asks if ask.level == 3]
    assert [ask.run for ask in controls(name, tickets, levels=[3])] == chosen  # other levels change nothing
    assert controls(name, tickets[:1]) == []  # the dense network has none
    for ask in asks:
        ticket = ticket_of(ask, tickets)
        assert (ask.run.seed, ask.run.data, ask.run.training) == (ticket.seed, ticket.data, ticket.training)
        # made-up outcomes have the same weights at every level, and these tickets are rewound already
        assert ask.run != ticket or name in ("one_shot", "rewound")


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_drawn_by_the_seed_alone(name: str, tickets: list[RunRequest]) -> None:
    runs = [ask.run for ask in controls(name, tickets)]
    torch.manual_seed(7)
    assert [ask.run for ask in controls(name, tickets)] == runs
    assert len(set(runs)) == len(runs)  # draws and levels differ
    assert not {ask.run for ask in controls(name, tickets, seed=1)} & set(runs)


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_controls_have_exactly_the_counts_of_the_ticket(name: str, tickets: list[RunRequest]) -> None:
    for ask in controls(name, tickets):
        ticket = ticket_of(ask, tickets)
        assert ask.run.start == ticket.start
        assert ask.run.mask != ticket.mask or name == "one_shot"
        assert ask.run.mask.count == ticket.mask.count
        if name != "random_global":
            assert ask.run.mask.counts == ticket.mask.counts


def test_a_shuffle_changes_every_layer(tickets: list[RunRequest]) -> None:
    for ask in controls("shuffled", tickets):
        for layer, kept in ticket_of(ask, tickets).mask.items():
            assert not torch.equal(ask.run.mask[layer], kept)


@pytest.mark.parametrize("name", ["random", "random_global", "one_shot"])
def test_masks_of_one_draw_lie_within_each_other(name: str, tickets: list[RunRequest]) -> None:
    asks = [ask for ask in controls(name, tickets) if ask.draw == 0]
    assert all(sparser.run.mask <= denser.run.mask for denser, sparser in pairwise(asks))


def test_globally_random_masks_leave_alone_what_is_not_pruned(dense: Run) -> None:
    full = dense.mask
    mask = Mask(
        {
            name: kept if name == "output.weight" else kept & (torch.arange(kept.shape[1]) % 2 == 0)
            for name, kept in full.items()
        }
    )
    ask = controls("random_global", [RunRequest("ticket", 0, dense), RunRequest("ticket", 1, dense.masked(mask))])[0]
    assert ask.run.mask["output.weight"].all()
    for layer in ("fc1.weight", "fc2.weight"):
        assert abs(ask.run.mask.counts[layer] / full.sizes[layer] - 0.5) < 0.1


def test_the_smallest_at_initialisation_are_without_the_smallest(tickets: list[RunRequest]) -> None:
    initial = build(tickets[0].run.start).state_dict()
    for ask in controls("large_init", tickets):
        for layer, kept in ask.run.mask.items():
            assert initial[layer][kept].abs().min() >= initial[layer][~kept].abs().max()


def test_one_shot_goes_by_the_trained_weights_of_the_dense_network(tickets: list[RunRequest]) -> None:
    trained = outcome_of(tickets[0].run).final
    for ask in controls("one_shot", tickets):
        for layer, kept in ask.run.mask.items():
            assert trained[layer][kept].abs().min() >= trained[layer][~kept].abs().max()


@pytest.mark.parametrize("name", ["reinit", "reuse", "reuse_sign"])
def test_controls_of_the_initial_weights_keep_the_mask(name: str, tickets: list[RunRequest]) -> None:
    original = build(tickets[0].run.start).state_dict()
    for ask in controls(name, tickets):
        assert ask.run.mask == ticket_of(ask, tickets).mask
        start = build(ask.run.start).state_dict()
        for layer in ask.run.mask:
            before, after = original[layer].flatten(), start[layer].flatten()
            assert (before != after).float().mean() > 0.9
            same_values = torch.equal(before.sort().values, after.sort().values)
            same_signs = torch.equal(before.sign(), after.sign())
            assert (same_values, same_signs) == (name != "reinit", name == "reuse_sign")
        biases = set(start) - set(ask.run.mask)
        assert all(torch.equal(start[bias], original[bias]) for bias in biases)


def test_nothing_is_pruned_at_once_where_the_dense_network_diverged(tickets: list[RunRequest]) -> None:
    plan = ControlPlan(tickets, 1, lambda level, draw: level + draw, None, prune_by_magnitude)
    asked, _ = answer(CONTROLS["one_shot"](plan), diverge_at=0)
    assert [ask.branch for asks in asked for ask in asks] == ["ticket"]
