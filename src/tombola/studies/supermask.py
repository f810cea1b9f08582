"""Supermasks: subnetworks found by training scores instead of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


@dataclass(frozen=True)
class SupermaskPlan:
    """How a supermask is found, and with which weights it is evaluated and trained."""

    scored: Run
    """Trains a score for each weight."""
    mask_of: Callable[[Outcome], Mask]
    """Reads the mask from an outcome of `scored`."""
    initial: Run
    """The run that trains the subnetworks, before it is masked."""
    random: Mask | None = None
    """A random mask of the same size. By default, the one that the scores make before they are trained."""
    computed: bool = False
    """Whether the supermask is evaluated with the weights and statistics that `scored` computed, rather than with
    those of `initial`; without `random`, the mask to compare with is, too."""


def supermask_search(dense: Run, plan: SupermaskPlan) -> Study[list[RunRequest]]:
    """Find a subnetwork of the initial weights by training scores (edge-popup, Ramanujan et al. 2020, "What's Hidden
    in a Randomly Weighted Neural Network?"), evaluate it untrained, then train it as a ticket.

    The untrained subnetworks are runs with no iterations: `supermask`, and `untrained` for the random mask. Returns
    the dense network and the ticket: the supermask with the initial weights, trained.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    outcome: Outcome = yield RunRequest("scores", 1, plan.scored)
    if outcome.measures.diverged:
        return [ticket]
    run = plan.initial.masked(plan.mask_of(outcome))
    if plan.random is None:
        before = plan.scored.until(0)
        outcome = yield RunRequest("scores", 1, before)
        untrained = _evaluated(plan.initial.masked(plan.mask_of(outcome)), before)
    else:
        untrained = _evaluated(plan.initial.masked(plan.random), None)
    del outcome
    supermask = _evaluated(run, plan.scored if plan.computed else None)
    yield [RunRequest("supermask", 1, supermask), RunRequest("untrained", 1, untrained)]
    trained = RunRequest("ticket", 1, run)
    yield trained
    return [ticket, trained]


def _evaluated(run: Run, scored: Run | None) -> Run:
    """A run that only evaluates: the initial weights of `run`, or those that `scored` computed."""
    return run.until(0) if scored is None else run.after(scored, begin=0, end=0)
