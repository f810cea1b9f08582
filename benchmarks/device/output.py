"""A part's result, printed."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from benchmarks.common import console
from benchmarks.device.parts import Row, is_wrong


def print_part(name: str, result: dict[str, Any]) -> None:
    """Its table, and what is wrong."""
    console.print(f"\n[bold]{name}[/bold]: {escape(result['title'])} ({result.get('seconds', 0):.0f} s)")
    for _, rows in groupby(result.get("rows", []), key=list):
        console.print(table_of([*rows]))
    for line in problems(result):
        console.print(f"  [red]{escape(line)}[/red]")
    for line in result.get("at", []):
        console.print(f"    {escape(line)}", highlight=False)


def problems(result: dict[str, Any]) -> list[str]:
    """What is wrong with a part, or why there is no result."""
    reasons = [f"{word}: {result[word]}" for word in ("skipped", "failed") if word in result]
    return reasons + [f"wrong: {line}" for line in result.get("wrong", [])]


def table_of(rows: list[Row]) -> Table:
    """A table of rows that have the same keys: its columns."""
    table = Table(box=SIMPLE)
    for column in rows[0]:
        numbers = any(isinstance(row.get(column), int | float) for row in rows)
        table.add_column(escape(column.replace("_", " ")), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(escape(cell(row.get(column))) for column in rows[0]))
    return table


def cell(value: Any) -> str:
    """A value of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_verdicts(results: dict[str, dict[str, Any]], targets: list[Row], rehearsal: bool) -> None:
    """The targets, and one line for each part."""
    console.print(f"\n[bold]Targets[/bold]{' (the numbers of a rehearsal mean nothing)' if rehearsal else ''}")
    console.print(table_of(targets))
    table = Table("part", "seconds", "", box=SIMPLE)
    for name, result in results.items():
        verdict = "[red]wrong[/red]" if is_wrong(result) else "skipped" if "skipped" in result else "right"
        table.add_row(name, f"{result.get('seconds', 0):.0f}", verdict)
    console.print("[bold]Parts[/bold]")
    console.print(table)
