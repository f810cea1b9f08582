"""ResultsWriter: keeps a results folder up to date while its experiment runs."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import tomli_w

from tombola.experiments import results_schema as schema
from tombola.experiments.layer_stats import layer_stats
from tombola.experiments.recipe import Recipe, parse_recipe
from tombola.experiments.recipe_parsing import read_toml
from tombola.experiments.results import CONFIGURATION
from tombola.experiments.results_schema import EngineTotals, Row, RunCost, Status, Tally
from tombola.pruning.mask import State
from tombola.runs.initial_state import StateLoader, initial_state, no_stored_states
from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import INTERMEDIATE, RequestId, RunRequest
from tombola.studies.stability import final_accuracy
from tombola.utils.differences import differences
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write, writing
from tombola.utils.libraries import versions
from tombola.zoo.models.description import Start

log = logging.getLogger(__name__)

WRITE_EVERY = 10.0
"""Seconds between writes of the tables while an experiment runs."""

MAX_BYTES = 2**28
"""The size of the cache of initial states."""


@dataclass(frozen=True)
class _RunTables:
    """What one ticket or control adds to the tables: a row of levels, and columns of layers and of curves."""

    row: Row
    layers: dict[str, Any]
    curves: dict[str, Any]


@dataclass(frozen=True)
class _FinishedRun:
    """What the status needs of a run."""

    level: int
    branch: str
    engine: str
    seconds: float
    diverged: bool


class ResultsWriter(Listener):
    """Collects the outcomes of an experiment's runs and writes them to its folder."""

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        command: str | None = None,
        load_state: StateLoader = no_stored_states,
        matrix_weights: int | None = None,
    ) -> None:
        """Start or resume the experiment `recipe` in `folder`; `load_state` gives the final states of earlier runs.

        Raises `InputError` if the folder cannot be written, has other contents, or belongs to another configuration;
        the message names the differences.
        """
        self.folder = folder
        self.recipe = recipe
        self.matrix_weights = matrix_weights
        self.tickets: dict[tuple[int, int], RunRequest] = {}
        """By (level, replicate)."""
        self._initial_states = InitialStates(load_state)
        self._tables: dict[tuple[int, int, bool, str, int], _RunTables] = {}
        self._points: dict[tuple[int, RequestId], dict[str, Any]] = {}
        self._runs: dict[tuple[int, RequestId], _FinishedRun] = {}
        self._stability_runs: dict[tuple[int, str], _FinishedRun] = {}  # by key, as lines may share an end
        self._trained = 0
        self._inputs: tuple[int, ...] = ()
        self._next_write = time.monotonic() + WRITE_EVERY
        _claim(folder, recipe)
        before, _ = schema.read_status(folder)
        self._complete_before = before.finished
        self._command = before.command if command is None else command

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Add the outcome of a run."""
        diverged = outcome.measures.diverged
        run = _FinishedRun(request.level, request.branch, outcome.engine, outcome.seconds, diverged)
        self._trained += trained
        self._inputs = request.run.start.network.inputs
        if request.point is not None:
            self._stability_runs[study, request.run.key] = run
            self._points[study, request.request_id] = {
                "replicate": study,
                "k": request.point.k,
                "pair": request.draw,
                "share": request.point.share,
                "train_accuracy": outcome.measures["train_accuracy"],
                "validation_accuracy": None if diverged else final_accuracy(outcome),
                "test_accuracy": outcome.measures["test_accuracy"],
            }
        else:
            self._runs[study, request.request_id] = run
            if request.branch not in INTERMEDIATE:
                self._add(study, request, outcome)
        if not self._complete_before and time.monotonic() > self._next_write:
            self.write(finished=False)

    def _add(self, study: int, request: RunRequest, outcome: Outcome) -> None:
        run = request.run
        stats = [asdict(layer) for layer in layer_stats(run, self._initial_states(run.start), outcome)]
        layers = {name: [layer[name] for layer in stats] for name in stats[0]}
        curves = {name: values.numpy() for name, values in outcome.curves.items()}
        tables = _RunTables(Row.of(study, request, outcome), layers, curves)
        control = request.branch != "ticket"
        self._tables[study, request.level, control, request.branch, request.draw] = tables
        if not control:
            self.tickets[request.level, study] = request
            for layer in run.mask.empty_layers:
                log.warning("replicate %d, level %d: layer %s has no weights left", study, request.level, layer)

    @property
    def rows(self) -> list[Row]:
        """The rows so far, in order."""
        return [tables.row for tables in self._ordered()]

    def _ordered(self) -> list[_RunTables]:
        """By replicate and level, the ticket before its controls."""
        return [self._tables[key] for key in sorted(self._tables)]

    def write(self, finished: bool) -> None:
        """Write the tables of all runs so far, and the status."""
        began = time.monotonic()
        runs = self._ordered()
        tables = {
            "levels": pa.Table.from_pylist([run.row.to_dict() for run in runs], schema.LEVELS),
            "layers": schema.table_of("layers", ((run.row, run.layers) for run in runs)),
            "curves": schema.table_of("curves", ((run.row, run.curves) for run in runs)),
        }
        if self._points:
            points = sorted(self._points.values(), key=lambda point: [point[name] for name in schema.STABILITY_KEY])
            tables["stability"] = pa.Table.from_pylist(points, schema.STABILITY)
        for name, table in tables.items():
            schema.write_table(self.folder, name, table)
        with atomic_write(self.folder / "status.json") as temporary:
            temporary.write_text(self._status(finished).model_dump_json(indent=1) + "\n", encoding="utf-8")
        # Large tables take a while to write: at most a twentieth of the time.
        self._next_write = time.monotonic() + max(WRITE_EVERY, 20 * (time.monotonic() - began))

    def _status(self, finished: bool) -> Status:
        counted = {(study, key) for study, (*_, key) in self._runs}  # one end of a line is the dense network's run
        lines = [run for key, run in self._stability_runs.items() if key not in counted]
        runs = [*self._runs.values(), *lines]
        costs = _by(lambda run: (run.level, run.branch), runs)
        engines = _by(lambda run: run.engine, runs)
        return Status(
            finished=finished,
            runs=Tally(self._trained, len(runs) - self._trained, sum(run.diverged for run in runs)),
            inputs=self._inputs,
            matrix_weights=self.matrix_weights,
            engines={engine: EngineTotals(runs=len(each), seconds=sum(each)) for engine, each in engines},
            costs=[RunCost(level, branch, len(each), sum(each)) for (level, branch), each in costs],
            versions=versions(),
            command=self._command,
        )

    def interrupted(self) -> None:
        """Write the tables of all runs so far, unless the folder was complete before."""
        if not self._complete_before:
            self.write(finished=False)


def _by(key: Callable[[_FinishedRun], Any], runs: Iterable[_FinishedRun]) -> list[tuple[Any, list[float]]]:
    """The training times of runs with the same key, in order of the keys."""
    seconds: dict[Any, list[float]] = {}
    for run in runs:
        seconds.setdefault(key(run), []).append(run.seconds)
    return sorted(seconds.items())


class InitialStates:
    """A cache of the initial states that many runs share: the most recently used, up to `MAX_BYTES`."""

    def __init__(self, load_state: StateLoader = no_stored_states) -> None:
        self._load_state = load_state
        self._states: OrderedDict[str, State] = OrderedDict()
        self._bytes = 0

    def __call__(self, start: Start) -> State:
        key = start.model_dump_json()
        if key not in self._states:
            self._states[key] = state = initial_state(start, self._load_state)
            self._bytes += _size(state)
            while self._bytes > MAX_BYTES and len(self._states) > 1:
                self._bytes -= _size(self._states.popitem(last=False)[1])
        self._states.move_to_end(key)
        return self._states[key]


def _size(state: State) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _claim(folder: Path, recipe: Recipe) -> None:
    """Write the configuration to a new folder, or compare it with that of an existing one."""
    configuration = folder / CONFIGURATION
    with writing(folder):
        if configuration.exists():
            there = parse_recipe(read_toml(configuration), source=str(configuration))
            if found := differences([there.resolved(), recipe.resolved()]):
                listed = [f"{key} is {_shown(a)} there and {_shown(b)} here" for key, (a, b) in sorted(found.items())]
                raise InputError(
                    f"{folder} belongs to another configuration: {'; '.join(listed)}. Name another folder with --out"
                )
        elif folder.exists() and any(not path.name.endswith(".tmp") for path in folder.iterdir()):
            raise InputError(f"{folder} is neither empty nor a results folder; name another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(configuration) as temporary:
            temporary.write_text(tomli_w.dumps(recipe.resolved()), encoding="utf-8")


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
