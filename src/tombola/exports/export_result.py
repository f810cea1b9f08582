"""The result of an export: what was measured of the artefacts in a folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from tombola.exports.benchmark import BATCH_SIZES, Count, Figures, Positive, Share
from tombola.utils.errors import InputError
from tombola.utils.html_table import html_table
from tombola.utils.text import byte_size, one_line, plural

EXPORT_FOLDER = "shipped"
"""The folder beside a ticket that exports are written to."""
FIGURES_FILE = "measured.json"
"""The file with the measurements, in that folder."""
LARGEST_BATCH = BATCH_SIZES[-1]
FORMER_NAMES = {"dense PyTorch": "ticket, dense PyTorch", "dense ONNX": "ticket, dense ONNX"}
"""Names of artefacts in files of former versions."""


@dataclass(frozen=True)
class TicketInfo:
    """The ticket that artefacts were made of."""

    weights: Count
    """The number of kept weights."""
    weights_total: Positive
    level: Count | None = None
    replicate: Count | None = None
    key: str | None = None
    """Of the run that trained it."""
    weights_left_of_all: Annotated[float, Field(ge=0, le=1)] | None = None
    """The fraction left of all matrix weights of the network, prunable or not; None if unknown."""

    @property
    def weights_left(self) -> float:
        """The fraction of prunable weights left."""
        return self.weights / self.weights_total


@dataclass(frozen=True)
class DenseNetwork:
    """The network that the ticket was found in, as the experiment trained it: replicate and data are the same."""

    accuracy: Share
    """On the test set, at the end of its training."""


@dataclass(frozen=True)
class ExportInfo:
    """What was measured, with what, and where."""

    inputs: str
    """The type, shape and scaling of inputs."""
    ticket: TicketInfo
    data: str
    """What the examples are."""
    examples: Positive
    threads: Positive
    machine: str
    versions: dict[str, str]
    dense: DenseNetwork | None = None
    """None if its accuracy is not known."""


@dataclass(frozen=True, kw_only=True)
class _FiguresFile(ExportInfo):
    """The content of `FIGURES_FILE`."""

    artefacts: Annotated[list[Figures], Field(min_length=1)]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Export:
    """The artefacts in a folder, and their measurements."""

    folder: Path
    figures: list[Figures]
    """Those of the ticket stored densely first."""
    about: ExportInfo
    left_out: dict[str, str] = field(default_factory=dict)
    """Artefacts that could not be made, and why."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        figures = [asdict(each) for each in self.figures]
        return {**asdict(self.about), "left_out": self.left_out, "artefacts": figures}

    def _repr_html_(self) -> str:
        """A table of the artefacts, for notebooks; `tombola ticket export` prints more columns."""
        head = ("artefact", "file", "weights", "on disk", "accuracy", "latency, µs", f"examples/s at {LARGEST_BATCH}")
        threads = plural(self.about.threads, "thread")
        measured = f"Measured on {plural(self.about.examples, 'example')} ({self.about.data}) with {threads}."
        missing = "".join(f" No {name}: {why}." for name, why in self.left_out.items())
        return html_table(head, map(_cells, self.figures), after=measured + missing, left=("artefact", "file"))


def _cells(figures: Figures) -> list[str]:
    speed = figures.throughput.get(LARGEST_BATCH)
    return [
        figures.name,
        figures.file,
        f"{figures.weights:,}",
        byte_size(figures.bytes),
        "" if figures.accuracy is None else f"{figures.accuracy:.2%}",
        "" if figures.latency is None else f"{figures.latency * 1e6:,.1f}",
        "" if speed is None else f"{speed:,.0f}",
    ]


def read_export(folder: str | Path) -> Export:
    """The measurements of the artefacts in a folder. Raises `InputError` if they are missing or damaged."""
    folder = Path(folder)
    path = folder / FIGURES_FILE
    try:
        # Strict: only JSON's own types, and no text that cannot be written as UTF-8.
        content = TypeAdapter(_FiguresFile).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = "".join(f"{each}: " for each in (".".join(map(str, found["loc"])),) if each)
        raise InputError(f"{path} is damaged: {one_line(ValueError(where + found['msg']))}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    about = ExportInfo(**{each.name: getattr(content, each.name) for each in fields(ExportInfo)})
    figures = [replace(each, name=FORMER_NAMES.get(each.name, each.name)) for each in content.artefacts]
    left_out = {FORMER_NAMES.get(name, name): why for name, why in content.left_out.items()}
    return Export(folder, figures, about, left_out)
