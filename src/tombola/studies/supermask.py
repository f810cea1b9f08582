"""Supermasks: subnetworks found by training scores instead of weights."""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


def supermask_search(
    dense: Run, scored: Run, supermask_of: Callable[[Outcome], Mask], random: Mask
) -> Study[list[RunRequest]]:
    """Find a subnetwork of the initial weights by training scores (edge-popup, Ramanujan et al. 2020, "What's Hidden
    in a Randomly Weighted Neural Network?", section 3), evaluate it untrained, then train it as a ticket.

    `scored` trains the scores, `supermask_of` reads the mask from its outcome, `random` is a random mask of the same
    size. The untrained subnetworks are runs with no iterations: `supermask`, and `untrained` for the random mask.
    Their normalisation statistics are the initial ones, so untrained networks with batch normalisation perform badly.
    Returns the dense network and the ticket: the supermask with the initial weights, trained.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    outcome: Outcome = yield RunRequest("edge_popup", 1, scored)
    if outcome.measures.diverged:
        return [ticket]
    run = dense.masked(supermask_of(outcome))
    del outcome
    yield [RunRequest("supermask", 1, run.until(0)), RunRequest("untrained", 1, dense.masked(random).until(0))]
    trained = RunRequest("ticket", 1, run)
    yield trained
    return [ticket, trained]
