"""The tables that compare experiments, as text, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tombola.report.formatting import density
from tombola.report.measure_columns import measure_columns
from tombola.report.prose import improvements, without_winner
from tombola.stats.common_levels import common_levels
from tombola.stats.summary import LevelSummary, Summary


def winners_table(named: Mapping[str, Summary]) -> tuple[list[str], list[list[str]]]:
    """The head and rows: of each experiment the dense network, and the smallest winning ticket with its controls.
    Without a winning ticket, those of the only level, if there is one level below the dense network."""
    heads = _heads(named.values())
    rows = []
    for label, summary in named.items():
        own = [["dense", *_cells(summary, summary.levels[0], "ticket", heads)]] if summary.levels else []
        if summary.smallest_winning is None:
            own.append([without_winner(summary), *[""] * (1 + len(heads))])
        if level := summary.smallest_winning or _only_level(summary):
            own += [[branch, *_cells(summary, level, branch, heads)] for branch in level.branches]
        rows += [[label if row is own[0] else "", *row] for row in own]
    return ["experiment", "", "left", *heads], rows


def common_table(named: Mapping[str, Summary]) -> tuple[list[str], list[list[str]]]:
    """The head and rows: the tickets of all experiments, with their verdicts, at each level that all have. No rows if
    there is no such level."""
    heads = _heads(named.values())
    rows = []
    for group in common_levels(list(named.values())):
        if group[0].level == 0:
            continue  # dense networks are in the other table
        for (label, summary), level in zip(named.items(), group, strict=True):
            state = f"{level.verdict.state}{improvements(level.verdict)}"
            rows.append([label, str(level.level), *_cells(summary, level, "ticket", heads), state])
    return ["experiment", "level", "left", *heads, "verdict"], rows if len(named) > 1 else []


def _only_level(summary: Summary) -> LevelSummary | None:
    """The level below the dense network; None if there are several."""
    return summary.levels[1] if len(summary.levels) == 2 else None


def _heads(summaries: Iterable[Summary]) -> list[str]:
    """The heads of all columns of measures that one of the experiments has."""
    return list(dict.fromkeys(column.head for each in summaries for column in measure_columns(each)))


def _cells(summary: Summary, level: LevelSummary, branch: str, heads: Sequence[str]) -> list[str]:
    """The fraction of weights left, and the means in these columns."""
    shown = {each.head: each.cell(level.branches[branch], "diverged", False) for each in measure_columns(summary)}
    return [density(level), *(shown.get(head, "") for head in heads)]
