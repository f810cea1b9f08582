"""Lottery Pools: tickets interpolated with those of other levels (Yin et al. 2023, "Lottery Pools: Winning More by
Interpolating Tickets without Increasing Training or Inference Cost", arXiv:2208.10842)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.utils.duration import Duration


@dataclass(frozen=True)
class PoolPlan:
    """How tickets are interpolated."""

    tickets: Sequence[RunRequest]
    """The result of the search, the dense network first."""
    shares: Sequence[float]
    """The interpolation coefficients to try: the share of the other ticket."""
    candidates: int | None
    """How many other tickets are tried; all if None."""
    prune: Callable[[Outcome, Outcome, float, Mask], Mask]
    """(two outcomes, a share, a mask) -> the mask of the largest interpolated weights, as many as that mask keeps."""
    error: Callable[[Outcome], float | None]
    """The error of the final weights on the validation examples, because the test set must not choose anything; None
    for a made-up outcome."""
    statistics: Duration
    """See `Trained.statistics`."""

    def neighbours(self, level: int) -> list[RunRequest]:
        """The tickets of other levels, the nearest first, of two equally near ones the denser."""
        others = [ticket for ticket in self.tickets if ticket.level != level]
        return sorted(others, key=lambda ticket: abs(ticket.level - level))[: self.candidates]


def lottery_pools(plan: PoolPlan) -> Study[None]:
    """For each ticket, the dense network included, evaluate `pool`: its final weights, interpolated greedily with
    those of other tickets (algorithm 1). Nothing is trained."""
    for ticket in plan.tickets:
        yield from _pool(plan, ticket)


def _pool(plan: PoolPlan, ticket: RunRequest) -> Study[None]:
    """Interpolate the current weights with each other ticket in turn, at every share; prune to the ticket's number of
    weights; and continue with the best, if its validation error is lower than the current one."""
    run, level = ticket.run, ticket.level
    assert isinstance(run, Run), "the end of a custom training is unknown"
    current, at = run, run.last
    outcome: Outcome = yield ticket
    if outcome.measures.diverged:
        return
    lowest = plan.error(outcome)
    for neighbour in plan.neighbours(level):
        other: Outcome = yield neighbour
        if other.measures.diverged:
            continue
        masks = [plan.prune(outcome, other, share, run.mask) for share in plan.shares]
        del other
        tried = [
            run.masked(mask).between(current, neighbour.run, share, at, plan.statistics)
            for mask, share in zip(masks, plan.shares, strict=True)
        ]
        found: list[Outcome] = yield [RunRequest("interpolated", level, each) for each in tried]
        errors = [plan.error(each) for each in found]
        best = min(range(len(errors)), key=lambda index: errors[index] or 0.0)
        error, share = errors[best], plan.shares[best]
        if lowest is None or error is None or error < lowest:
            lowest, ends = error, (current, neighbour.run)
            current = tried[best].averaging(ends, at, plan.statistics, weights=(1 - share, share))
            outcome = yield RunRequest("interpolated", level, current)
    yield RunRequest("pool", level, run.averaging([run], at) if current is run else current)
