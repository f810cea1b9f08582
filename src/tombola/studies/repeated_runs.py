"""The runs of a verification: a ticket trained again with another batch order, and its controls."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.pruning.mask import Mask
from tombola.runs.run import BaseRun
from tombola.studies.request import RunRequest, Study


def verification_runs(dense: BaseRun, mask: Mask, level: int, order: int, reinit: Sequence[int] = ()) -> Study[None]:
    """Train the ticket of `dense` with `mask`, a mask of this level; the dense network; and reinitialisations.

    The seed `order` decides everything random in all these trainings. Ticket and dense network start like `dense`;
    the controls start from initial weights drawn with each seed of `reinit` (see `tombola.studies.controls.reinit`).
    """
    reordered = dense.model_copy(update={"seed": order})
    ticket = reordered.masked(mask)
    controls = [RunRequest("reinit", level, ticket.reinitialised(seed), draw) for draw, seed in enumerate(reinit)]
    yield [RunRequest("ticket", 0, reordered), RunRequest("ticket", level, ticket), *controls]
