"""The table of experiments side by side, for the terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tombola.report.prose import answer

MEASURES = (("test_accuracy_at_stop", ".2f"), ("train_accuracy_at_stop", ".1f"), ("gap_at_stop", ".1f"))


def show_comparison(console: Console, comparison: dict[str, Any]) -> None:
    """Print what `tombola.stats.experiment_comparison.compare` gave: a table, the answers, what differs."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("experiment", "", "left", "test %", "train", "gap", "stop"):
        table.add_column(name, justify="left" if name in ("experiment", "") else "right")
    for experiment in comparison["experiments"]:
        for row in _rows(experiment):
            table.add_row(*map(Text, row))
    console.print(table)
    for experiment in comparison["experiments"]:
        console.print(f"{experiment['label']}: {answer(experiment['summary'])}", highlight=False, markup=False)
    differing = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("what differs", *(experiment["label"] for experiment in comparison["experiments"])):
        differing.add_column(Text(name))
    for key, values in comparison["differences"].items():
        differing.add_row(*map(Text, (key, *("·" if value is None else str(value) for value in values))))
    if comparison["differences"]:
        console.print(differing)


def _rows(experiment: dict[str, Any]) -> list[list[str]]:
    """The dense network, and the smallest winning ticket with its controls."""
    summary, rows = experiment["summary"], []
    levels = summary["levels"]
    if levels:
        rows.append(["dense", *_measured(levels[0], "ticket")])
    if found := summary["smallest_winning"]:
        level = next(level for level in levels if level["level"] == found["level"])
        rows += [[branch, *_measured(level, branch)] for branch in level["branches"]]
    else:
        rows.append(["no winning ticket", *[""] * 5])
    return [[experiment["label"] if row is rows[0] else "", *row] for row in rows]


def _measured(level: dict[str, Any], branch: str) -> list[str]:
    figures = level["branches"][branch]
    if not figures["stop_iteration"]["values"]:
        return [f"{level['weights_left']:.1%}", "diverged", "", "", ""]
    accuracies = (format(100 * figures[name]["mean"], form) for name, form in MEASURES)
    return [f"{level['weights_left']:.1%}", *accuracies, f"{figures['stop_iteration']['mean']:,.0f}"]
