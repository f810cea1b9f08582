"""Supermasks: subnetworks that are good without any weight being trained."""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


def supermask_search(
    dense: Run, scored: Run, found: Callable[[Outcome], Mask], drawn: Mask
) -> Study[list[RunRequest]]:
    """Find a subnetwork of the initial weights by training scores (edge-popup, Ramanujan et al. 2020, "What's Hidden
    in a Randomly Weighted Neural Network?", section 3), see how good it is untrained, then train it like any ticket.

    `scored` trains the scores, `found` reads the mask off what came of it, `drawn` is a random mask of as many
    weights. Untrained subnetworks are runs of no iterations: `supermask`, and `untrained`, the random one beside it.
    Where there are statistics of normalisation, these are as they were before training, and such networks then do
    badly. Returns the dense network and the ticket, the supermask on the initial weights, trained.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    outcome: Outcome = yield RunRequest("edge_popup", 1, scored)
    if outcome.measures.diverged:
        return [ticket]
    run = dense.masked(found(outcome))
    yield [RunRequest("supermask", 1, run.until(0)), RunRequest("untrained", 1, dense.masked(drawn).until(0))]
    trained = RunRequest("ticket", 1, run)
    yield trained
    return [ticket, trained]
