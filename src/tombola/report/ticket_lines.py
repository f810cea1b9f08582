"""Lines of tickets in words and tables: does a level win where, and only where, it is connected?"""

from __future__ import annotations

from rich.table import Table as TextTable

from tombola.report.barrier_units import BarrierUnits, barrier_units
from tombola.report.document import Table
from tombola.report.formatting import NONE, density, percent, text_table
from tombola.stats.summary import LevelSummary, StabilitySummary, Summary
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
            most = barrier_units(summary, summary.stability).tolerance
            sentences.append(
                f"Connected with the tickets of the {end} (barrier at most {most}): {', '.join(counts)} levels."
            )
    return sentences


def barriers_table(summary: Summary) -> list[Table]:
    """The error barriers of each level, for a page; empty without lines of tickets."""
    if summary.stability is None or not (by_level := _by_level(summary)):
        return []
    units, head = barrier_units(summary, summary.stability), ["level", "weights left", "verdict"]
    kept = [0, 1, 2] if "test" in summary.stability.splits else [0, 2]
    for end in OTHER_END.values():
        columns = [f"{end}: on validation examples", "on the test set", "connected replicates"]
        head += [columns[index] for index in kept]
    rows = [
        [str(level.level), density(level), state, *(_cells(judged, units)[i] for judged in lines for i in kept)]
        for level, state, lines in by_level
    ]
    caption = f"{units.title}s of tickets{units.in_unit}; means over replicates"
    return [Table("ticket-barriers-table", caption, head, rows, frozenset({2}))]


def barriers_text(summary: Summary, stability: StabilitySummary) -> TextTable:
    """The same for the terminal, without those on the test set."""
    units = barrier_units(summary, stability)
    title = f"{units.title}s of tickets{units.unit and f', {units.unit}'}"
    columns = ["level", "left", *(column for end in OTHER_END.values() for column in (end, "connected")), "verdict"]
    table = text_table(columns, left=("verdict",), title=title)
    for level, state, lines in _by_level(summary):
        cells = [_cells(judged, units) for judged in lines]
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


def _cells(judged: JudgedLevel | None, units: BarrierUnits) -> list[str]:
    """The barriers on validation and test examples, and how many replicates are connected."""
    if judged is None:
        return [NONE] * 3
    found = judged.barriers
    barriers = map(units.shown, (found.validation_barrier, found.test_barrier))
    return [*barriers, f"{found.stable} of {found.replicates}"]
