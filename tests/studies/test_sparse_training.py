"""AC/DC, GraNet, SRigL, Top-KAST and STR: masks, counts and where weights come from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tests.support.studies import drive, requests_of, with_biases
from tombola.experiments.experiment import count_runs
from tombola.experiments.methods.soft_threshold import learned_counts
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.acdc import acdc_search
from tombola.studies.dynamic_masks import cubic_schedule
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError
from tombola.zoo.models.description import Trained
from tombola.zoo.models.reparametrization import original_name


def recipe_of(method: str, scope: str = "erk", **options: Any) -> Any:
    section = {method.replace("-", "_"): options}
    search = {"levels": 1, "density": 0.2, "method": method, "scope": scope}
    return tiny(search=search, controls={"random": 1, "rewound": 1}, **section)


def trained(method: str, **options: Any) -> tuple[list[Run], Run]:
    """The segments and the ticket of one replicate; each number of runs is what the method announces."""
    recipe = recipe_of(method, **options)
    requests = requests_of(RecipeExperiment(recipe).study(0), outcome=with_biases)
    assert len(requests) * recipe.replicates == count_runs(recipe)
    segments = [request.run for request in requests if request.branch == "segment"]
    return segments, [request.run for request in requests if request.branch == "ticket"][-1]


def test_acdc_alternates_and_resets_the_optimizer_when_a_dense_phase_begins(dense: Run) -> None:
    masks = iter([dense.mask] * 2)

    def prune(outcome: Outcome, run: Run, level: int) -> Any:  # noqa: ARG001
        assert run.mask == dense.mask  # it never prunes a pruned network
        return next(masks)

    yielded, _ = drive(acdc_search(dense, [10, 20, 30], prune))
    runs = [requests[0].run for requests in yielded][1:]
    assert [run.last for run in runs] == [10, 20, 30, 60]
    for before, after in pairwise(runs):
        resumed = after.begin != 20
        assert after.start.trained == Trained(run=before.key, optimizer=resumed)


def test_acdc_has_exact_counts_in_every_sparse_phase() -> None:
    segments, ticket = trained("acdc", changes=3)
    assert [run.mask.density == 1 for run in segments] == [True, False, True, False, True]
    assert {run.mask.count for run in segments[1::2]} == {ticket.mask.count}
    assert ticket.mask.count == round(0.2 * ticket.mask.size)


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_granet_prunes_by_the_schedule_and_replaces_weights(density: float) -> None:
    segments, ticket = trained("granet", changes=4, density=density)
    masks = [run.mask for run in [*segments, ticket]]
    assert masks[0].count == round(density * masks[0].size)
    sizes, final = ({(n,): c for n, c in mask.counts.items()} for mask in (masks[0], masks[-1]))
    for step, mask in enumerate(masks):
        assert {(n,): c for n, c in mask.counts.items()} == cubic_schedule(sizes, final, step / 4)
    assert ticket.mask.count == round(0.2 * ticket.mask.size)
    regrown = [not after <= before for before, after in pairwise(masks)]
    assert regrown == [density < 1, True, True, False]  # nothing can be grown in a dense network; the cosine ends


def test_granet_refuses_to_start_below_its_goal() -> None:
    with pytest.raises(InputError, match=r"granet\.density"):
        RecipeExperiment(recipe_of("granet", changes=4, density=0.1))


def test_srigl_keeps_a_constant_fan_in() -> None:
    segments, ticket = trained("srigl", changes=4)
    masks = [run.mask for run in [*segments, ticket]]
    assert len({tuple(mask.counts.items()) for mask in masks}) == 1
    for before, after in pairwise(masks):
        assert before != after
        for kept in after.values():
            fan_in = [n for n in kept.flatten(1).sum(1).tolist() if n]
            assert max(fan_in) - min(fan_in) <= 1


@pytest.mark.parametrize("method", ["top-kast", "str"])
def test_the_mask_keeps_the_largest_weights_and_the_plain_network_goes_on_from_there(method: str) -> None:
    (segment,), ticket = trained(method)
    assert segment.last == ticket.begin == round(0.75 * ticket.last)
    assert ticket.start.trained is not None
    assert ticket.start.trained.through == segment.start.network
    assert ticket.mask.count == round(0.2 * ticket.mask.size)
    state = with_biases(RunRequest("segment", 1, segment)).final
    for name, kept in ticket.mask.items():
        weights = state[original_name(name)].abs()
        assert weights[kept].min() >= weights[~kept].max()
    if method == "str":
        assert segment.training.weight_decay > ticket.training.weight_decay


def test_if_the_parametrized_training_diverges_there_is_no_ticket() -> None:
    def outcome(request: RunRequest) -> Outcome:
        return outcome_of(request.run, diverged=request.branch == "segment")

    requests = requests_of(RecipeExperiment(recipe_of("top-kast")).study(0), outcome=outcome)
    assert [(r.branch, r.level) for r in requests if r.branch in ("ticket", "segment")] == [
        ("ticket", 0),
        ("segment", 1),
    ]


def test_learned_counts_are_scaled_to_the_exact_total() -> None:
    counts = learned_counts({("a",): 0, ("b",): 70, ("c",): 35}, 33, {"a": 50, "b": 100, "c": 50})
    assert sum(counts.values()) == 33
    assert counts[("b",)] == pytest.approx(2 * counts[("c",)], abs=2)
    assert torch.tensor(list(learned_counts({("a",): 0, ("b",): 0}, 4, {"a": 2, "b": 9}).values())).tolist() == [2, 2]
