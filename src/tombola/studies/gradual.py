"""Gradual pruning: the weights go while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tombola.pruning.mask import Mask
from tombola.pruning.scopes import Counts
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.segments import in_segments

PruneTo = Callable[[Outcome, Run, Counts], Mask]
"""(what came of the training so far, its last segment, how many weights each group keeps) -> the smaller mask."""


def gradual_search(
    dense: Run, at: Sequence[int], sizes: Counts, final: Counts, prune: PruneTo
) -> Study[list[RunRequest]]:
    """Prune in one training, quickly at first and slower and slower, at each of the iterations `at` (Zhu & Gupta
    2017, "To prune, or not to prune", section 3).

    After part x of the changes the sparsity is s (1 - (1 - x)³), s being that of the `final` counts of groups of
    these `sizes`: equation 1, from no sparsity. In the paper's code a pruned weight may come back until the schedule
    ends; here it is gone. Returns the dense network, trained by itself, and what came of the pruned training.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket

    def change(outcome: Outcome, segment: Run, k: int) -> Mask:
        part = (at.index(k) + 1) / len(at)
        return prune(outcome, segment, on_the_way(sizes, final, part))

    return [ticket, (yield from in_segments(dense, at, change))]


def on_the_way(sizes: Counts, final: Counts, part: float) -> Counts:
    """How many weights each group keeps after a part of the schedule, from 0 to 1; exact at its end.

    >>> on_the_way({("fc",): 1000}, {("fc",): 200}, 0.5)
    {('fc',): 300}
    """
    return {group: size - round((size - final[group]) * (1 - (1 - part) ** 3)) for group, size in sizes.items()}
