from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.errors import raises_input_error
from tests.support.experiments import simulate
from tests.support.networks import BATCH_NORM
from tests.support.outcomes import outcome_of, random_mask
from tests.support.recipes import tiny
from tests.support.studies import drive
from tombola.experiments.experiment import count_runs
from tombola.experiments.mask_source import ExactMasks
from tombola.experiments.planning.expected_runs import expected_runs, why_at_most
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.report.prose import warnings
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.stats.summarise import build_summary
from tombola.studies.lottery_pools import PoolPlan, lottery_pools
from tombola.studies.rehearsal import MadeUp
from tombola.studies.request import RunRequest
from tombola.utils.duration import Duration

POOLS = {"shares": [0.25, 0.5], "candidates": 2}
TWO_LEVELS = {"levels": 2, "rate": 0.4, "output_rate": 0.2}


def tickets_of(dense: Run, levels: int) -> list[RunRequest]:
    masks = [dense.mask, *(random_mask(dense, 0.5**level) for level in range(1, levels + 1))]
    return [RunRequest("ticket", level, dense.masked(mask)) for level, mask in enumerate(masks)]


def plan_of(tickets: list[RunRequest], error: Callable[[Outcome], float | None], **changes: Any) -> PoolPlan:
    def same_counts(one: Outcome, other: Outcome, share: float, mask: Mask) -> Mask:  # noqa: ARG001
        return mask

    plan = PoolPlan(tickets, [0.25, 0.5], None, same_counts, error, Duration(iterations=3))
    return replace(plan, **changes)


def test_the_nearest_levels_come_first_and_denser_before_sparser(dense: Run) -> None:
    plan = plan_of(tickets_of(dense, 4), lambda _: 0.0)
    assert [ticket.level for ticket in plan.neighbours(2)] == [1, 3, 0, 4]
    assert [ticket.level for ticket in plan.neighbours(0)] == [1, 2, 3, 4]
    assert [ticket.level for ticket in replace(plan, candidates=1).neighbours(4)] == [3]


def errors_by_key(errors: dict[str, float]) -> Callable[[RunRequest], Outcome]:
    def outcome(request: RunRequest) -> Outcome:
        return replace(outcome_of(request.run), seconds=errors.get(request.run.key, 0.5))

    return outcome


def test_weights_are_kept_only_if_the_validation_error_is_lower(dense: Run) -> None:
    tickets = tickets_of(dense, 2)
    _, one, _ = (ticket.run for ticket in tickets)
    at, three = dense.last, Duration(iterations=3)

    def between(current: Run, other: RunRequest, share: float) -> Run:
        return one.between(current, other.run, share, at, three)

    kept = one.averaging([one, tickets[0].run], at, three, weights=(0.5, 0.5))
    errors = {between(one, tickets[0], 0.5).key: 0.4, between(kept, tickets[2], 0.25).key: 0.4}
    plan = plan_of(tickets, lambda outcome: outcome.seconds)  # made-up outcomes say their error there
    yielded, _ = drive(lottery_pools(plan), None, errors_by_key(errors))
    at_level = [
        request for asked in yielded for request in asked if request.level == 1 and request.branch != "ticket"
    ]
    assert [request.run.key for request in at_level] == [
        between(one, tickets[0], 0.25).key,
        between(one, tickets[0], 0.5).key,
        kept.key,
        between(kept, tickets[2], 0.25).key,  # as good as the one before, which is not better
        between(kept, tickets[2], 0.5).key,
        kept.key,
    ]
    assert [request.branch for request in at_level] == ["interpolated"] * 5 + ["pool"]
    pools = [request.run for asked in yielded for request in asked if request.branch == "pool"]
    assert pools[0] == dense.averaging([dense], at)  # nothing was better: its own weights
    assert pools[0].start.trained.statistics == Duration()
    assert kept.start.trained.averaged == ((dense.key, 0.5),)


def test_tickets_that_diverged_are_left_out(dense: Run) -> None:
    tickets = tickets_of(dense, 2)

    def outcome(request: RunRequest) -> Outcome:
        return outcome_of(request.run, diverged=request.run.key == tickets[2].run.key)

    yielded, _ = drive(lottery_pools(plan_of(tickets, lambda _: 0.5)), None, outcome)
    requests = [request for asked in yielded for request in asked]
    assert not any(tickets[2].run.key in request.run.start.parents for request in requests)
    assert [request.level for request in requests if request.branch == "pool"] == [0, 1]


SEARCHES: dict[str, dict[str, Any]] = {
    "layer": {"output_rate": 0.2},
    "global": {"scope": "global"},
    "row": {"scope": "row"},
    "neurons": {"structure": "neurons"},
}


@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
def test_masks_have_exactly_the_counts_of_the_ticket(options: dict[str, Any]) -> None:
    experiment, masks = RecipeExperiment(tiny(search={"levels": 1, "rate": 0.3} | options)), ExactMasks()
    dense, pruner = experiment.dense(0), experiment.workload.pruner
    like = masks.prune(experiment.workload, dense, outcome_of(dense), 1)
    ends = [outcome_of(dense.masked(like)), outcome_of(dense.model_copy(update={"seed": 7}))]
    for share in (0.05, 0.8):
        mask = masks.prune_between(pruner, dense.mask, *ends, share, like)
        assert pruner.units_left(mask) == pruner.units_left(like)
        assert mask.count == like.count < dense.mask.count
    assert mask != like  # most of the weights are those of the other network


def test_the_largest_interpolated_weights_are_kept() -> None:
    experiment = RecipeExperiment(tiny(search={"levels": 1, "rate": 0.3, "scope": "global", "score": "random"}))
    dense = experiment.dense(0)
    one, other = (outcome_of(dense.model_copy(update={"seed": seed})) for seed in (7, 8))
    like = random_mask(dense, 0.3)
    mask = ExactMasks().prune_between(experiment.workload.pruner, dense.mask, one, other, 0.25, like)
    weights = {name: (0.75 * one.final[name] + 0.25 * other.final[name]).abs() for name in mask}
    kept, pruned = (torch.cat([weights[n][k == on] for n, k in mask.items()]) for on in (True, False))
    assert len(kept) == like.count
    assert kept.min() >= pruned.max()


def test_pools_are_chosen_by_the_final_weights_on_validation_examples(dense: Run) -> None:
    error = RecipeExperiment(tiny(pools=POOLS))._validation_error
    assert error(outcome_of(dense)) == pytest.approx(1 - 0.8)  # 0.9 at early stop, 0.91 on the test examples
    assert error(outcome_of(dense, diverged=True)) == math.inf
    assert error(MadeUp.of(dense, dense.key)) is None


def test_the_maximum_is_expected_and_counted() -> None:
    recipe = tiny(pools=POOLS, controls={}, replicates=1)
    expected = [each.request for _, each in expected_runs(RecipeExperiment(recipe))]
    assert len({request.request_id for request in expected}) == count_runs(recipe)
    assert why_at_most(recipe)
    counts = {request.run.mask.count for request in expected if request.level == 2}
    assert len(counts) == 1


def test_pools_have_rows_and_batch_norm_is_recomputed(tmp_path: Path) -> None:
    changes = {"model": BATCH_NORM, "search": {"levels": 1, "rate": 0.5, "output_rate": 0.4}, "controls": {}}
    recipe = tiny(pools={"shares": [0.5], "statistics": "2it"}, replicates=1, **changes)
    results, recorder = simulate(recipe, tmp_path)
    interpolated = [request.run for _, request in recorder.answers if request.branch == "interpolated"]
    assert {run.start.trained.statistics for run in interpolated} == {Duration(iterations=2)}
    rows = Counter((row.branch, row.level) for row in results.rows)
    assert rows == {(branch, level): 1 for branch in ("ticket", "pool") for level in (0, 1)}
    weights = {(row.branch, row.level): row.weights for row in results.rows}
    assert weights["pool", 1] == weights["ticket", 1]
    assert any("Rows named pool" in line for line in warnings(build_summary(results)))


def test_without_batch_norm_nothing_is_recomputed() -> None:
    recipe = tiny(pools=POOLS, search=TWO_LEVELS, controls={})
    runs = [each.request.run for _, each in expected_runs(RecipeExperiment(recipe))]
    assert not any(run.start.trained and run.start.trained.statistics != Duration() for run in runs)


def test_invalid_pools_are_refused() -> None:
    with raises_input_error("pools", "iterative"):
        tiny(pools=POOLS, search={"levels": 1, "rate": 0.5, "method": "set"})
    with raises_input_error("pools.shares", "increase"):
        tiny(pools={"shares": [0.5, 0.25]})
    with raises_input_error("pools.shares", "less than 1"):
        tiny(pools={"shares": [0.5, 1.0]})
    with raises_input_error("pools.statistics", "500it"):
        tiny(pools={"statistics": 5})
