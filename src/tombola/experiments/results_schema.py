"""The schema of a results folder: the rows of its tables, how these are read and written, and its status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from tombola.experiments import stability_table
from tombola.experiments.file_names import STATUS
from tombola.experiments.session import Session
from tombola.runs.outcome import Measures, Outcome
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.text import first_line

INT, FLOAT, TEXT = pa.int64(), pa.float64(), pa.string()


def _columns(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


_KEY = [("replicate", pa.int32()), ("level", pa.int32()), ("branch", TEXT), ("draw", pa.int32())]
_AT_STOP = ("validation_loss", "validation_accuracy", "train_accuracy", "test_accuracy")
_RECIPE_FIGURES = (*(f"{name}_at_stop" for name in _AT_STOP), "train_accuracy", "test_accuracy")

KEY = tuple(name for name, _ in _KEY)
"""The columns that identify a run of the experiment."""

LEVELS = pa.schema(
    _KEY
    + _columns(INT, "weights", "weights_total")
    + _columns(TEXT, "run")
    + _columns(pa.bool_(), "diverged")
    + _columns(INT, "iterations", "stop_iteration")
    + _columns(FLOAT, *_RECIPE_FIGURES)
)
LAYERS = pa.schema(
    _KEY
    + _columns(TEXT, "layer")
    + _columns(INT, "weights", "weights_total", "sign_changes")
    + _columns(FLOAT, "distance", "start_norm")
    + _columns(pa.list_(INT), "start_histogram", "input_connections")
    + _columns(INT, "outputs", "inputs", "multiply_adds")
)
_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
CURVES = pa.schema(_KEY + _columns(INT, "iteration") + _columns(FLOAT, *_CURVES))

FIGURES = ("stop_iteration", *_RECIPE_FIGURES)
"""The figures of every training of a recipe that does not diverge."""

TABLES = {"levels": LEVELS, "layers": LAYERS, "curves": CURVES, "stability": stability_table.STABILITY}
_REQUIRED = {
    "levels": (*KEY, "weights", "weights_total", "run", "diverged", "iterations"),
    "layers": (*KEY, "layer", "weights", "weights_total"),
    "curves": (*KEY, "iteration"),
    "stability": stability_table.KEY.names,
}
"""The columns whose values are never missing."""


@dataclass(frozen=True)
class Row:
    """The result of one run and its position in the experiment: a row of the table of levels."""

    replicate: int
    level: int
    branch: str
    draw: int
    weights: int
    """The number of prunable weights left."""
    weights_total: int
    """The number of prunable weights in the dense network."""
    run: str
    """The key of the run in the store."""
    measures: Measures

    @classmethod
    def of(cls, replicate: int, request: RunRequest, outcome: Outcome) -> Row:
        """The row of a finished run."""
        mask, run = request.run.mask, request.run.key
        key = (replicate, request.level, request.branch, request.draw)
        return cls(*key, mask.count, mask.size, run, outcome.measures)

    @property
    def weights_left(self) -> float:
        """The fraction of weights left."""
        return self.weights / self.weights_total

    def weights_left_of(self, matrix_weights: int | None) -> float | None:
        """The fraction left of all matrix weights of the network, prunable or not; None if their number is None."""
        return None if matrix_weights is None else 1 - (self.weights_total - self.weights) / matrix_weights

    def to_dict(self) -> dict[str, Any]:
        """The row as a flat dictionary, with the names of the measures."""
        return {name: getattr(self, name) for name in _ROW_COLUMNS} | self.measures.model_dump()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Row:
        """The inverse of `to_dict`."""
        measures = Measures(**{name: value for name, value in values.items() if name not in _ROW_COLUMNS})
        return cls(**{name: values[name] for name in _ROW_COLUMNS}, measures=measures)


_ROW_COLUMNS = (*KEY, "weights", "weights_total", "run")


def read_table(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of the table `name`; see `read_arrow`."""
    rows: list[dict[str, Any]] = read_arrow(folder, name).to_pylist()
    return rows


def read_arrow(folder: Path, name: str) -> pa.Table:
    """The table `name`, empty if there is no file; columns that an older tombola did not write are null.

    Raises `InputError` if it is damaged: a required value is missing, or a number of weights is impossible.
    """
    path = folder / f"{name}.parquet"
    if not path.exists():
        return TABLES[name].empty_table()
    try:
        figures = [field.name for field in pq.read_schema(path) if field.type == FLOAT]
        schema = TABLES["layers"] if name == "layers" else _with_figures(name, figures)
        table = pq.read_table(path, schema=schema)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, str(error).partition("\n")[0]) from error
    if missing := next((column for column in _REQUIRED[name] if table[column].null_count), None):
        raise damaged(path, f"{missing} is missing")
    if "weights" in table.column_names:
        for left, total in zip(*(table[column].to_pylist() for column in ("weights", "weights_total")), strict=True):
            if not 0 <= left <= total > 0:
                raise damaged(path, f"{left} of {total} weights")
    return table


def damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged: {why}; run the experiment again")


def levels_table(rows: Sequence[Row]) -> pa.Table:
    """The table of levels: with the columns of recipes, or with a column for each figure."""
    figures = [name for row in rows for name in row.measures.figures]
    return pa.Table.from_pylist([row.to_dict() for row in rows], _with_figures("levels", figures))


def _with_figures(name: str, figures: Iterable[str]) -> pa.Schema:
    """The schema of a table: that of recipes if it has all figures, otherwise with the columns of these figures."""
    schema, found = TABLES[name], dict.fromkeys(figures)
    if name == "stability":
        return stability_table.schema_of(found)
    if all(figure in schema.names for figure in found):
        return schema
    own = [schema.field(column) for column in schema.names if column not in (*_RECIPE_FIGURES, *_CURVES)]
    return pa.schema([*own, *_columns(FLOAT, *found)])


def table_of(name: str, parts: Sequence[tuple[Row, Mapping[str, Any]]]) -> pa.Table:
    """The columns of all parts, one below the other, each with the key of its row; missing columns are null."""
    schema, batches = TABLES[name], []
    if name == "curves":
        schema = _with_figures(name, [column for _, columns in parts for column in columns if column != "iteration"])
    for row, columns in parts:
        length = len(next(iter(columns.values()), ()))
        key = {column: [getattr(row, column)] * length for column in KEY}
        values = {**dict.fromkeys(schema.names, [None] * length), **key, **columns}
        arrays = [pa.array(values[field.name], type=field.type) for field in schema]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema).combine_chunks()


def write_table(folder: Path, name: str, table: pa.Table) -> None:
    with atomic_write(folder / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")


@dataclass(frozen=True)
class Tally:
    """The runs of one command."""

    trained: NonNegativeInt = 0
    from_store: NonNegativeInt = 0
    diverged: NonNegativeInt = 0


@dataclass(frozen=True)
class RunCost:
    """The total training time of the runs of a branch at a level, whether trained now or earlier."""

    level: NonNegativeInt
    branch: str
    runs: NonNegativeInt
    seconds: NonNegativeFloat


class EngineTotals(FrozenModel):
    """What an engine trained."""

    model_config = ConfigDict(extra="ignore")

    runs: NonNegativeInt
    seconds: NonNegativeFloat


class Stage(FrozenModel):
    """A size at which an experiment was finished, so that it could be judged, before it was extended."""

    model_config = ConfigDict(extra="ignore")

    replicates: PositiveInt
    levels: NonNegativeInt
    runs: NonNegativeInt
    """Rows of the table of levels."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Stage:
        """The size of a finished experiment with these rows of the table of levels, at least one."""
        replicates = len({row["replicate"] for row in rows})
        return cls(replicates=replicates, levels=max(row["level"] for row in rows), runs=len(rows))


class Status(FrozenModel):
    """The contents of `status.json`. Missing keys have defaults; keys that only newer versions write are ignored."""

    model_config = ConfigDict(extra="ignore")

    finished: bool = False
    runs: Tally = Tally()
    inputs: tuple[PositiveInt, ...] = ()
    matrix_weights: PositiveInt | None = None
    copies: list[NonNegativeInt] = []
    engines: dict[str, EngineTotals] = {}
    costs: list[RunCost] = []
    versions: dict[str, str] = {}
    command: str | None = None
    stages: list[Stage] = []
    """The stages in order; the last is the current size, if `finished`."""
    sessions: list[Session] = []
    """In order; those that trained nothing are left out if there are others."""


RUNS = "runs.txt"
"""The file with the keys of all runs."""


def read_runs(folder: Path) -> set[str]:
    """The keys of all runs; empty if there is no list, because older versions did not write one. Raises `InputError`
    if it cannot be read."""
    path = folder / RUNS
    try:
        return set(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return set()
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, first_line(error)) from error


def write_runs(folder: Path, keys: Iterable[str]) -> None:
    with atomic_write(folder / RUNS) as temporary:
        temporary.write_text("".join(f"{key}\n" for key in sorted(keys)), encoding="utf-8")


def read_status(folder: Path) -> tuple[Status, list[str]]:
    """The status and no problems, or the default status and why it could not be read, in one line."""
    path = folder / STATUS
    try:
        return Status.model_validate_json(path.read_bytes()), []
    except FileNotFoundError:
        return Status(), [f"{path} does not exist (yet)"]
    except OSError as error:
        return Status(), [f"{path} cannot be read: {error.strerror}"]
    except ValidationError as error:
        return Status(), [f"{path} is damaged: {first_error(error)}"]


def write_status(folder: Path, status: Status) -> None:
    with atomic_write(folder / STATUS) as temporary:
        temporary.write_text(status.model_dump_json(indent=1) + "\n", encoding="utf-8")


def first_error(error: ValidationError) -> str:
    """The first error, in one line."""
    found = error.errors(include_url=False)[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else found["msg"]
