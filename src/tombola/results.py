"""Results: the folder of one experiment, which can be read without tombola.

    experiment.toml      the whole configuration, as it was resolved
    levels.parquet       one row for each replicate x level x branch x draw (see `Row`)
    layers.parquet       the same x layer: weights left, where they began and how far they went (see `Layer`)
    curves.parquet       the same x iteration: what was evaluated on the way
    ticket.safetensors   the smallest winning ticket, if there is one
    status.json          whether it is finished, what made it, what that trained, and how long it all took

Rows stand in a fixed order, whatever order the runs were answered in.
"""

from __future__ import annotations

import json
import logging
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from tombola.anatomy import anatomy
from tombola.differences import differences
from tombola.errors import InputError
from tombola.files import replacing
from tombola.outcome import Outcome
from tombola.recipe import Recipe, parse_recipe
from tombola.run import Described
from tombola.studies import Ask
from tombola.table import Row

log = logging.getLogger(__name__)

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

_PLACED = tuple(name for name, _ in _PLACE)
_ROW = (*_PLACED, "weights", "weights_total", "run", "diverged", "iterations")
_LAYER = (*_PLACED, "layer", "weights", "weights_total")
_POINT = (*_PLACED, "iteration")
"""What each row of the three tables has."""

WRITE_EVERY = 10.0
"""Seconds between writes of the tables while an experiment runs."""


def versions() -> dict[str, str]:
    """What computes here: tombola and the libraries that results depend on."""
    return {name: metadata.version(name) for name in ("tombola", "torch", "numpy")}


@dataclass(frozen=True)
class Tally:
    """What one command did."""

    trained: NonNegativeInt = 0
    from_store: NonNegativeInt = 0
    diverged: NonNegativeInt = 0


@dataclass(frozen=True)
class Cost:
    """How long the runs of a branch at a level took, whenever they were trained."""

    level: NonNegativeInt
    branch: str
    runs: NonNegativeInt
    seconds: NonNegativeFloat
    """One by one."""


class _Work(Described):
    """See `Results.engines`."""

    model_config = ConfigDict(extra="ignore")

    runs: NonNegativeInt
    seconds: NonNegativeFloat


class _Status(Described):
    """What `status.json` says. What older versions did not write has its default, what newer ones add is ignored."""

    model_config = ConfigDict(extra="ignore")

    finished: bool = False
    runs: Tally = Tally()
    inputs: tuple[PositiveInt, ...] = ()
    engines: dict[str, _Work] = {}
    costs: list[Cost] = []
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
    costs: list[Cost] = field(default_factory=list)
    inputs: tuple[int, ...] = ()
    """The shape of one example."""
    versions: dict[str, str] = field(default_factory=dict)
    """What wrote it: tombola and the libraries that results depend on."""
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, one line each."""
    command: str | None = None
    """What made the results, where that is known."""

    @property
    def collapsed(self) -> list[tuple[int, int, str]]:
        """(replicate, level, layer) wherever a ticket has a layer without a single weight."""
        return [
            (layer["replicate"], layer["level"], layer["layer"])
            for layer in self.layers
            if layer["branch"] == "ticket" and layer["weights"] == 0
        ]


@dataclass(frozen=True)
class _Answer:
    """What is noted of one run."""

    row: Row
    layers: dict[str, Any]
    """The columns of `layers.parquet`."""
    curves: dict[str, Any]
    """The columns of `curves.parquet`."""
    engine: str
    seconds: float


class ResultsFolder:
    """Listens to the conductor and keeps the tables of a results folder up to date."""

    def __init__(self, folder: Path, recipe: Recipe, command: str | None = None) -> None:
        """Start or go on with the experiment `recipe` in `folder`; `command` is what makes the results.

        Raises `InputError` when the folder cannot be written, holds something else, or belongs to an experiment
        of another configuration; the message says what differs.
        """
        self.folder = folder
        self.recipe = recipe
        self.tickets: dict[tuple[int, int], Ask] = {}
        """By (level, replicate)."""
        self._answers: dict[tuple[int, str, int, int], _Answer] = {}
        self._trained = 0
        self._inputs: tuple[int, ...] = ()
        self._next_write = time.monotonic() + WRITE_EVERY
        _open(folder, recipe)
        before, _ = _read_status(folder)
        self._complete_before = before.finished
        self._command = before.command if command is None else command

    def started(self, study: int, ask: Ask) -> None:
        """Nothing to note."""

    def answered(self, study: int, ask: Ask, outcome: Outcome, trained: bool) -> None:
        """Note what came of a run."""
        mask = ask.run.mask
        row = Row(study, ask.level, ask.branch, ask.draw, mask.count, mask.size, ask.run.key, outcome.measures)
        found = [asdict(layer) for layer in anatomy(ask.run, outcome)]
        layers = {name: [layer[name] for layer in found] for name in found[0]}
        curves = {name: values.numpy() for name, values in outcome.curves.items()}
        answer = _Answer(row, layers, curves, outcome.engine, outcome.seconds)
        self._answers[study, ask.branch, ask.level, ask.draw] = answer
        self._trained += trained
        self._inputs = ask.run.start.network.inputs
        if ask.branch == "ticket":
            self.tickets[ask.level, study] = ask
            for layer in mask.empty_layers:
                log.warning("replicate %d, level %d: layer %s has no weights left", study, ask.level, layer)
        if not self._complete_before and time.monotonic() > self._next_write:
            self.write(finished=False)

    @property
    def rows(self) -> list[Row]:
        """The rows so far, in order."""
        return [answer.row for answer in self._ordered()]

    def _ordered(self) -> list[_Answer]:
        """By replicate and level, the ticket before its controls."""

        def place(answer: _Answer) -> tuple[Any, ...]:
            row = answer.row
            return row.replicate, row.level, row.branch != "ticket", row.branch, row.draw

        return sorted(self._answers.values(), key=place)

    def write(self, finished: bool) -> None:
        """Write the tables as far as they go."""
        began = time.monotonic()
        answers = self._ordered()
        levels = pa.Table.from_pylist([answer.row.to_dict() for answer in answers], LEVELS)
        _write_table(self.folder / "levels.parquet", levels)
        _write_table(self.folder / "layers.parquet", _tidy(LAYERS, ((a.row, a.layers) for a in answers)))
        _write_table(self.folder / "curves.parquet", _tidy(CURVES, ((a.row, a.curves) for a in answers)))
        status = {
            "finished": finished,
            "runs": {
                "trained": self._trained,
                "from_store": len(answers) - self._trained,
                "diverged": sum(answer.row.measures.diverged for answer in answers),
            },
            "inputs": self._inputs,
            "engines": _engines(answers),
            "costs": [asdict(cost) for cost in _costs(answers)],
            "versions": versions(),
            "command": self._command,
        }
        with replacing(self.folder / "status.json") as temporary:
            temporary.write_text(json.dumps(status, indent=1) + "\n", encoding="utf-8")
        # Large tables take a while; never more than a twentieth of the time.
        self._next_write = time.monotonic() + max(WRITE_EVERY, 20 * (time.monotonic() - began))

    def interrupted(self) -> None:
        """Write what there is, unless the folder held more from before."""
        if not self._complete_before:
            self.write(finished=False)


def _engines(answers: Sequence[_Answer]) -> dict[str, dict[str, float]]:
    """See `Results.engines`."""
    engines: dict[str, dict[str, float]] = {}
    for answer in answers:
        engine = engines.setdefault(answer.engine, {"runs": 0, "seconds": 0.0})
        engine["runs"] += 1
        engine["seconds"] += answer.seconds
    return engines


def _costs(answers: Sequence[_Answer]) -> list[Cost]:
    """See `Cost`."""
    seconds: dict[tuple[int, str], list[float]] = {}
    for answer in answers:
        seconds.setdefault((answer.row.level, answer.row.branch), []).append(answer.seconds)
    return [Cost(level, branch, len(each), sum(each)) for (level, branch), each in sorted(seconds.items())]


def _tidy(schema: pa.Schema, parts: Iterable[tuple[Row, Mapping[str, Any]]]) -> pa.Table:
    """One table of the columns of all parts, each row with the place it belongs to; missing columns are null."""
    batches = []
    for row, columns in parts:
        length = len(next(iter(columns.values()), ()))
        place = {name: [getattr(row, name)] * length for name, _ in _PLACE}
        values = {**dict.fromkeys(schema.names, [None] * length), **place, **columns}
        arrays = [pa.array(values[field.name], type=field.type) for field in schema]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema).combine_chunks()


def _write_table(path: Path, table: pa.Table) -> None:
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _open(folder: Path, recipe: Recipe) -> None:
    """Make the folder this experiment's, or find that it is."""
    configuration = folder / "experiment.toml"
    try:
        if configuration.exists():
            there = _read_configuration(configuration)
            found = differences([there.resolved(), recipe.resolved()])
            if found:
                listed = [f"{key} is {_said(a)} there and {_said(b)} here" for key, (a, b) in sorted(found.items())]
                raise InputError(
                    f"{folder} belongs to another configuration: {'; '.join(listed)}. Name another folder with --out"
                )
        elif folder.exists() and any(not path.name.endswith(".tmp") for path in folder.iterdir()):
            raise InputError(f"{folder} is not empty and no results folder; name another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(configuration) as temporary:
            temporary.write_text(tomli_w.dumps(recipe.resolved()), encoding="utf-8")
    except OSError as error:
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}") from error


def _read_configuration(path: Path) -> Recipe:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return parse_recipe(table, source=str(path))


def _said(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _read_status(folder: Path) -> tuple[_Status, list[str]]:
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
    recipe = _read_configuration(configuration)
    status, problems = _read_status(folder)
    tables: dict[str, list[Any]] = {}
    for name, read in (("levels", _read_levels), ("layers", _read_layers)):
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
