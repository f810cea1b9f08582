"""How numbers are shown, the same in the terminal, on pages and in sentences; and tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Protocol

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tombola.report.fitting_table import FittingTable, Importance
from tombola.stats.summary import FEW_REPLICATES, LevelSummary, MeasureSummary
from tombola.utils.text import plural

NONE = "–"
"""Shown where there is no number."""


def percent(fraction: float) -> str:
    """A fraction with three digits: `51.2%`; from 10 on as `12 times`."""
    return f"{fraction:.3g} times" if fraction >= 10 else f"{float(f'{100 * fraction:.3g}'):g}%"


def operations(count: float) -> str:
    """A number of multiply-adds: `12.5 M`, `8,400`."""
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,.0f}"


class WithDensity(Protocol):
    """A level of a search."""

    @property
    def weights_left(self) -> float:
        """The fraction of prunable weights left."""

    @property
    def weights_left_of_all(self) -> float | None:
        """The fraction of all matrix weights left; None if unknown."""


def density(level: WithDensity) -> str:
    """The fraction of prunable weights left and, where it differs, that of all matrix weights."""
    left = percent(level.weights_left)
    return f"{left} ({_of_all(level)} of all)" if _differs(level) else left


def density_columns(levels: Iterable[WithDensity]) -> dict[str, Callable[[WithDensity], str]]:
    """The same in columns of a table: by their heads, what they have in the row of a level."""
    columns: dict[str, Callable[[WithDensity], str]] = {"left": lambda level: percent(level.weights_left)}
    return columns | ({"of all": _of_all} if any(map(_differs, levels)) else {})


def work_left(levels: Sequence[LevelSummary]) -> list[str]:
    """The fraction of multiply-adds left at each level; empty if it is of no level known."""
    left = [level.multiply_adds_left for level in levels]
    return [NONE if each is None else percent(each) for each in left] if any(left) else []


def density_legend(levels: Iterable[WithDensity]) -> str:
    """What the column `of all` is, if the table has it; begins with a space."""
    return " of all: of all matrix weights, prunable or not." if any(map(_differs, levels)) else ""


def of_all_weights(level: WithDensity) -> str:
    """`, 45% of all matrix weights`, where that differs from the fraction of prunable weights left."""
    return f", {_of_all(level)} of all matrix weights" if _differs(level) else ""


def _of_all(level: WithDensity) -> str:
    return NONE if level.weights_left_of_all is None else percent(level.weights_left_of_all)


def _differs(level: WithDensity) -> bool:
    return level.weights_left_of_all is not None and _of_all(level) != percent(level.weights_left)


def points(fraction: float) -> str:
    """A difference of accuracies: `1 point`, `0.2 points`."""
    return plural(float(f"{100 * fraction:g}"), "point")


def p_value(p: float | None) -> str:
    """A p-value with three decimals; smaller ones as `<0.001`."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def mean(measure: MeasureSummary, form: str, factor: float = 1, interval: str = "", missing: str = NONE) -> str:
    """The mean times `factor`, and half the width of its confidence interval after `interval`, e.g. ` ± `, if that is
    given, or in brackets the lowest and the highest of a few values; `missing` if there are no values."""
    if (found := measure.spread) is None:
        return missing
    shown = f"{factor * found.mean:{form}}"
    if not interval or found.low is None or found.high is None:
        return shown
    if len(measure.values) < FEW_REPLICATES:
        return f"{shown} ({factor * found.low:{form}}–{factor * found.high:{form}})"
    return f"{shown}{interval}{factor * (found.high - found.mean):{form}}"


def means_text(replicates: int, confidence: float) -> str:
    """What `mean` shows of so many replicates."""
    if replicates < FEW_REPLICATES:
        return "means (lowest–highest)" if replicates > 1 else "one value each"
    return f"means ± {percent(confidence)} confidence"


def bands_text(replicates: int, confidence: float) -> str:
    """What the bands in figures are."""
    if replicates < FEW_REPLICATES:
        return "from the lowest to the highest value of the replicates"
    return f"{percent(confidence)} confidence interval of the mean over replicates"


def text_table(
    columns: Sequence[str],
    left: Container[str],
    title: str | None = None,
    gap: int = 1,
    least: Sequence[str] = (),
    always: Sequence[str] = (),
) -> FittingTable:
    """A table for the terminal with `gap` spaces between columns; those not in `left` are right-aligned. Where it is
    too wide, columns are left out: first those in `least`, in this order, then others from the right, but none in
    `always`. Print it with `print_table`."""
    table = FittingTable(
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, gap - 1, 0, 0),
        title=None if title is None else Text(title),
        importance=Importance(least, always),
    )
    for name in columns:
        table.add_column(Text(name), justify="left" if name in left else "right", vertical="bottom")
    return table


def table_cells(table: Table) -> list[list[str]]:
    """The cells of such a table as plain text, its head first."""
    columns = [[_plain(cell) for cell in (column.header, *column.cells)] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _plain(cell: RenderableType) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)
