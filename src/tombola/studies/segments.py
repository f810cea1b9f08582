"""Segments: a training whose mask changes on the way, each stretch between two changes a run of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study

Change = Callable[[Outcome, Run, int], Mask]
"""(what came of the training so far, its last segment, the iteration it stands at) -> the mask from there on."""

Scores = Callable[[Outcome, Run, int], Mapping[str, Tensor]]
"""(the same) -> a score for every prunable weight, pruned or not."""


def in_segments(run: Run, at: Sequence[int], change: Change) -> Study[RunRequest]:
    """Train `run` and change its mask at each of the iterations `at`, which are in order and within the training.

    A weight that a change brings back starts at zero, because that is what it was while it was pruned. Learning
    rates, batches and the optimizer go on as if nothing had happened. Of weights that were pruned the optimizer
    remembers nothing: those that come begin with zero momentum, as in RigL's code (google-research/rigl,
    `reset_momentum`; there with `initial_acc_scale` times the gradient, which is 0 if it is not given).

    Asks for the segments under the branch `segment`, and for the last, in which the mask is final, as the ticket of
    level 1, which is returned. Where a segment diverges, the ticket goes on from there and diverges too.
    """
    going_on = run
    for k in at:
        segment = going_on.paused(k)
        outcome: Outcome = yield RunRequest("segment", 1, segment)
        if outcome.measures.diverged:  # maybe before k: its optimizer would stand elsewhere
            going_on = run.masked(segment.mask).after(segment, begin=k)
            break
        going_on = run.masked(change(outcome, segment, k)).resuming(segment)
    ticket = RunRequest("ticket", 1, going_on)
    yield ticket
    return ticket


def evenly(begin: int, end: int, parts: int) -> list[int]:
    """The ends of so many equal parts of the iterations from `begin` to `end`, rounded.

    >>> evenly(0, 10, 4)
    [2, 5, 8, 10]
    """
    return [round(begin + (end - begin) * part / parts) for part in range(1, parts + 1)]
