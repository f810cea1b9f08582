"""The random reinitialisation control: is it the mask alone, or the mask with its initial weights?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tombola.studies import Ask, Study


def reinit(tickets: Sequence[Ask], draws: int, seed: Callable[[int, int], int]) -> Study[None]:
    """Train each ticket's mask from newly drawn initial weights (Frankle & Carbin 2019, section 2).

    `seed(level, draw)` gives the seed of a draw. Everything else, batch order included, is the ticket's own,
    so that the two differ in nothing but the weights they start from.
    """
    yield [
        Ask("reinit", ticket.level, ticket.run.reinitialised(seed(ticket.level, draw)), draw)
        for ticket in tickets
        if ticket.level > 0
        for draw in range(draws)
    ]
