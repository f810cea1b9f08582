"""The contents of a page, before it is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tombola.report.figures.figure import Figure, MissingFigure


@dataclass(frozen=True)
class Table:
    """A table of text. The first column names the rows; columns of numbers are right-aligned."""

    name: str
    """Its anchor."""
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: frozenset[int] = frozenset()
    """The indices of columns that hold text."""
    folded: bool = False
    """Whether the table is hidden until it is opened."""
    groups: Sequence[tuple[str, int]] = ()
    """Heads above those of columns, from left to right, each with the number of its columns; some may be empty."""


@dataclass(frozen=True)
class Text:
    """Preformatted text, with a button to copy it."""

    name: str
    caption: str
    text: str


@dataclass(frozen=True)
class Link:
    """A link to a file beside the page, or to another page."""

    text: str
    target: str
    """A relative or an absolute URL."""


Part = TypeVar("Part", Figure, MissingFigure, Table, Text)


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    name: str
    title: str
    paragraphs: Sequence[str] = ()
    parts: Sequence[Figure | MissingFigure | Table | Text] = ()

    def of(self, kind: type[Part]) -> list[Part]:
        """The parts of a kind."""
        return [part for part in self.parts if isinstance(part, kind)]


@dataclass(frozen=True)
class Document:
    """A page: its first screen, then sections."""

    title: str
    about: str
    """A line under the title."""
    conclusions: Sequence[tuple[str, str]]
    """The label of each experiment, empty if there is only one, and its conclusion."""
    first: Section
    """The figures of the first screen."""
    sections: Sequence[Section] = ()
    problems: Sequence[str] = ()
    """What is missing or damaged."""
    notes: Sequence[str] = ()
    """Warnings about the results."""
    subtitle: str = ""
    """What the title does not say of the experiments; between it and the line under it."""
    window_title: str = ""
    """The title of the window and of bookmarks, if not that of the page."""
    links: Sequence[Link] = ()

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        return [figure for section in (self.first, *self.sections) for figure in section.of(Figure)]

    def number(self, figure: Figure) -> int:
        """The number of a figure on the page, from 1."""
        return 1 + [each.name for each in self.figures].index(figure.name)

    def file_name(self, figure: Figure) -> str:
        """What files of a figure are called, without a suffix: `figure-1-accuracy`."""
        return f"figure-{self.number(figure)}-{figure.name}"

    @property
    def missing_figures(self) -> list[MissingFigure]:
        """All figures that cannot be drawn."""
        return [figure for section in (self.first, *self.sections) for figure in section.of(MissingFigure)]
