"""The table of levels of a search with the user's own training function, as text and as HTML."""

from __future__ import annotations

import io

from rich.console import Console

from tombola.report.formatting import density_columns, density_legend, percent, text_table
from tombola.stats.copies import copies_text
from tombola.stats.level_table import LevelResult, LevelTable
from tombola.stats.summary import Interval
from tombola.utils.text import plural


class PrintableLevelTable(LevelTable):
    """A table of levels that can be printed, and displayed in a notebook."""

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=100, color_system=None)
        table = text_table(_columns(self), left=("", "compared with dense"))
        for cells in _cells(self):
            table.add_row(*cells)
        console.print(table)
        console.print(_legend(self), markup=False, highlight=False)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]

    def _repr_html_(self) -> str:
        from jinja2 import Template

        template = Template(
            "<table><thead><tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>"
            "{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}"
            "</tbody></table><p>{{ legend }}</p>",
            autoescape=True,
        )
        return str(template.render(columns=_columns(self), rows=_cells(self), legend=_legend(self)))


def _columns(levels: LevelTable) -> list[str]:
    figure = levels.judged or "figure"
    return ["level", *density_columns(levels), "weights", "", figure, "difference", "compared with dense"]


def _cells(levels: LevelTable) -> list[list[str]]:
    """A row for the tickets of each level, and for each of its controls."""
    rows = []
    densities = density_columns(levels).values()
    for level in levels:
        weights = {row.weights for row in levels.of("ticket", level.level)}
        rows.append(
            [
                str(level.level),
                *(cell(level) for cell in densities),
                f"{weights.pop():,}" if len(weights) == 1 else "",
                "dense" if level.level == 0 else "ticket",
                _figure(level.figure),
                _difference(level),
                _state(level),
            ]
        )
        for branch in levels.branches:
            if branch != "ticket" and levels.of(branch, level.level):
                interval = _figure(levels.interval(branch, level.level))
                rows.append(["", *("" for _ in densities), "", branch, interval, "", ""])
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
    bounds = {"least": level.low, "most": level.high}
    shown = "".join(f" (at {word} {bound:+.4f})" for word, bound in bounds.items() if bound is not None)
    return f"{level.difference:+.4f}{shown}"


def _legend(levels: LevelTable) -> str:
    return _judgement(levels) + density_legend(levels)


def _judgement(levels: LevelTable) -> str:
    replicates = plural(levels.replicates, "replicate")
    if levels.judged is None:
        return "No figure was given: pass evaluate=, or let train return a number."
    direction = f"{levels.judged}: {'lower' if levels.lower_is_better else 'higher'} is better."
    if levels.figure_gap:
        direction = f"{direction} {levels.figure_gap}"
    if not levels.tested:
        reason = copies_text(levels.copies) or "Pass replicates=5 for a test."
        return (
            f"{direction} {replicates}: the mean is compared with the dense network's, within a margin of "
            f"{levels.margin:g}, without a test. {reason}"
        )
    return (
        f"{direction} {replicates}, means ± {percent(levels.confidence)} confidence. A ticket matches if its "
        f"{levels.judged} is, with that confidence, less than {levels.margin:g} "
        f"{'above' if levels.lower_is_better else 'below'} the dense network's."
    )
