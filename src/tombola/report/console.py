"""Lines in the terminal: sentences break between words; paths and commands are never broken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.text import Text

NO_LIMIT = 10_000
"""The width of what is not a terminal, in characters."""


class LineConsole(Console):
    """A console as wide as the terminal. Into a pipe or a file, lines have no limit: a sentence is one line, and a
    table has all its columns. The environment variable `COLUMNS` sets another width."""

    @property
    def size(self) -> ConsoleDimensions:
        found = super().size
        return found if self.is_terminal or "COLUMNS" in os.environ else found._replace(width=NO_LIMIT)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        Console.size.fset(self, new_size)  # type: ignore[attr-defined]


def wrapped(text: str, width: int) -> Iterator[str]:
    """The lines of `text`, broken between words. A word that is wider stands on a line of its own; continued lines
    have the indentation of the first."""
    for line in text.splitlines() or [""]:
        if cell_len(line) <= width:
            yield line  # as it is, with its columns
            continue
        indent = line[: len(line) - len(line.lstrip(" "))]
        current = ""
        for word in line.split():
            if current and cell_len(f"{current} {word}") > width:
                yield current
                current = ""
            current = f"{current} {word}" if current else f"{indent}{word}"
        yield current


def print_text(console: Console, text: str, style: str | None = None) -> None:
    """Print sentences."""
    for line in wrapped(text, console.width):
        print_unbroken(console, line, style)


def print_unbroken(console: Console, line: str, style: str | None = None) -> None:
    """Print a line as it is, such as a command or a path that is to be copied."""
    console.print(Text(line), style=style, markup=False, highlight=False, soft_wrap=True)


def print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print names with their values, such as paths, an aligned line each."""
    longest = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print_unbroken(console, f"{name:{longest}}  {value}")
