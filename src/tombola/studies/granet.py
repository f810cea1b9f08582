"""GraNet: gradual pruning in which every step also replaces some of the remaining weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, weights_left
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import (
    SegmentScores,
    cubic_schedule,
    drop_and_grow,
    train_in_segments,
    update_counts,
)
from tombola.studies.request import RunRequest, Study


def granet_search(
    dense: Run,
    start: Mask,
    at: Sequence[int],
    final: Counts,
    fraction: Callable[[int], float],
    drop: SegmentScores,
    grow: SegmentScores,
) -> Study[list[RunRequest]]:
    """Train from the mask `start`, which may be dense. At each of the iterations `at`, prune the weights of lowest
    `drop` to the count of the cubic schedule, `final` at the last; then replace that `fraction` of each layer's
    remaining weights, "zero-cost neuroregeneration" (Liu et al. 2021, "Sparse Training via Boosting Pruning
    Plasticity with Neuroregeneration"): those of lowest `drop`, by the pruned ones of highest `grow`.

    A weight that the schedule has just pruned may be grown in the same step, as in the authors' code. One that is
    dropped to be replaced may not (see `drop_and_grow`); in their code it may. Returns the dense network, trained
    separately, and the ticket.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    sizes = weights_left(start, [*final])

    def next_mask(outcome: Outcome, segment: Run, k: int) -> Mask:
        magnitudes, gradients = drop(outcome, segment, k), grow(outcome, segment, k)
        progress = (at.index(k) + 1) / len(at)
        pruned = keep_best(magnitudes, segment.mask, cubic_schedule(sizes, final, progress))
        return drop_and_grow(pruned, magnitudes, gradients, update_counts(pruned, fraction(k)))

    return [ticket, (yield from train_in_segments(dense.masked(start), at, next_mask))]
