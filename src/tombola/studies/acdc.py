"""AC/DC: training that alternates between the dense network and a pruned one."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import train_in_segments
from tombola.studies.request import RunRequest, Study
from tombola.studies.search import Prune


def acdc_search(dense: Run, at: Sequence[int], prune: Prune) -> Study[list[RunRequest]]:
    """Prune the network at the first of the iterations `at`, train it dense again from the second, and so on (Peste
    et al. 2021, "AC/DC: Alternating Compressed/DeCompressed Training of Deep Neural Networks"). `at` has an odd
    length, so the last phase is sparse; before the first the network is dense.

    Each pruning starts from the dense network, so every mask has the counts of level 1. When a dense phase begins,
    pruned weights are zero, and the optimizer is reset, as in the authors' experiments (their option
    `reset_momentum_after_recycling`); when a sparse one begins, kept weights keep their momentum. Returns the dense
    network, trained separately, and the ticket.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket

    def next_mask(outcome: Outcome, segment: Run, k: int) -> Mask:
        return dense.mask if k in decompressions else prune(outcome, segment, 1)

    decompressions = at[1::2]
    return [ticket, (yield from train_in_segments(dense, at, next_mask, resets=decompressions))]
