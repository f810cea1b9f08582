"""Lines between tickets: is each ticket connected to its predecessor, and does its mask lead into one minimum?

Paul et al. (2022, "Unmasking the Lottery Ticket Hypothesis: What's Encoded in a Winning Ticket's Mask?", section 3)
find that the networks of two successive levels are connected by a line without an error barrier if and only if both
are as accurate as the dense network. Frankle et al. (2020, "Linear Mode Connectivity and the Lottery Ticket
Hypothesis", section 4) find the same of two trainings of one ticket that differ in batch order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tombola.studies.lines import Line, evaluate_lines
from tombola.studies.request import RunRequest, Study


def ticket_lines(
    tickets: Sequence[RunRequest], seeds: Sequence[int], points: int, evaluate_ends: bool = False
) -> Study[None]:
    """Evaluate `points` networks on each line between tickets, which are in order and trained; see `evaluate_lines`.

    From the ticket of each level there is a line to the ticket of the previous level, on which networks have the
    denser mask. For each of `seeds` there is also a line to the same ticket trained with this seed.
    """
    lines = [
        Line(ticket.run, before.run, ticket.run.begin, level=ticket.level, tickets="predecessor")
        for before, ticket in pairwise(tickets)
    ]
    lines += [
        Line(ticket.run, ticket.run.model_copy(update={"seed": seed}), ticket.run.begin, pair, ticket.level, "order")
        for ticket in tickets
        for pair, seed in enumerate(seeds)
    ]
    yield from evaluate_lines(lines, points, evaluate_ends)


def count_ticket_lines(levels: int, pairs: int) -> int:
    """The number of these lines for a search with this number of levels."""
    return levels + (1 + levels) * pairs
