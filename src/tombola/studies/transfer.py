"""Transfer: tickets trained on a dataset other than the one that they were found on."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tombola.pruning.mask import Mask
from tombola.pruning.random_mask import RandomMask, random_mask
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.runs.run import Run
from tombola.studies.controls import ControlSeed
from tombola.studies.request import RunRequest, Study


def transfer(
    tickets: Sequence[RunRequest],
    target: Run,
    levels: Collection[int] | None,
    draws: int,
    seed: ControlSeed,
    random_mask: RandomMask = random_mask,
    structure: Structure = UNSTRUCTURED,
) -> Study[None]:
    """Train the tickets of these levels (all if None) on other data (Morcos et al. 2019, "One ticket to win them
    all", section 3).

    `target` is the dense network's run on that data, with the initial weights that the tickets were found with. It is
    trained as level 0. For each ticket, `draws` random masks are also trained, with the same number of weights in
    each layer, or of units in each set of a structure.
    """
    requests = [RunRequest("transfer", 0, target)]
    for ticket in tickets:
        if ticket.level == 0 or not (levels is None or ticket.level in levels):
            continue
        mask = fit_mask(ticket.run.mask, target.mask)
        requests.append(RunRequest("transfer", ticket.level, target.masked(mask)))
        for draw in range(draws):
            if structure is UNSTRUCTURED:
                counts = structure.counts_like(mask)
                random = random_mask(mask, target.mask, counts, seed(0, draw), structure)
            else:  # the output layer may have other units
                counts = structure.counts_like(ticket.run.mask)
                drawn = random_mask(ticket.run.mask, tickets[0].run.mask, counts, seed(0, draw), structure)
                random = fit_mask(drawn, target.mask)
            requests.append(RunRequest("transfer_random", ticket.level, target.masked(random), draw))
    yield requests


def fit_mask(mask: Mask, full: Mask) -> Mask:
    """`mask` for a network whose dense mask is `full`. A layer with another shape keeps all its weights, for example
    the output layer if the number of classes differs."""
    shapes = mask.shapes
    return Mask({name: mask[name] if shapes.get(name) == layer.shape else layer for name, layer in full.items()})
