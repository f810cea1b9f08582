"""Supermasks: subnetworks that are good without any weight being trained."""

from __future__ import annotations

from collections.abc import Callable

from tombola.mask import Mask
from tombola.outcome import Outcome
from tombola.run import Run
from tombola.studies import Ask, Study


def supermask_search(dense: Run, scored: Run, found: Callable[[Outcome], Mask], drawn: Mask) -> Study[list[Ask]]:
    """Find a subnetwork of the initial weights by training scores (edge-popup, Ramanujan et al. 2020, "What's Hidden
    in a Randomly Weighted Neural Network?", section 3), see how good it is untrained, then train it like any ticket.

    `scored` trains the scores, `found` reads the mask off what came of it, `drawn` is a random mask of as many
    weights. Untrained subnetworks are runs of no iterations: `supermask`, and `untrained`, the random one beside it.
    Where there are statistics of normalisation, these are as they were before training, and such networks then do
    badly. Returns the dense network and the ticket, the supermask on the initial weights, trained.
    """
    ticket = Ask("ticket", 0, dense)
    yield ticket
    outcome: Outcome = yield Ask("edge_popup", 1, scored)
    if outcome.measures.diverged:
        return [ticket]
    run = dense.masked(found(outcome))
    yield [Ask("supermask", 1, run.until(0)), Ask("untrained", 1, dense.masked(drawn).until(0))]
    trained = Ask("ticket", 1, run)
    yield trained
    return [ticket, trained]
