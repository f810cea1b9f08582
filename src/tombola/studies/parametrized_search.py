"""Trainings through a parametrization that finds a mask, then of the network with this mask."""

from __future__ import annotations

from collections.abc import Callable

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


def parametrized_search(dense: Run, parametrized: Run, mask_of: Callable[[Outcome], Mask]) -> Study[list[RunRequest]]:
    """Train `parametrized`, the network of `dense` with a parametrization, which ends before the training does; read
    the mask from its outcome with `mask_of`; train the plain network with this mask from there to the end.

    The plain network starts with the weights that the parametrization computed, zero where the mask keeps weights
    that it had pruned. Batches and learning rates continue; the optimizer is reset, as its state belongs to other
    tensors. Returns the dense network, trained separately, and the ticket, if the first training did not diverge.
    """
    ticket = RunRequest("ticket", 0, dense)
    yield ticket
    outcome: Outcome = yield RunRequest("segment", 1, parametrized)
    if outcome.measures.diverged:
        return [ticket]
    rest = dense.masked(mask_of(outcome)).after(parametrized, begin=parametrized.last)
    del outcome
    found = RunRequest("ticket", 1, rest)
    yield found
    return [ticket, found]
