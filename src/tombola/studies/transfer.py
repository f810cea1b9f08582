"""Transfer: is a ticket found on one data set a ticket on another?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import weights_left
from tombola.pruning.scores.weights import uniform
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


def transfer(
    tickets: Sequence[RunRequest],
    target: Run,
    levels: Collection[int] | None = None,
    draws: int = 1,
    seed: Callable[[int, int], int] = lambda level, draw: draw,  # noqa: ARG005
) -> Study[None]:
    """Train the tickets of these levels (all if it is None) on other data (Morcos et al. 2019, "One ticket to win
    them all", section 3).

    `target` is the dense network's run there, from the initial weights that the tickets were found with. Beside each
    ticket, `draws` random masks with as many weights in each layer; at level 0, the dense network.
    """
    asks = [RunRequest("transfer", 0, target)]
    for ticket in tickets:
        if ticket.level == 0 or not (levels is None or ticket.level in levels):
            continue
        mask = carried(ticket.run.mask, target.mask)
        counts = weights_left(mask, [(name,) for name in mask])
        asks.append(RunRequest("transfer", ticket.level, target.masked(mask)))
        for draw in range(draws):
            random = keep_best(uniform(mask, seed(0, draw)), target.mask, counts)
            asks.append(RunRequest("transfer_random", ticket.level, target.masked(random), draw))
    yield asks


def carried(mask: Mask, full: Mask) -> Mask:
    """A mask on the network whose dense mask is `full`: of layers of another shape, which is the output layer where
    there are other classes, everything is left."""
    fits = {name: name in mask and mask[name].shape == whole.shape for name, whole in full.items()}
    return Mask({name: mask[name] if fits[name] else whole for name, whole in full.items()})
