"""A table for the terminal that fits its width: it leaves out columns rather than parts of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from tombola.report.console import NO_LIMIT, wrapped

TEXT_WIDTH = 16
"""Texts, such as reasons, are continued on further lines of this width before a column is left out."""


@dataclass(frozen=True)
class _Widths:
    """Of a column's content, in characters."""

    natural: int
    narrow: int
    """The least at which it still reads well."""
    least: int
    """The longest word."""


@dataclass
class Importance:
    """Which columns a table leaves out where it is too wide: first those named in `least`, in this order, then all
    others from the right. The first column, and those in `always`, stay."""

    least: Sequence[str] = ()
    always: Sequence[str] = field(default_factory=tuple)

    def order(self, names: Sequence[str]) -> Iterator[int]:
        """The positions of the columns that may be left out, the least important first."""
        free = [index for index, name in enumerate(names) if index and name not in self.always]
        named = [index for name in self.least for index in reversed(free) if names[index] == name]
        yield from dict.fromkeys([*named, *reversed(free)])


class FittingTable(Table):
    """A table that fits the terminal. Where it is too wide, left-aligned columns are continued on further lines, and
    columns are left out, which a line below names. It is wider than the terminal only if the columns that stay have
    a word that is too long; print it with `print_table`."""

    def __init__(self, *arguments: Any, importance: Importance | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.importance = importance or Importance()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept, widths = self._fitted(console, options)
        table = self._narrowed(kept, widths)
        if self.title is not None:
            title = self.title.plain if isinstance(self.title, Text) else str(self.title)
            yield from (Text(line, style="table.title") for line in wrapped(title, options.max_width))
        yield from table.__rich_console__(console, options.update(width=NO_LIMIT))
        if left_out := [_name(column) for index, column in enumerate(self.columns) if index not in kept]:
            note = f"Not shown at this width: {', '.join(left_out)}. A wider terminal or --json shows them."
            yield from (Text(line, style="dim") for line in wrapped(note, options.max_width))

    def _fitted(self, console: Console, options: ConsoleOptions) -> tuple[list[int], list[int]]:
        """The positions of the columns that stay, and the widths of their contents."""
        widths = [self._widths(console, options, column) for column in self.columns]
        between = self.padding[1] + 1  # the box has a space between columns
        kept, limit = [*range(len(widths))], options.max_width
        order = self.importance.order([_name(column) for column in self.columns])

        def space() -> int:
            return limit - between * (len(kept) - 1) - self.padding[1]

        while sum(widths[index].narrow for index in kept) > space():
            index = next(order, None)
            if index is None:
                return kept, _shrunk([widths[i].natural for i in kept], [widths[i].least for i in kept], space())
            kept.remove(index)
        return kept, _shrunk([widths[i].natural for i in kept], [widths[i].narrow for i in kept], space())

    def _widths(self, console: Console, options: ConsoleOptions, column: Column) -> _Widths:
        free = options.update(width=NO_LIMIT)
        head = Measurement.get(console, free, _text(column.header))
        cells = [Measurement.get(console, free, _text(cell)) for cell in column.cells]
        natural = max([head.maximum, *(cell.maximum for cell in cells)])
        least = max([head.minimum, *(cell.minimum for cell in cells)])
        whole = max([0, *(cell.maximum for cell in cells)])
        narrow = min(whole, TEXT_WIDTH) if column.justify == "left" else whole
        return _Widths(natural, max(least, narrow), least)

    def _narrowed(self, kept: Sequence[int], widths: Sequence[int]) -> Table:
        table = Table(box=self.box, show_edge=False, padding=self.padding)
        table.columns = [
            replace(
                self.columns[index],
                _index=position,
                _cells=[_text(cell) for cell in self.columns[index].cells],
                width=width,
                overflow="fold",
            )
            for position, (index, width) in enumerate(zip(kept, widths, strict=True))
        ]
        table.rows = self.rows
        return table


def print_table(console: Console, table: Table) -> None:
    """Print a table, of which no cell is cut."""
    console.print(table, crop=False)


def _shrunk(natural: Sequence[int], least: Sequence[int], space: int) -> list[int]:
    """Widths that sum to `space`, if the least ones allow that: the widest that can be narrower are."""
    widths = [*natural]
    while sum(widths) > space:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i], default=None)
        if widest is None:
            break
        widths[widest] -= 1
    return widths


def _text(cell: object) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _name(column: Column) -> str:
    return " ".join(_text(column.header).plain.replace("-\n", "-").split())
