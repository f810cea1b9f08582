"""Search: the paper's algorithm, iterative or one-shot pruning of trained networks."""

from __future__ import annotations

from collections.abc import Callable, Generator

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.request import RunRequest, Study
from tombola.studies.rewinding import Retrain, rewind_weights

Prune = Callable[[Outcome, BaseRun, int], Mask]
"""(the outcome of a training, the run with the mask to prune, a level) -> the smaller mask of that level."""


def iterative_search(
    dense: BaseRun, levels: int, prune: Prune, retrain: Retrain = rewind_weights
) -> Generator[RunRequest, Outcome, list[RunRequest]]:
    """Train, prune, reset the kept weights to their initial values, and repeat (Frankle & Carbin 2019, section 1).

    Every run has the initial weights of `dense`, which is the reset, unless `retrain` does something else.
    Returns the tickets of all levels reached, the dense network first; the search ends early if a training diverges.
    """
    ticket = RunRequest("ticket", 0, dense)
    tickets = [ticket]
    while True:
        outcome = yield ticket
        if ticket.level == levels or outcome.measures.diverged:
            return tickets
        mask = prune(outcome, ticket.run, ticket.level + 1)
        del outcome  # otherwise every study would keep these weights in memory while the next ticket trains
        ticket = RunRequest("ticket", ticket.level + 1, retrain(dense, ticket.run, mask))
        tickets.append(ticket)


def one_shot_search(
    dense: BaseRun, levels: int, prune: Prune, retrain: Retrain = rewind_weights
) -> Study[list[RunRequest]]:
    """Train the dense network once and prune it to each density (Frankle & Carbin 2019, sections 1 and 2).

    The numbers of weights are exactly those of `iterative_search` with the same `prune`.
    """
    ticket = RunRequest("ticket", 0, dense)
    outcome: Outcome = yield ticket
    if outcome.measures.diverged:
        return [ticket]
    tickets = one_shot_requests(dense, outcome, levels, prune, "ticket", retrain)
    del outcome
    yield tickets
    return [ticket, *tickets]


def one_shot_requests(
    dense: BaseRun, outcome: Outcome, levels: int, prune: Prune, branch: str, retrain: Retrain = rewind_weights
) -> list[RunRequest]:
    """The dense network pruned to the density of each level, always by the same trained weights."""
    requests = []
    mask = dense.mask
    for level in range(1, levels + 1):
        mask = prune(outcome, dense.masked(mask), level)
        requests.append(RunRequest(branch, level, retrain(dense, dense, mask)))
    return requests
