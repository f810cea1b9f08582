"""ResultsFolder: keeps the tables of a results folder up to date while an experiment runs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from tombola.experiments.layer_stats import layer_stats
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import (
    CURVES,
    LAYERS,
    LEVELS,
    PLACED,
    STABILITY,
    RunCost,
    read_configuration,
    read_status,
)
from tombola.experiments.row import Row
from tombola.runs.initial_state import Recall, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.studies.request import INTERMEDIATE, Position, RunRequest
from tombola.studies.stability import final_accuracy
from tombola.utils.differences import differences
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.versions import versions

log = logging.getLogger(__name__)

WRITE_EVERY = 10.0
"""Seconds between writes of the tables while an experiment runs."""


@dataclass(frozen=True)
class _Work:
    """What one run took."""

    level: int
    branch: str
    engine: str
    seconds: float
    diverged: bool


@dataclass(frozen=True)
class _Answer:
    """What came of one ticket or control."""

    row: Row
    layers: dict[str, Any]
    """The columns of `layers.parquet`."""
    curves: dict[str, Any]
    """The columns of `curves.parquet`."""


class ResultsWriter:
    """Listens to the conductor and keeps the tables of a results folder up to date."""

    def __init__(
        self, folder: Path, recipe: Recipe, command: str | None = None, recall: Recall = no_earlier_runs
    ) -> None:
        """Start or go on with the experiment `recipe` in `folder`; `command` is what makes the results. Weights that
        trainings left come from `recall`.

        Raises `InputError` when the folder cannot be written, holds something else, or belongs to an experiment
        of another configuration; the message says what differs.
        """
        self.folder = folder
        self.recipe = recipe
        self.tickets: dict[tuple[int, int], RunRequest] = {}
        """By (level, replicate)."""
        self._recall = recall
        self._answers: dict[tuple[int, str, int, int], _Answer] = {}
        self._points: dict[tuple[int, Position], dict[str, Any]] = {}
        self._works: dict[tuple[int, Position], _Work] = {}
        self._walks: dict[tuple[int, str], _Work] = {}  # of stability; by key, for lines may share an end
        self._trained = 0
        self._inputs: tuple[int, ...] = ()
        self._next_write = time.monotonic() + WRITE_EVERY
        _open(folder, recipe)
        before, _ = read_status(folder)
        self._complete_before = before.finished
        self._command = before.command if command is None else command

    def started(self, study: int, ask: RunRequest) -> None:
        """Nothing to note."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Note what came of a run."""
        work = _Work(ask.level, ask.branch, outcome.engine, outcome.seconds, outcome.measures.diverged)
        self._trained += trained
        self._inputs = ask.run.start.network.inputs
        if ask.point is not None:
            self._walks[study, ask.run.key] = work
            self._points[study, ask.place] = _point(study, ask, outcome)
        else:
            self._works[study, ask.place] = work
            if ask.branch not in INTERMEDIATE:
                self._note(study, ask, outcome)
        if not self._complete_before and time.monotonic() > self._next_write:
            self.write(finished=False)

    def _note(self, study: int, ask: RunRequest, outcome: Outcome) -> None:
        """Note a row of the tables."""
        mask = ask.run.mask
        row = Row(study, ask.level, ask.branch, ask.draw, mask.count, mask.size, ask.run.key, outcome.measures)
        found = [asdict(layer) for layer in layer_stats(ask.run, outcome, self._recall)]
        layers = {name: [layer[name] for layer in found] for name in found[0]}
        curves = {name: values.numpy() for name, values in outcome.curves.items()}
        self._answers[study, ask.branch, ask.level, ask.draw] = _Answer(row, layers, curves)
        if ask.branch == "ticket":
            self.tickets[ask.level, study] = ask
            for layer in mask.empty_layers:
                log.warning("replicate %d, level %d: layer %s has no weights left", study, ask.level, layer)

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
        if self._points:
            _write_table(self.folder / "stability.parquet", _sorted_points(self._points.values()))
        elsewhere = {(study, key) for study, (*_, key) in self._works}  # one end is the dense network's own run
        works = [*self._works.values(), *(work for run, work in self._walks.items() if run not in elsewhere)]
        status = {
            "finished": finished,
            "runs": {
                "trained": self._trained,
                "from_store": len(works) - self._trained,
                "diverged": sum(work.diverged for work in works),
            },
            "inputs": self._inputs,
            "engines": _engines(works),
            "costs": [asdict(cost) for cost in _costs(works)],
            "versions": versions(),
            "command": self._command,
        }
        with atomic_write(self.folder / "status.json") as temporary:
            temporary.write_text(json.dumps(status, indent=1) + "\n", encoding="utf-8")
        # Large tables take a while; never more than a twentieth of the time.
        self._next_write = time.monotonic() + max(WRITE_EVERY, 20 * (time.monotonic() - began))

    def interrupted(self) -> None:
        """Write what there is, unless the folder held more from before."""
        if not self._complete_before:
            self.write(finished=False)


def _engines(works: Iterable[_Work]) -> dict[str, dict[str, float]]:
    """See `Results.engines`."""
    engines: dict[str, dict[str, float]] = {}
    for work in works:
        engine = engines.setdefault(work.engine, {"runs": 0, "seconds": 0.0})
        engine["runs"] += 1
        engine["seconds"] += work.seconds
    return engines


def _costs(works: Iterable[_Work]) -> list[RunCost]:
    """See `RunCost`."""
    seconds: dict[tuple[int, str], list[float]] = {}
    for work in works:
        seconds.setdefault((work.level, work.branch), []).append(work.seconds)
    return [RunCost(level, branch, len(each), sum(each)) for (level, branch), each in sorted(seconds.items())]


def _point(study: int, ask: RunRequest, outcome: Outcome) -> dict[str, Any]:
    """A row of `stability.parquet`; its figures are missing where a training diverged."""
    assert ask.point is not None
    measures = outcome.measures
    return {
        "replicate": study,
        "k": ask.point.k,
        "pair": ask.draw,
        "share": ask.point.share,
        "train_accuracy": measures.train_accuracy,
        "validation_accuracy": None if measures.diverged else final_accuracy(outcome),
        "test_accuracy": measures.test_accuracy,
    }


def _sorted_points(points: Iterable[dict[str, Any]]) -> pa.Table:
    place = STABILITY.names[:4]
    return pa.Table.from_pylist(sorted(points, key=lambda point: [point[name] for name in place]), STABILITY)


def _tidy(schema: pa.Schema, parts: Iterable[tuple[Row, Mapping[str, Any]]]) -> pa.Table:
    """One table of the columns of all parts, each row with the place it belongs to; missing columns are null."""
    batches = []
    for row, columns in parts:
        length = len(next(iter(columns.values()), ()))
        place = {name: [getattr(row, name)] * length for name in PLACED}
        values = {**dict.fromkeys(schema.names, [None] * length), **place, **columns}
        arrays = [pa.array(values[field.name], type=field.type) for field in schema]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema).combine_chunks()


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _open(folder: Path, recipe: Recipe) -> None:
    """Make the folder this experiment's, or find that it is."""
    configuration = folder / "experiment.toml"
    try:
        if configuration.exists():
            there = read_configuration(configuration)
            found = differences([there.resolved(), recipe.resolved()])
            if found:
                listed = [f"{key} is {_said(a)} there and {_said(b)} here" for key, (a, b) in sorted(found.items())]
                raise InputError(
                    f"{folder} belongs to another configuration: {'; '.join(listed)}. Name another folder with --out"
                )
        elif folder.exists() and any(not path.name.endswith(".tmp") for path in folder.iterdir()):
            raise InputError(f"{folder} is not empty and no results folder; name another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(configuration) as temporary:
            temporary.write_text(tomli_w.dumps(recipe.resolved()), encoding="utf-8")
    except OSError as error:
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}") from error


def _said(value: Any) -> str:
    return "not set" if value is None else repr(value)
