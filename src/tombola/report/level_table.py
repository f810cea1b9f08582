"""The table of levels of a search with the user's own function: as text, and for notebooks."""

from __future__ import annotations

import io

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tombola.stats.interval import Interval, mean_interval
from tombola.stats.level_table import LevelResult, LevelTable
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.utils.text import plural

WIDTH = 100


class PrintableLevelTable(LevelTable):
    """The table of levels that prints itself, in a terminal and in a notebook."""

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def as_text(levels: LevelTable) -> str:
    """The table in plain characters."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for name in _columns(levels):
        table.add_column(name, justify="left" if name in ("", "beside the dense network") else "right", no_wrap=True)
    for cells in _cells(levels):
        table.add_row(*cells)
    console.print(table)
    console.print(_legend(levels), markup=False, highlight=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def as_html(levels: LevelTable) -> str:
    """The table for a notebook."""
    import jinja2

    environment = jinja2.Environment(autoescape=True)
    template = environment.from_string(
        "<table><thead><tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>"
        "{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}"
        "</tbody></table><p>{{ legend }}</p>"
    )
    return template.render(columns=_columns(levels), rows=_cells(levels), legend=_legend(levels))


def _columns(levels: LevelTable) -> list[str]:
    return ["level", "left", "weights", "", levels.judged or "figure", "difference", "beside the dense network"]


def _cells(levels: LevelTable) -> list[list[str]]:
    """A row for the tickets of each level, and for each control there."""
    rows = []
    for level in levels:
        weights = {answer.weights for answer in levels.of("ticket", level.level)}
        rows.append(
            [
                str(level.level),
                f"{level.weights_left:.1%}",
                f"{weights.pop():,}" if len(weights) == 1 else "",
                "dense" if level.level == 0 else "ticket",
                _figure(level.figure),
                _difference(level),
                _state(level),
            ]
        )
        for branch in levels.branches:
            values = list(levels.values(branch, level.level).values())
            if branch != "ticket" and levels.of(branch, level.level):
                mean = _figure(mean_interval(values, levels.confidence) if values else None)
                rows.append(["", "", "", branch, mean, "", ""])
    return rows


def _figure(interval: Interval | None) -> str:
    if interval is None:
        return ""
    half = "" if interval.high is None else f" ±{interval.high - interval.mean:.4f}"
    return f"{interval.mean:.4f}{half}"


def _state(level: LevelResult) -> str:
    if level.level == 0:
        return ""
    return level.state if level.behind is None else f"{level.state}: behind level {level.behind}"


def _difference(level: LevelResult) -> str:
    if level.difference is None:
        return ""
    return f"{level.difference:+.4f}" + ("" if level.low is None else f" (at least {level.low:+.4f})")


def _legend(levels: LevelTable) -> str:
    replicates = levels.replicates
    if levels.judged is None:
        return "Nothing was evaluated: give evaluate=, or let train return a number."
    if replicates < FEWEST_REPLICATES:
        return (
            f"{plural(replicates, 'replicate')}: means are compared with the dense network's, within a margin of "
            f"{levels.margin:g}; that shows nothing yet. replicates=5 would be a test."
        )
    return (
        f"{plural(replicates, 'replicate')}, means ± {levels.confidence:.0%} confidence. A ticket matches when we "
        f"are that sure that its {levels.judged} is not more than {levels.margin:g} below the dense network's."
    )
