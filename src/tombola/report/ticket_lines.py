"""Lines of tickets in words and tables: does a level win where, and only where, it is connected?"""

from __future__ import annotations

from rich.table import Table as TextTable

from tombola.report.document import Table
from tombola.report.formatting import NONE, density, mean, percent, points, text_table
from tombola.stats.summary import LevelSummary, Summary
from tombola.stats.ticket_barriers import LINES, JudgedLevel, judged_levels
from tombola.studies.request import TicketLine

OTHER_END: dict[TicketLine, str] = {"predecessor": "level before", "order": "other batch order"}
"""What the lines of each kind lead to, from the ticket of a level."""

STATES = {"winning": "winning", "not winning": "not winning", "cannot tell": "undecided"}
"""The verdicts on levels that are sparse enough to win, and adjectives for them."""


def connections(summary: Summary) -> list[str]:
    """How many levels of each verdict are connected: a sentence for each kind of lines."""
    sentences = []
    for line, end in OTHER_END.items():
        levels = judged_levels(summary, line)
        counts = [
            f"{sum(level.connected for level in same)} of {len(same)} {adjective}"
            for state, adjective in STATES.items()
            if (same := [level for level in levels if level.state == state])
        ]
        if counts and summary.stability:
            most = points(summary.stability.tolerance)
            sentences.append(
                f"Connected with the tickets of the {end} (barrier at most {most}): {', '.join(counts)} levels."
            )
    return sentences


def barriers_table(summary: Summary) -> list[Table]:
    """The error barriers of each level, for a page; empty without lines of tickets."""
    head, text = ["level", "weights left", "verdict"], frozenset({2})
    for end in OTHER_END.values():
        head += [f"{end}: on validation examples", "on the test set", "connected replicates"]
    rows = [
        [str(level.level), density(level), state, *(cell for judged in lines for cell in _cells(judged))]
        for level, state, lines in _by_level(summary)
    ]
    caption = "Error barriers of tickets in points; means over replicates"
    return [Table("ticket-barriers-table", caption, head, rows, text)] if rows else []


def barriers_text(summary: Summary) -> TextTable:
    """The same for the terminal, without those on the test set."""
    columns = ["level", "left", *(column for end in OTHER_END.values() for column in (end, "connected")), "verdict"]
    table = text_table(columns, left=("verdict",), title="Error barriers of tickets, points", wrap=True)
    for level, state, lines in _by_level(summary):
        cells = [_cells(judged) for judged in lines]
        barriers = [cell for validation, _, connected in cells for cell in (validation, connected)]
        table.add_row(str(level.level), percent(level.weights_left), *barriers, state)
    return table


def _by_level(summary: Summary) -> list[tuple[LevelSummary, str, list[JudgedLevel | None]]]:
    """By level its verdict, and what is known of each kind of lines."""
    found = {line: {judged.level.level: judged for judged in judged_levels(summary, line)} for line in LINES}
    rows = []
    for level in summary.levels:
        lines = [found[line].get(level.level) for line in OTHER_END]
        state = next((judged.state for judged in lines if judged), None)
        if state is not None:
            rows.append((level, state, lines))
    return rows


def _cells(judged: JudgedLevel | None) -> list[str]:
    """The barriers on validation and test examples, and how many replicates are connected."""
    if judged is None:
        return [NONE] * 3
    found = judged.barriers
    barriers = (mean(each, ".2f", 100, " ± ") for each in (found.validation_barrier, found.test_barrier))
    return [*barriers, f"{found.stable} of {found.replicates}"]
