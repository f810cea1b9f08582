"""Early-bird tickets: the mask is there long before training ends."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import Prune

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawing:
    """When masks are drawn from the dense network while it trains, and when to stop."""

    at: Sequence[int]
    """The iterations."""
    window: int = 5
    """How many of the last masks must agree."""
    tolerance: float = 0.1
    """The largest distance between any two of them that counts as agreement; see `distance`."""
    go_on: bool = False
    """Whether the ticket goes on from the weights at which its mask was drawn, as in the paper, and not from the
    initial weights. Then the last mask should be drawn before the end."""
    layers: Collection[str] | None = None
    """Where masks are compared: the layers that are pruned. All if it is None."""


def early_bird_search(dense: Run, drawing: Drawing, prune: Prune) -> Study[list[RunRequest]]:
    """Train the dense network, draw a mask every so often, and take the first that the last few agree on (You et al.
    2020, "Drawing Early-Bird Tickets", algorithm 1). Where they never do, the last is taken, with a warning.

    The paper's code compares the newest mask with the others of the window, of channels; here any two, of weights.
    Returns the dense network, trained by itself from beginning to end, and the ticket; what the mask was drawn from,
    the dense network some way on, is asked for as `drawn`, so that it has a row, whose iterations say when that was.
    A ticket that goes on from there begins with a new optimizer, as does one from the initial weights.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    last: deque[Mask] = deque(maxlen=drawing.window)
    going_on = dense
    for k in drawing.at:
        segment = going_on.paused(k)
        outcome: Outcome = yield RunRequest("segment", 1, segment)
        if outcome.measures.diverged:
            return [ticket]
        last.append(prune(outcome, segment, 1))
        if agree(last, drawing):
            break
        going_on = dense.resuming(segment)
    else:
        log.warning("no early bird: masks still differ by more than %g; the last is taken", drawing.tolerance)
    yield RunRequest("drawn", 1, segment)
    run = dense.masked(last[-1])
    found = RunRequest("ticket", 1, run.after(segment, begin=segment.last) if drawing.go_on else run)
    yield found
    return [ticket, found]


def agree(masks: Sequence[Mask], drawing: Drawing) -> bool:
    """Whether there are enough masks, and no two of them are further apart than the tolerance."""
    return len(masks) == drawing.window and all(
        distance(a, b, drawing.layers) <= drawing.tolerance for a, b in combinations(masks, 2)
    )


def distance(one: Mask, other: Mask, layers: Collection[str] | None = None) -> float:
    """The normalised Hamming distance: in what fraction of these layers' weights two masks differ (You et al. 2020).

    Masks of density d are at most 2 min(d, 1 - d) apart, unrelated ones about 2d(1 - d): a tolerance means less the
    further d is from a half.
    """
    names = one.keys() if layers is None else layers
    return sum(int((one[name] ^ other[name]).sum()) for name in names) / sum(one.sizes[name] for name in names)
