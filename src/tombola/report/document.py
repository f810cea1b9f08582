"""Document: what stands on a page, before it is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tombola.report.figures.figure import Absent, Figure


@dataclass(frozen=True)
class Table:
    """A table of text. The first column names the rows; the columns of numbers are set to the right."""

    name: str
    """Its anchor."""
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: frozenset[int] = frozenset()
    """Columns that hold words."""
    folded: bool = False
    """Shown only when asked for."""


@dataclass(frozen=True)
class Text:
    """Text as it stands in a file, with a button to copy it."""

    name: str
    caption: str
    text: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    title: str
    words: Sequence[str] = ()
    """Paragraphs."""
    parts: Sequence[Figure | Absent | Table | Text] = ()

    @property
    def figures(self) -> list[Figure]:
        """What is drawn."""
        return [part for part in self.parts if isinstance(part, Figure)]

    @property
    def absent(self) -> list[Absent]:
        """What is not."""
        return [part for part in self.parts if isinstance(part, Absent)]

    @property
    def tables(self) -> list[Table]:
        """The tables."""
        return [part for part in self.parts if isinstance(part, Table)]

    @property
    def texts(self) -> list[Text]:
        """Files and commands."""
        return [part for part in self.parts if isinstance(part, Text)]


@dataclass(frozen=True)
class Document:
    """A page: its first screen, then sections."""

    title: str
    about: str
    """A line under the title."""
    answers: Sequence[tuple[str, str]]
    """A name, empty where there is only one, and the answer."""
    first: Section
    """The figures of the first screen."""
    sections: Sequence[Section] = ()
    problems: Sequence[str] = ()
    """What the reader must know first."""
    notes: Sequence[str] = field(default_factory=tuple)
    """What must not go unsaid."""

    @property
    def figures(self) -> list[Figure]:
        """All figures."""
        return [figure for section in (self.first, *self.sections) for figure in section.figures]
