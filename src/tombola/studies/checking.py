"""Checking: does a ticket still do what is claimed of it, when its batches come in another order?"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


def verification_runs(dense: Run, mask: Mask, level: int, order: int, reinit: Sequence[int] = ()) -> Study[None]:
    """Train the ticket that `mask` makes of `dense`, a mask of that level, beside the dense network and its control.

    All of them have the seed `order` for everything random in training. Ticket and dense network have the start of
    `dense`, the control has initial weights drawn by each seed of `reinit` (as in `tombola.studies.controls.reinit`).
    """
    whole = dense.model_copy(update={"seed": order})
    ticket = whole.masked(mask)
    controls = [RunRequest("reinit", level, ticket.reinitialised(seed), draw) for draw, seed in enumerate(reinit)]
    yield [RunRequest("ticket", 0, whole), RunRequest("ticket", level, ticket), *controls]
