"""Results: what the folder of one experiment says. It can be read without tombola.

    experiment.toml      the whole configuration, as it was resolved
    levels.parquet       one row for each replicate x level x branch x draw (see `Row`)
    layers.parquet       the same x layer: weights left, where they began and how far they went (see `Layer`)
    curves.parquet       the same x iteration: what was evaluated on the way
    stability.parquet    how weights on lines between two trainings do, where that is asked
    ticket.safetensors   the smallest winning ticket, if there is one
    status.json          whether it is finished, what made it, what that trained, and how long it all took

Rows stand in a fixed order, whatever order the runs were answered in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from tombola.experiments.recipe import Recipe, parse_recipe
from tombola.experiments.row import Row
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel

_PLACE = [("replicate", pa.int32()), ("level", pa.int32()), ("branch", pa.string()), ("draw", pa.int32())]
_MEASURES = ("validation_loss", "validation_accuracy", "train_accuracy", "test_accuracy")
LEVELS = pa.schema(
    [
        *_PLACE,
        ("weights", pa.int64()),
        ("weights_total", pa.int64()),
        ("run", pa.string()),
        ("diverged", pa.bool_()),
        ("iterations", pa.int64()),
        ("stop_iteration", pa.int64()),
        *((f"{name}_at_stop", pa.float64()) for name in _MEASURES),
        ("train_accuracy", pa.float64()),
        ("test_accuracy", pa.float64()),
    ]
)
LAYERS = pa.schema(
    [
        *_PLACE,
        ("layer", pa.string()),
        ("weights", pa.int64()),
        ("weights_total", pa.int64()),
        ("sign_changes", pa.int64()),
        ("distance", pa.float64()),
        ("start_norm", pa.float64()),
        ("start_histogram", pa.list_(pa.int64())),
        ("input_connections", pa.list_(pa.int64())),
    ]
)
_CURVES = ("train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
CURVES = pa.schema([*_PLACE, ("iteration", pa.int64()), *((name, pa.float64()) for name in _CURVES)])
STABILITY = pa.schema(
    [
        ("replicate", pa.int32()),
        ("k", pa.int64()),
        ("pair", pa.int32()),
        ("share", pa.float64()),
        *((name, pa.float64()) for name in ("train_accuracy", "validation_accuracy", "test_accuracy")),
    ]
)

PLACED = tuple(name for name, _ in _PLACE)
"""Where in the experiment a row stands."""

_ROW = (*PLACED, "weights", "weights_total", "run", "diverged", "iterations")
_LAYER = (*PLACED, "layer", "weights", "weights_total")
_POINT = (*PLACED, "iteration")
"""What each row of the three tables has."""


@dataclass(frozen=True)
class Tally:
    """What one command did."""

    trained: NonNegativeInt = 0
    from_store: NonNegativeInt = 0
    diverged: NonNegativeInt = 0


@dataclass(frozen=True)
class RunCost:
    """How long the runs of a branch at a level took, whenever they were trained."""

    level: NonNegativeInt
    branch: str
    runs: NonNegativeInt
    seconds: NonNegativeFloat
    """One by one."""


class _EngineWork(FrozenModel):
    """See `Results.engines`."""

    model_config = ConfigDict(extra="ignore")

    runs: NonNegativeInt
    seconds: NonNegativeFloat


class _Status(FrozenModel):
    """What `status.json` says. What older versions did not write has its default, what newer ones add is ignored."""

    model_config = ConfigDict(extra="ignore")

    finished: bool = False
    runs: Tally = Tally()
    inputs: tuple[PositiveInt, ...] = ()
    engines: dict[str, _EngineWork] = {}
    costs: list[RunCost] = []
    versions: dict[str, str] = {}
    command: str | None = None


@dataclass(frozen=True)
class Results:
    """What a results folder says."""

    recipe: Recipe
    rows: list[Row]
    finished: bool
    tally: Tally
    layers: list[dict[str, Any]] = field(default_factory=list)
    """The rows of `layers.parquet`."""
    engines: dict[str, dict[str, float]] = field(default_factory=dict)
    """By engine: how many `runs` it trained, whenever that was, and how many `seconds` they took one by one."""
    costs: list[RunCost] = field(default_factory=list)
    inputs: tuple[int, ...] = ()
    """The shape of one example."""
    versions: dict[str, str] = field(default_factory=dict)
    """What wrote it: tombola and the libraries that results depend on."""
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, one line each."""
    command: str | None = None
    """What made the results, where that is known."""
    stability: list[dict[str, Any]] = field(default_factory=list)
    """The rows of `stability.parquet`."""

    @property
    def collapsed(self) -> list[tuple[int, int, str]]:
        """(replicate, level, layer) wherever a ticket has a layer without a single weight."""
        return [
            (layer["replicate"], layer["level"], layer["layer"])
            for layer in self.layers
            if layer["branch"] == "ticket" and layer["weights"] == 0
        ]


def read_configuration(path: Path) -> Recipe:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return parse_recipe(table, source=str(path))


def read_status(folder: Path) -> tuple[_Status, list[str]]:
    """The status, its defaults where it cannot be had; and why it cannot, a line of it."""
    path = folder / "status.json"
    try:
        return _Status.model_validate_json(path.read_bytes()), []
    except FileNotFoundError:
        return _Status(), [f"{path} is not there (yet)"]
    except OSError as error:
        return _Status(), [f"{path} cannot be read: {error.strerror}"]
    except ValidationError as error:
        return _Status(), [f"{path} is damaged: {_first(error)}"]


def _first(error: ValidationError) -> str:
    """The first thing that is wrong."""
    found = error.errors(include_url=False)[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else found["msg"]


def read_results(folder: Path, lenient: bool = False) -> Results:
    """Read a results folder.

    Raises `InputError` when it is none, or a file of it is damaged; if it is to be `lenient` with damaged tables,
    what they would have said is missing, and `Results.problems` names them. There it also says when the status, which
    no verdict rests on, is missing or damaged.
    """
    configuration = folder / "experiment.toml"
    if not configuration.is_file():
        raise InputError(f"{folder} is not a results folder: it has no experiment.toml")
    recipe = read_configuration(configuration)
    status, problems = read_status(folder)
    tables: dict[str, list[Any]] = {}
    for name, read in (("levels", _read_levels), ("layers", _read_layers), ("stability", _read_stability)):
        try:
            tables[name] = read(folder / f"{name}.parquet")
        except InputError as error:
            if not lenient:
                raise
            problems.append(str(error))
            tables[name] = []
    return Results(
        recipe,
        tables["levels"],
        status.finished,
        status.runs,
        tables["layers"],
        {name: work.model_dump() for name, work in status.engines.items()},
        status.costs,
        status.inputs,
        status.versions,
        problems,
        status.command,
        tables["stability"],
    )


def _read_levels(path: Path) -> list[Row]:
    try:
        rows = [Row.from_dict(values) for values in read_table(path, LEVELS, _ROW)]
    except ValidationError as error:
        raise _damaged(path, _first(error)) from error
    for row in rows:
        if not row.measures.diverged and None in row.measures.model_dump().values():
            raise _damaged(path, f"replicate {row.replicate}, level {row.level}, {row.branch}: a figure is missing")
    return rows


def _read_layers(path: Path) -> list[dict[str, Any]]:
    return read_table(path, LAYERS, _LAYER)


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """The rows of `curves.parquet`. Raises `InputError` when it is damaged."""
    return read_table(folder / "curves.parquet", CURVES, _POINT)


def _read_stability(path: Path) -> list[dict[str, Any]]:
    return read_table(path, STABILITY, STABILITY.names[:4])


def read_table(path: Path, schema: pa.Schema, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a table, none if it is not there; columns that an older tombola did not write are None.

    Raises `InputError` when it is damaged: it has gaps where values are `needed`, or more weights left than weights.
    """
    if not path.exists():
        return []
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, schema=schema).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error
    for row in rows:
        missing = next((name for name in needed if row[name] is None), None)
        if missing:
            raise _damaged(path, f"{missing} is missing")
        if "weights" in needed and not 0 <= row["weights"] <= row["weights_total"] > 0:
            raise _damaged(path, f"{row['weights']} of {row['weights_total']} weights")
    return rows


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged: {why}; run the experiment again")


TICKET = "ticket.safetensors"
