"""Controls: what else is trained, so that a ticket's success can be told from the success of anything sparse.

To add one, write its generator here and name it in `CONTROLS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tombola.studies import Ask, Study

Seed = Callable[[int, int], int]
"""(level, draw) -> the seed of what a control draws."""


def reinit(tickets: Sequence[Ask], draws: int, seed: Seed) -> Study[None]:
    """Train each ticket's mask from newly drawn initial weights (Frankle & Carbin 2019, section 2).

    Is it the mask alone, or the mask with its initial weights? Everything else, batch order included, is the
    ticket's own, so that the two differ in nothing but the weights they start from.
    """
    yield [
        Ask("reinit", ticket.level, ticket.run.reinitialised(seed(ticket.level, draw)), draw)
        for ticket in tickets
        if ticket.level > 0
        for draw in range(draws)
    ]


CONTROLS: dict[str, Callable[[Sequence[Ask], int, Seed], Study[None]]] = {"reinit": reinit}
"""By the name of their branch. Each asks for as many draws of each ticket below the dense network as it is told to,
and has a purpose of its own, of the same name, in `tombola.seeds`."""
