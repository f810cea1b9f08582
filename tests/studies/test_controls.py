from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from tests.support.errors import raises_input_error
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive, prune_by_magnitude, requests_of, with_biases
from tombola.experiments.experiment import count_runs
from tombola.experiments.mask_source import StandInMasks
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.exchangeable_units import ExchangeableUnits, UnitPermutation
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.weight_matching import match_weights
from tombola.runs.initial_state import initial_state, masked_network
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.controls import CONTROLS, SECOND_DENSE_CONTROLS, ControlPlan
from tombola.studies.rehearsal import MadeUp, rehearse
from tombola.studies.request import INTERMEDIATE, RunRequest
from tombola.studies.search import iterative_search
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build
from tombola.zoo.models.mlp import mlp
from tombola.zoo.models.reparametrization import effective_state

DRAWN = sorted(name for name in CONTROLS if name.upper() in Purpose.__members__)
UNITS = ExchangeableUnits.of(PrunableNetwork(mlp((8, 8), 10, widths=[20, 10]), given_example=torch.zeros(2, 8, 8)))
MASKS = ["random", "shuffled", "random_global", "large_init", "one_shot"]


@pytest.fixture
def tickets(dense: Run) -> list[RunRequest]:
    found: list[RunRequest] = drive(iterative_search(dense, 3, prune_by_magnitude))[1]
    return found


def controls(
    name: str, tickets: Sequence[RunRequest], draws: int = 2, levels: Sequence[int] | None = None, seed: int = 0
) -> list[RunRequest]:
    """What a control requests, apart from the dense network."""
    draws = draws if name in DRAWN else 1
    plan = ControlPlan(
        tickets,
        draws,
        lambda level, draw: 1000 * seed + 10 * level + draw,
        levels,
        prune_by_magnitude,
        initial=lambda: initial_state(tickets[0].run.start),
        match=match,
    )
    requests = requests_of(CONTROLS[name](plan), with_biases)
    return [request for request in requests if request.branch not in ("ticket", *INTERMEDIATE)]


def match(first: Outcome, second: Outcome) -> UnitPermutation:
    return match_weights(UNITS, first.final, second.final)


def ticket_of(control: RunRequest, tickets: Sequence[RunRequest]) -> Run:
    return next(ticket.run for ticket in tickets if ticket.level == control.level)


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_is_trained_at_each_level_and_draw(name: str, tickets: list[RunRequest]) -> None:
    draws = 2 if name in DRAWN else 1
    requests = controls(name, tickets)
    assert [(request.branch, request.level, request.draw) for request in requests] == [
        (name, level, draw) for level in (1, 2, 3) for draw in range(draws)
    ]
    assert {request.level for request in controls(name, tickets, levels=[1, 3])} == {1, 3}
    chosen = [request.run for request in requests if request.level == 3]
    assert [request.run for request in controls(name, tickets, levels=[3])] == chosen  # other levels change nothing
    assert controls(name, tickets[:1]) == []  # the dense network has none
    for request in requests:
        ticket = ticket_of(request, tickets)
        for same in ("seed", "data", "training"):
            assert getattr(request.run, same) == getattr(ticket, same)
        # made-up outcomes have the same weights at every level, and these tickets are rewound already
        assert request.run != ticket or name in ("one_shot", "rewound")


@pytest.mark.parametrize("name", DRAWN)
def test_draws_depend_on_their_seed_alone(name: str, tickets: list[RunRequest]) -> None:
    runs = [request.run for request in controls(name, tickets)]
    torch.manual_seed(7)
    assert [request.run for request in controls(name, tickets)] == runs
    assert len(set(runs)) == len(runs)  # draws and levels differ
    assert not {request.run for request in controls(name, tickets, seed=1)} & set(runs)


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_controls_have_exactly_the_counts_of_the_ticket(name: str, tickets: list[RunRequest]) -> None:
    for request in controls(name, tickets):
        ticket = ticket_of(request, tickets)
        assert request.run.start == ticket.start
        assert request.run.mask != ticket.mask or name == "one_shot"
        assert request.run.mask.count == ticket.mask.count
        if name != "random_global":
            assert request.run.mask.counts == ticket.mask.counts


def test_shuffling_changes_every_layer(tickets: list[RunRequest]) -> None:
    for request in controls("shuffled", tickets):
        for layer, kept in ticket_of(request, tickets).mask.items():
            assert not torch.equal(request.run.mask[layer], kept)


@pytest.mark.parametrize("name", ["random", "random_global", "one_shot"])
def test_masks_of_one_draw_are_nested(name: str, tickets: list[RunRequest]) -> None:
    requests = [request for request in controls(name, tickets) if request.draw == 0]
    assert all(sparser.run.mask <= denser.run.mask for denser, sparser in pairwise(requests))


def test_globally_random_masks_keep_unpruned_layers(dense: Run) -> None:
    full = dense.mask
    mask = Mask(
        {
            name: kept if name == "output.weight" else kept & (torch.arange(kept.shape[1]) % 2 == 0)
            for name, kept in full.items()
        }
    )
    request = controls(
        "random_global", [RunRequest("ticket", 0, dense), RunRequest("ticket", 1, dense.masked(mask))]
    )[0]
    assert request.run.mask["output.weight"].all()
    for layer in ("fc1.weight", "fc2.weight"):
        assert abs(request.run.mask.counts[layer] / full.sizes[layer] - 0.5) < 0.1


def test_large_init_keeps_the_largest_initial_weights(tickets: list[RunRequest]) -> None:
    initial = build(tickets[0].run.start).state_dict()
    for request in controls("large_init", tickets):
        for layer, kept in request.run.mask.items():
            assert initial[layer][kept].abs().min() >= initial[layer][~kept].abs().max()


def test_one_shot_keeps_the_largest_weights_of_the_trained_dense_network(tickets: list[RunRequest]) -> None:
    trained = outcome_of(tickets[0].run).final
    for request in controls("one_shot", tickets):
        for layer, kept in request.run.mask.items():
            assert trained[layer][kept].abs().min() >= trained[layer][~kept].abs().max()


@pytest.mark.parametrize("name", ["reinit", "reuse", "reuse_sign"])
def test_controls_of_the_initial_weights_keep_the_mask(name: str, tickets: list[RunRequest]) -> None:
    original = build(tickets[0].run.start).state_dict()
    for request in controls(name, tickets):
        assert request.run.mask == ticket_of(request, tickets).mask
        start = build(request.run.start).state_dict()
        for layer in request.run.mask:
            before, after = original[layer].flatten(), start[layer].flatten()
            assert (before != after).float().mean() > 0.9
            same_values = torch.equal(before.sort().values, after.sort().values)
            same_signs = torch.equal(before.sign(), after.sign())
            assert (same_values, same_signs) == (name != "reinit", name == "reuse_sign")
        biases = set(start) - set(request.run.mask)
        assert all(torch.equal(start[bias], original[bias]) for bias in biases)


def test_one_shot_trains_nothing_if_the_dense_network_diverged(tickets: list[RunRequest]) -> None:
    plan = ControlPlan(tickets, 1, lambda level, draw: level + draw, None, prune_by_magnitude)
    assert [request.branch for request in requests_of(CONTROLS["one_shot"](plan), diverge_at=0)] == ["ticket"]


def rewound_plan(tickets: list[RunRequest], dense: Run, k: int) -> ControlPlan:
    """Tickets rewound to iteration k."""
    start = dense.after(dense.until(k), begin=k)
    rewound = [RunRequest("ticket", ticket.level, start.masked(ticket.run.mask)) for ticket in tickets]
    matched = UNITS.random_permutation(1)
    return ControlPlan(rewound, 2, lambda level, draw: 10 * level + draw, match=lambda first, second: matched)  # noqa: ARG005


def test_permuted_and_unpermuted_masks_start_like_the_same_second_network(
    tickets: list[RunRequest], dense: Run
) -> None:
    plan = rewound_plan(tickets, dense, k=7)
    found = {name: requests_of(CONTROLS[name](plan), with_biases) for name in SECOND_DENSE_CONTROLS}
    rows = {name: [each for each in requests if each.branch == name] for name, requests in found.items()}
    trunks = {name: {each.run for each in requests if each.branch == "trunk"} for name, requests in found.items()}
    assert trunks["permuted"] == trunks["unpermuted"] == {dense.reinitialised(draw).until(7) for draw in (0, 1)}
    second = {each.draw: each.run for each in found["permuted"] if each.branch == "second_dense"}
    for permuted, unpermuted in zip(rows["permuted"], rows["unpermuted"], strict=True):
        ticket = ticket_of(permuted, plan.tickets)
        assert permuted.run.start == unpermuted.run.start == second[permuted.draw].start
        assert permuted.run.begin == unpermuted.run.begin == 7
        assert unpermuted.run.mask == ticket.mask
        assert permuted.run.mask != ticket.mask
        assert permuted.run.mask.counts == ticket.mask.counts


def test_a_permuted_mask_trains_nothing_if_a_dense_network_diverged(tickets: list[RunRequest], dense: Run) -> None:
    plan = rewound_plan(tickets, dense, k=0)
    assert [each.branch for each in requests_of(CONTROLS["permuted"](plan), diverge_at=0)] == ["ticket"]


@pytest.mark.parametrize("to", ["0it", "7it"])
def test_second_networks_and_their_trunks_are_counted(to: str) -> None:
    recipe = tiny(controls={"permuted": 2, "unpermuted": 2}, rewind={"to": to})
    study = RecipeExperiment(recipe).with_masks(StandInMasks()).study(0)
    rehearsed = [each.request for each in rehearse(study, lambda request, _: MadeUp.of(request.run, request.run.key))]
    assert len(set(rehearsed)) * recipe.replicates == count_runs(recipe)
    assert len({each.run for each in rehearsed}) == len(set(rehearsed))  # stand-ins of permuted masks are others


def test_second_networks_need_tickets_that_are_rewound() -> None:
    with raises_input_error("controls.permuted", "rewind.method"):
        tiny(controls={"permuted": 1}, rewind={"to": "7it", "method": "learning-rate"})


@pytest.mark.parametrize("name", ["signs", "magnitudes", "trained_signs"])
def test_controls_of_signs_change_magnitudes_or_signs(name: str, tickets: list[RunRequest]) -> None:
    """Of `reinit` with the ticket's signs, or of the ticket with other signs."""
    reinit = {request.request_id[:3]: request.run for request in controls("reinit", tickets)}
    for request in controls(name, tickets):
        ticket = ticket_of(request, tickets)
        final = build(ticket.start).state_dict() | outcome_of(ticket).final
        start = initial_state(request.run.start, lambda key, **_: {ticket.key: final}[key])  # noqa: B023
        before = build(ticket.start).state_dict()
        drawn = build(reinit["reinit", request.level, request.draw].start).state_dict()
        assert request.run.mask == ticket.mask
        for layer, kept in ticket.mask.items():
            now = start[layer][kept]
            magnitudes, signs = {
                "signs": (drawn, before),
                "magnitudes": (before, None),
                "trained_signs": (drawn, final),
            }[name]
            assert torch.equal(now.abs(), magnitudes[layer][kept].abs())
            if signs is not None:
                assert torch.equal(now.sign(), signs[layer][kept].sign())
            else:
                same = (now.sign() == before[layer][kept].sign()).double().mean()
                assert abs(same - 0.5) < 3 / kept.sum() ** 0.5


def test_signs_are_those_that_the_ticket_starts_with(dense: Run) -> None:
    later = dense.after(dense.until(2), begin=2)
    ticket = RunRequest("ticket", 1, later)
    (run,) = [request.run for request in controls("signs", [RunRequest("ticket", 0, dense), ticket], 1)]
    trunk = {name: -value for name, value in build(dense.start).state_dict().items()}
    start = initial_state(run.start, lambda key, **_: {dense.until(2).key: trunk}[key])
    assert (run.begin, run.end) == (0, None)
    for layer in dense.mask:
        assert torch.equal(start[layer].sign(), trunk[layer].sign())


def test_sign_in_starts_as_reinit(tickets: list[RunRequest]) -> None:
    for sign_in, reinit in zip(controls("sign_in", tickets), controls("reinit", tickets), strict=True):
        assert sign_in.run.mask.count == reinit.run.mask.count
        network = masked_network(sign_in.run)
        started = masked_network(reinit.run).state_dict()
        for name, weight in effective_state(network).items():
            torch.testing.assert_close(weight, started[name])


def test_trained_signs_leaves_out_a_ticket_that_diverged(tickets: list[RunRequest]) -> None:
    plan = ControlPlan(tickets, 1, lambda level, draw: level + draw)
    requested = requests_of(CONTROLS["trained_signs"](plan), diverge_at=2)
    assert [request.level for request in requested if request.branch == "trained_signs"] == [1, 3]


def test_signs_of_masks_that_changed_during_training_are_those_of_the_initial_weights() -> None:
    options = {"search": {"levels": 1, "density": 0.25, "method": "rigl"}, "rigl": {"changes": 2}}
    experiment = RecipeExperiment(tiny(**options, controls={"signs": 1, "magnitudes": 1}))
    dense = experiment.dense(0)
    runs = {request.branch: request.run for request in requests_of(experiment.study(0), with_biases)}
    assert runs["ticket"].start.trained is not None
    for name in ("signs", "magnitudes"):
        assert (runs[name].begin, runs[name].start.trained) == (0, None)
        assert runs[name].mask == runs["ticket"].mask
    signs = runs["signs"].start.signs
    assert signs is not None
    assert signs.of == dense.start
    assert runs["magnitudes"].start.seed == dense.start.seed


def test_magnitudes_are_trained_from_the_iteration_that_tickets_are_rewound_to() -> None:
    experiment = RecipeExperiment(tiny(rewind={"to": "15it"}, controls={"magnitudes": 1}))
    requests = requests_of(experiment.study(0))
    tickets = {request.level: request.run for request in requests if request.branch == "ticket"}
    for request in requests:
        if request.branch == "magnitudes":
            assert request.run.begin == tickets[request.level].begin == 15
            assert request.run.start.trained == tickets[request.level].start.trained
