from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive, requests_of, with_biases
from tombola.experiments.experiment import count_runs
from tombola.experiments.methods.search_method import spaced_iterations
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import (
    cosine_decay,
    cubic_schedule,
    drop_and_grow,
    train_in_segments,
    update_counts,
)
from tombola.studies.request import RunRequest
from tombola.zoo.models import build
from tombola.zoo.models.description import Trained

GRADUAL = {"search": {"levels": 1, "density": 0.2, "method": "gradual"}, "gradual": {"changes": 4, "end": 0.8}}


def test_each_segment_resumes_the_one_before_with_its_own_mask(dense: Run) -> None:
    masks = {20: Mask({n: kept & False for n, kept in dense.mask.items()}), 50: dense.mask}
    yielded, ticket = drive(train_in_segments(dense, [20, 50], lambda _outcome, _run, k: masks[k]))
    requests = [requests[0] for requests in yielded]
    assert [(request.branch, request.level, request.run.begin, request.run.last) for request in requests] == [
        ("segment", 1, 0, 20),
        ("segment", 1, 20, 50),
        ("ticket", 1, 50, 60),
    ]
    assert [request.run.mask for request in requests] == [dense.mask, masks[20], masks[50]]
    for before, request in pairwise(requests):
        assert request.run.start.trained == Trained(run=before.run.key, optimizer=True)
        assert (request.run.seed, request.run.data, request.run.training) == (dense.seed, dense.data, dense.training)
    assert ticket == requests[-1]


def test_without_changes_there_is_one_training(dense: Run) -> None:
    ticket = RunRequest("ticket", 1, dense)
    assert drive(train_in_segments(dense, [], lambda _outcome, run, _k: run.mask)) == ([[ticket]], ticket)


def test_if_a_segment_diverges_the_ticket_resumes_from_it(dense: Run) -> None:
    yielded, ticket = drive(
        train_in_segments(dense, [20, 50], lambda _outcome, run, _k: run.mask),
        outcome=lambda request: outcome_of(request.run, diverged=True),
    )
    assert [requests[0].branch for requests in yielded] == ["segment", "ticket"]
    assert (ticket.run.begin, ticket.run.last) == (20, 60)


@settings(max_examples=30)
@given(begin=st.integers(0, 50), more=st.integers(1, 300), parts=st.integers(1, 300))
def test_changes_are_evenly_spaced(begin: int, more: int, parts: int) -> None:
    parts = min(parts, more)
    at = spaced_iterations("changes", begin, begin + more, parts)
    assert len(at) == parts
    assert at == sorted(set(at))
    assert at[0] > begin
    assert at[-1] == begin + more
    gaps = [b - a for a, b in pairwise([begin, *at])]
    assert max(gaps) - min(gaps) <= 2  # each end is rounded


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 10_000), density=st.floats(0, 1), changes=st.integers(1, 60))
def test_counts_follow_the_cubic_schedule_and_end_exactly(size: int, density: float, changes: int) -> None:
    final = {("fc",): round(density * size)}
    counts = [cubic_schedule({("fc",): size}, final, i / changes)[("fc",)] for i in range(changes + 1)]
    assert (counts[0], counts[-1]) == (size, final[("fc",)])
    assert counts == sorted(counts, reverse=True)
    for i, kept in enumerate(counts):  # Zhu & Gupta 2017, equation 1, from no sparsity
        sparsity = (1 - final[("fc",)] / size) * (1 - (1 - i / changes) ** 3)
        assert abs(kept - size * (1 - sparsity)) <= 0.5 + 1e-6


def test_gradual_pruning_ends_with_the_counts_of_one_shot_pruning() -> None:
    recipe = tiny(**GRADUAL, controls={"rewound": 1, "random": 1, "reinit": 1})
    requests = requests_of(RecipeExperiment(recipe).study(0))
    assert len(requests) * recipe.replicates == count_runs(recipe)
    segments = [request.run for request in requests if request.branch == "segment"]
    assert [run.last for run in segments] == [12, 24, 36, 48]
    assert segments[0].mask.density == 1
    tickets = [request.run for request in requests if request.branch == "ticket"]
    assert [run.begin for run in tickets] == [0, 48]
    for denser, sparser in pairwise([*segments, tickets[1]]):
        assert sparser.mask <= denser.mask
        assert sparser.mask != denser.mask
    one_shot = requests_of(RecipeExperiment(tiny(search={"levels": 1, "density": 0.2, "one_shot": True})).study(0))
    assert tickets[1].mask.counts == one_shot[1].run.mask.counts


def test_gradual_pruning_by_synflow_leaves_no_layer_empty() -> None:
    """It scores in rounds; a single scoring would empty the largest layers."""
    search = {"levels": 1, "density": 0.002, "method": "gradual", "score": "synflow", "scope": "global"}
    recipe = tiny(search=search, gradual={"changes": 1}, model={"name": "mlp", "widths": [300, 300, 100]})
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=untrained)
    mask = [request.run.mask for request in requests if request.branch == "ticket"][-1]
    assert mask.count == mask.size - round(0.998 * mask.size)
    assert not mask.empty_layers


def untrained(request: RunRequest) -> Outcome:
    """A made-up outcome with the initial weights."""
    start = request.run.start.model_copy(update={"trained": None})
    return replace(outcome_of(request.run), final=build(start).state_dict())


def test_controls_of_dynamic_masks_start_at_iteration_0() -> None:
    experiment = RecipeExperiment(tiny(**GRADUAL, controls={"rewound": 1, "random": 1, "reinit": 1}))
    last = {request.branch: request.run for request in requests_of(experiment.study(0))}
    ticket, dense = last["ticket"], experiment.dense(0)
    assert last["rewound"] == dense.masked(ticket.mask)
    assert last["reinit"] == dense.masked(ticket.mask).reinitialised(last["reinit"].start.seed)
    assert last["random"] == dense.masked(last["random"].mask)
    assert last["random"].mask.counts == ticket.mask.counts


def sparse(method: str, **changes: Any) -> dict[str, Any]:
    section = {method: {"changes": 4} | changes}
    return {"search": {"levels": 1, "density": 0.2, "method": method, "scope": "erk"}, **section}


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    density=st.floats(0, 1),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
)
def test_lowest_are_dropped_and_highest_grown_and_layers_keep_their_counts(
    sizes: list[int], density: float, fraction: float, seed: int, ties: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def scores(size: int) -> torch.Tensor:
        drawn = torch.rand(size, generator=generator)
        return (drawn * 3).round() if ties else drawn

    mask = Mask({f"{i}": torch.rand(size, generator=generator) < density for i, size in enumerate(sizes)})
    drop, grow = ({f"{i}": scores(size) for i, size in enumerate(sizes)} for _ in range(2))
    counts = update_counts(mask, fraction)
    after = drop_and_grow(mask, drop, grow, counts)
    assert after.counts == mask.counts
    for name, count in counts.items():
        dropped, grown = mask[name] & ~after[name], after[name] & ~mask[name]
        assert int(dropped.sum()) == int(grown.sum()) == count  # no dropped weight was grown
        if count > 0:
            kept, pruned = mask[name] & after[name], ~mask[name] & ~after[name]
            assert not kept.any() or drop[name][dropped].max() <= drop[name][kept].min()
            assert not pruned.any() or grow[name][grown].min() >= grow[name][pruned].max()


def test_no_more_weights_are_replaced_than_are_pruned() -> None:
    kept = torch.ones(10, dtype=torch.bool)
    one_free = kept.clone()
    one_free[3] = False
    mask = Mask({"dense": kept, "nearly": one_free, "half": torch.arange(10) < 5})
    assert update_counts(mask, 0.4) == {"dense": 0, "nearly": 1, "half": 2}
    with pytest.raises(ValueError, match="dense: 10 of 10"):
        drop_and_grow(mask, {}, {}, {"dense": 1})


def test_the_replaced_fraction_decays_along_half_a_cosine() -> None:
    fraction = cosine_decay(0.3, 100)
    assert [fraction(t) for t in (0, 50, 100)] == pytest.approx([0.3, 0.15, 0.0])


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_the_network_is_always_sparse_and_each_update_replaces_the_smallest_weights(method: str) -> None:
    recipe = tiny(**sparse(method), controls={"random": 1, "rewound": 1})
    experiment = RecipeExperiment(recipe)
    requests = requests_of(experiment.study(0), outcome=with_biases)
    assert len(requests) * recipe.replicates == count_runs(recipe)
    segments = [request.run for request in requests if request.branch == "segment"]
    ticket = [request.run for request in requests if request.branch == "ticket"][-1]
    assert [run.last for run in segments] == {"set": [12, 24, 36, 48], "rigl": [9, 18, 27, 36]}[method]
    assert {tuple(run.mask.counts.items()) for run in [*segments, ticket]} == {tuple(ticket.mask.counts.items())}
    assert round(0.2 * ticket.mask.size) == ticket.mask.count
    fractions = {"set": [0.3] * 4, "rigl": [cosine_decay(0.3, 45)(k) for k in (9, 18, 27, 36)]}[method]
    for before, after, fraction in zip(segments, [*segments[1:], ticket], fractions, strict=True):
        dropped = before.mask - after.mask
        assert dropped.count == sum(update_counts(before.mask, fraction).values()) > 0
        weights = outcome_of(before).final
        for name, gone in dropped.items():
            kept = before.mask[name] & after.mask[name]
            assert not gone.any() or weights[name][gone].abs().max() <= weights[name][kept].abs().min()
    assert requests_of(experiment.study(0), outcome=with_biases) == requests  # seeds alone decide
    other = requests_of(experiment.study(1), outcome=with_biases)[1].run.mask
    assert other != segments[0].mask
    assert other.counts == segments[0].mask.counts


def test_random_growth_differs_between_updates() -> None:
    requests = requests_of(RecipeExperiment(tiny(**sparse("set", fraction=0.5))).study(0))
    masks = [request.run.mask for request in requests if request.branch == "segment"]
    grown = [(after - before).digest for before, after in pairwise(masks)]
    assert len(set(grown)) == len(grown)
