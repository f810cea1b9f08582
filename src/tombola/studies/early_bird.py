"""Early-bird tickets: masks drawn while the dense network trains, once they have stopped changing."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from tombola.pruning.mask import Mask
from tombola.pruning.scopes import Group
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import Prune

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EarlyBirdPlan:
    """The iterations at which masks are drawn from the dense network in training, and when the search stops."""

    at: Sequence[int]
    window: int = 5
    """How many consecutive masks must agree."""
    tolerance: float = 0.1
    """The largest distance between any two of them; see `mask_distance`."""
    go_on: bool = False
    """Whether the ticket resumes from the weights that its mask was drawn from, as in the paper. Then the last mask
    should be drawn before the end of training."""
    groups: Collection[Group] | None = None
    """The groups of weights or units in which masks are compared, which are those that are pruned; all layers if
    None."""
    structure: Structure = UNSTRUCTURED


def early_bird_search(dense: Run, plan: EarlyBirdPlan, prune: Prune) -> Study[list[RunRequest]]:
    """Train the dense network, draw masks during training, and take the first mask that agrees with the ones before
    it (You et al. 2020, "Drawing Early-Bird Tickets", algorithm 1). If no mask does, take the last, with a warning.

    The paper's code compares the newest mask of channels with the others of the window. Here any two masks of the
    window are compared, in channels or other units that the structure prunes. Returns the dense network, trained
    separately, and the ticket, which starts with a new optimizer. The partly trained network that the mask was drawn
    from is requested as branch `drawn`, so that its row shows the iteration.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    masks: deque[Mask] = deque(maxlen=plan.window)
    rest = dense
    for k in plan.at:
        segment = rest.paused(k)
        outcome: Outcome = yield RunRequest("segment", 1, segment)
        if outcome.measures.diverged:
            return [ticket]
        masks.append(prune(outcome, segment, 1))
        del outcome
        if masks_agree(masks, plan):
            break
        rest = dense.resuming(segment)
    else:
        log.warning("no early-bird ticket: masks still differ by more than %g; using the last mask", plan.tolerance)
    yield RunRequest("drawn", 1, segment)
    run = dense.masked(masks[-1])
    found = RunRequest("ticket", 1, run.after(segment, begin=segment.last) if plan.go_on else run)
    yield found
    return [ticket, found]


def masks_agree(masks: Sequence[Mask], plan: EarlyBirdPlan) -> bool:
    """Whether the window is full and any two of its masks are within the tolerance."""
    return len(masks) == plan.window and all(
        mask_distance(a, b, plan.groups, plan.structure) <= plan.tolerance for a, b in combinations(masks, 2)
    )


def mask_distance(
    one: Mask, other: Mask, groups: Collection[Group] | None = None, structure: Structure = UNSTRUCTURED
) -> float:
    """The normalised Hamming distance: the fraction of these groups' units, such as channels, in which masks differ
    (You et al. 2020, section 3.2).

    Masks of density d are at most 2 min(d, 1 - d) apart, and unrelated ones about 2d(1 - d), so a given tolerance is
    easier to meet the further d is from a half.
    """
    compared = [(layer,) for layer in one.layers] if groups is None else groups
    differences = [structure.left(one, group) ^ structure.left(other, group) for group in compared]
    return sum(int(each.sum()) for each in differences) / sum(map(len, differences))
