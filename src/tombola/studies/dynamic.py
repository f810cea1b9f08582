"""Dynamic sparse training: sparse from the beginning to the end, while which weights are left changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import removed
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.segments import Scores, in_segments


@dataclass(frozen=True)
class Rewiring:
    """When weights are dropped and others grown, how many, and which."""

    at: Sequence[int]
    """The iterations."""
    share: Callable[[int], float]
    """At an iteration, the fraction of each layer's weights that move."""
    drop: Scores
    """The lowest are dropped."""
    grow: Scores
    """The highest are grown."""


def dynamic_search(dense: Run, start: Mask, rewiring: Rewiring) -> Study[list[RunRequest]]:
    """Train sparse from the mask `start` on, rewiring on the way.

    With a constant share and random growth it is SET (Mocanu et al. 2018, "Scalable training of artificial neural
    networks with adaptive sparse connectivity inspired by network science", algorithm 1); with `annealed` shares and
    growth by the gradient's magnitude it is RigL (Evci et al. 2020, "Rigging the Lottery", section 3). Returns the
    dense network, trained by itself, and what came of the sparse training.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket

    def change(outcome: Outcome, segment: Run, k: int) -> Mask:
        drop, grow = (scores(outcome, segment, k) for scores in (rewiring.drop, rewiring.grow))
        return regrow(segment.mask, drop, grow, moving(segment.mask, rewiring.share(k)))

    return [ticket, (yield from in_segments(dense.masked(start), rewiring.at, change))]


def annealed(alpha: float, end: int) -> Callable[[int], float]:
    """alpha/2 · (1 + cos(πt / end)) at iteration t (Evci et al. 2020, section 3, "Update schedule")."""
    return lambda t: alpha / 2 * (1 + math.cos(math.pi * t / end))


def moving(mask: Mask, share: float) -> dict[str, int]:
    """How many weights of each layer move: that share of them, rounded, but no more than there are places free."""
    return {name: min(removed(share, left), mask.sizes[name] - left) for name, left in mask.counts.items()}


def regrow(mask: Mask, drop: Mapping[str, Tensor], grow: Mapping[str, Tensor], counts: Mapping[str, int]) -> Mask:
    """In each layer, `counts` of the weights left go, those of lowest `drop`, and as many come, those of highest
    `grow` among the ones that were pruned; so every layer keeps its number of weights. Equal scores are settled by
    index.

    What is dropped is not grown in the same change. In the paper's description and code of RigL it may be: among all
    weights that are not kept, those just dropped included, the largest gradients win. SET's paper drops the smallest
    positive and the largest negative weights, a share of each; by magnitude it is a share of both together.
    Raises `ValueError` where more should grow than there are places, and when a score is not a number.
    """
    left = mask.counts
    for name, count in counts.items():
        if not 0 <= count <= min(left[name], mask.sizes[name] - left[name]):
            raise ValueError(f"{count} weights of {name} cannot move: {left[name]} of {mask.sizes[name]} are left")
    kept = keep_best(drop, mask, {(name,): left[name] - count for name, count in counts.items()})
    places = Mask({name: ~there for name, there in mask.items()})
    grown = keep_best(grow, places, {(name,): counts.get(name, 0) for name in mask})
    return kept | grown
