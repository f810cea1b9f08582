"""After pruning: what the weights left go back to, and where their training goes on.

All three ways train T - k iterations after each pruning, T being the length of the training (Renda et al. 2020,
"Comparing Rewinding and Fine-tuning in Neural Network Pruning", section 3).
"""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.runs.run import BaseRun, Run, SomeRun
from tombola.studies.request import RunRequest, Study

Retrain = Callable[[BaseRun, BaseRun, Mask], BaseRun]
"""(the dense network's run, the run whose weights were pruned, the mask of those left) -> the run of the ticket."""


def rewound_to(dense: SomeRun, k: int) -> Study[SomeRun]:
    """Train the first k iterations, the trunk, and return the dense network's run from there on (Frankle et al. 2020,
    "Linear Mode Connectivity and the Lottery Ticket Hypothesis", section 2). The optimizer begins anew at k."""
    if k == 0:
        return dense
    trunk = dense.until(k)
    yield RunRequest("trunk", 0, trunk)
    return dense.after(trunk, begin=k)


def rewind_weights(dense: BaseRun, trained: BaseRun, mask: Mask) -> BaseRun:  # noqa: ARG001
    """The same start as the dense network's: its initial weights, or those that the trunk left."""
    return dense.masked(mask)


def rewind_learning_rate(k: int) -> Retrain:
    """Weights stay as they were trained; learning rates and batches go back to iteration k (Renda et al. 2020)."""
    return lambda dense, trained, mask: dense.masked(mask).after(trained, begin=k)


def fine_tune(k: int) -> Retrain:
    """Weights stay as they were trained, and training goes on for T - k iterations at the last learning rate (Han et
    al. 2015)."""

    def retrain(dense: BaseRun, trained: BaseRun, mask: Mask) -> BaseRun:
        assert isinstance(dense, Run), "the length of a training of the user's own is not known"
        length = dense.training.length.iterations
        return dense.masked(mask).after(trained, begin=length, end=2 * length - k)

    return retrain
