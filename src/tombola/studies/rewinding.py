"""Rewinding: which weights and which iteration a pruned network resumes from.

All three methods train T - k iterations after each pruning, T being the length of the training (Renda et al. 2020,
"Comparing Rewinding and Fine-tuning in Neural Network Pruning", section 3).
"""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run, SomeRun
from tombola.studies.request import RunRequest, Study

Retrain = Callable[[BaseRun, BaseRun, Mask], BaseRun]
"""(the dense network's run, the run whose weights were pruned, the new mask) -> the run of the ticket."""


def train_trunk(dense: SomeRun, k: int) -> Study[SomeRun]:
    """Train the first k iterations, the trunk, and return the rest of the dense network's run (Frankle et al. 2020,
    "Linear Mode Connectivity and the Lottery Ticket Hypothesis", section 2). The optimizer is reset at k."""
    if k == 0:
        return dense
    trunk = dense.until(k)
    yield RunRequest("trunk", 0, trunk)
    return dense.after(trunk, begin=k)


def train_to_mark(dense: BaseRun) -> Study[tuple[BaseRun, int]]:
    """Train until the user's function calls `mark()`. Returns the rest of the dense network's run, and the
    iteration."""
    trunk = dense.until_mark()
    outcome: Outcome = yield RunRequest("trunk", 0, trunk)
    k = outcome.measures.iterations
    return dense.after(trunk, begin=k), k


def rewind_weights(dense: BaseRun, trained: BaseRun, mask: Mask) -> BaseRun:  # noqa: ARG001
    """Start like the dense network: with its initial weights, or with those at the end of the trunk."""
    return dense.masked(mask)


def rewind_learning_rate(k: int) -> Retrain:
    """Keep the trained weights; learning rates and batches go back to iteration k (Renda et al. 2020)."""
    return lambda dense, trained, mask: dense.masked(mask).after(trained, begin=k)


def fine_tune(k: int) -> Retrain:
    """Keep the trained weights and train for T - k more iterations at the last learning rate (Han et al. 2015)."""

    def retrain(dense: BaseRun, trained: BaseRun, mask: Mask) -> BaseRun:
        assert isinstance(dense, Run), "the length of a custom training is unknown"
        length = dense.training.length.iterations
        return dense.masked(mask).after(trained, begin=length, end=2 * length - k)

    return retrain
