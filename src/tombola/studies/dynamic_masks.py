"""Trainings whose mask changes, as a chain of runs with one mask each: gradual pruning, SET and RigL."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence

from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, removed_count
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study

NextMask = Callable[[Outcome, Run, int], Mask]
"""(the outcome of the last segment, its run, the iteration it ended at) -> the mask of the next segment."""

SegmentScores = Callable[[Outcome, Run, int], Mapping[str, Tensor]]
"""(the same) -> a score for every prunable weight, pruned or not."""

UpdateMask = Callable[[Mask, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, int]], Mask]
"""Replaces weights of a mask as `drop_and_grow` does."""


def train_in_segments(
    run: Run, at: Sequence[int], next_mask: NextMask, resets: Container[int] = ()
) -> Study[RunRequest]:
    """Train `run` and change its mask at each of the iterations `at`, which are in order and within the training.
    The optimizer is reset at those of them that are in `resets`.

    A weight that a new mask adds starts at zero, its value while it was pruned. Learning rates, batches and the
    optimizer continue across segments. The optimizer keeps no state of pruned weights, so added weights start with
    zero momentum, as in RigL's code (google-research/rigl, `reset_momentum`; there with `initial_acc_scale` times the
    gradient, by default 0).

    Requests the segments as branch `segment`, and the last, with the final mask, as the ticket of level 1, which is
    returned. If a segment diverges, the ticket resumes from it and diverges too.
    """
    rest = run
    for k in at:
        segment = rest.paused(k)
        outcome: Outcome = yield RunRequest("segment", 1, segment)
        if outcome.measures.diverged:  # perhaps before k, so its optimizer state may be from an earlier iteration
            rest = run.masked(segment.mask).after(segment, begin=k)
            break
        changed = run.masked(next_mask(outcome, segment, k))
        rest = changed.after(segment, begin=k) if k in resets else changed.resuming(segment)
        del outcome
    ticket = RunRequest("ticket", 1, rest)
    yield ticket
    return ticket


def gradual_search(
    dense: Run, at: Sequence[int], sizes: Counts, final: Counts, prune: Callable[[Outcome, Run, Counts], Mask]
) -> Study[list[RunRequest]]:
    """Prune during one training, at each of the iterations `at` and by decreasing amounts (Zhu & Gupta 2017, "To
    prune, or not to prune"). `prune` gets a segment's outcome, its run, and how many weights each group
    should keep.

    After a fraction x of the steps the sparsity is s (1 - (1 - x)³), where s is the sparsity of the `final` counts in
    groups of these `sizes`: the paper's schedule with initial sparsity 0. In the authors' code a pruned weight may
    come back until the schedule ends; here it never does. Returns the dense network, trained separately, and the
    ticket.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket

    def next_mask(outcome: Outcome, segment: Run, k: int) -> Mask:
        progress = (at.index(k) + 1) / len(at)
        return prune(outcome, segment, cubic_schedule(sizes, final, progress))

    return [ticket, (yield from train_in_segments(dense, at, next_mask))]


def cubic_schedule(sizes: Counts, final: Counts, progress: float) -> Counts:
    """How many weights each group keeps at this fraction of the schedule, from 0 to 1; exactly `final` at 1.

    >>> cubic_schedule({("fc",): 1000}, {("fc",): 200}, 0.5)
    {('fc',): 300}
    """
    return {group: size - round((size - final[group]) * (1 - (1 - progress) ** 3)) for group, size in sizes.items()}


def dynamic_search(
    dense: Run,
    start: Mask,
    at: Sequence[int],
    fraction: Callable[[int], float],
    drop: SegmentScores,
    grow: SegmentScores,
    update: UpdateMask | None = None,
) -> Study[list[RunRequest]]:
    """Train sparse, starting with the mask `start`; at each of the iterations `at`, replace that `fraction` of each
    layer's kept weights: those with the lowest scores `drop`, by the pruned ones with the highest scores `grow`.
    `update` does so; by default it is `drop_and_grow`.

    With a constant fraction and random growth this is SET (Mocanu et al. 2018, "Scalable training of artificial
    neural networks with adaptive sparse connectivity inspired by network science", box 1); with `cosine_decay`
    and growth by the gradient's magnitude it is RigL (Evci et al. 2020, "Rigging the Lottery", section 3). Returns
    the dense network, trained separately, and the ticket.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket

    def next_mask(outcome: Outcome, segment: Run, k: int) -> Mask:
        scores = drop(outcome, segment, k), grow(outcome, segment, k)
        return (update or drop_and_grow)(segment.mask, *scores, update_counts(segment.mask, fraction(k)))

    return [ticket, (yield from train_in_segments(dense.masked(start), at, next_mask))]


def cosine_decay(alpha: float, end: int) -> Callable[[int], float]:
    """alpha/2 · (1 + cos(πt / end)) at iteration t (Evci et al. 2020, section 3, "Update schedule")."""
    return lambda t: alpha / 2 * (1 + math.cos(math.pi * t / end))


def update_counts(mask: Mask, fraction: float) -> dict[str, int]:
    """How many weights to replace in each layer: that fraction, rounded, but at most the number of pruned weights."""
    return {name: min(removed_count(fraction, kept), mask.sizes[name] - kept) for name, kept in mask.counts.items()}


def drop_and_grow(
    mask: Mask, drop: Mapping[str, Tensor], grow: Mapping[str, Tensor], counts: Mapping[str, int]
) -> Mask:
    """Replace `counts` weights of each layer: drop the kept weights of lowest `drop`, and grow the pruned ones of
    highest `grow`. Every layer keeps its number of weights. Ties are broken by index.

    A dropped weight is not grown in the same update. In the paper and code of RigL it may be: the largest gradients
    are chosen among all weights that are not kept, including those just dropped. SET's paper drops a fraction of the
    smallest positive weights and a fraction of the largest negative weights; dropping by magnitude takes a fraction
    of both together. Raises `ValueError` if more weights should grow than are pruned, and if a score is not a number.
    """
    kept = mask.counts
    for name, count in counts.items():
        if not 0 <= count <= min(kept[name], mask.sizes[name] - kept[name]):
            raise ValueError(f"cannot replace {count} weights of {name}: {kept[name]} of {mask.sizes[name]} are kept")
    remaining = keep_best(drop, mask, {(name,): kept[name] - count for name, count in counts.items()})
    pruned = Mask({name: ~layer for name, layer in mask.items()})
    grown = keep_best(grow, pruned, {(layer,): counts.get(layer, 0) for layer in mask.layers})
    return remaining | grown
