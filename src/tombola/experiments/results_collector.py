"""ResultsCollector: collects the contents of a results folder while an experiment runs."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tombola.engines.custom.direction import check_direction
from tombola.experiments.copies import Copies, copies_text, sketch, tolerances
from tombola.experiments.custom_config import CustomConfig
from tombola.experiments.layer_stats import layer_stats
from tombola.experiments.line_ends import LineEnds
from tombola.experiments.metric import Metric
from tombola.experiments.results import Results
from tombola.experiments.results_schema import (
    EngineTotals,
    Row,
    RunCost,
    Stage,
    Status,
    Tally,
    levels_table,
    table_of,
)
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.session import Session
from tombola.experiments.stability_table import RECIPE_FIGURES, own_figures, point_row, stability_table
from tombola.pruning.mask import State
from tombola.pruning.structures import UNSTRUCTURED, Structure
from tombola.runs.outcome import FIGURE_PREFIX, Outcome
from tombola.runs.without_parametrization import without_parametrization
from tombola.studies.conductor import Listener
from tombola.studies.request import INTERMEDIATE, InterpolationPoint, RequestId, RunRequest
from tombola.utils.libraries import versions
from tombola.zoo.models.description import Start

log = logging.getLogger(__name__)

MAX_BYTES = 2**28
"""The size of the cache of initial states."""


RowKey = tuple[int, int, bool, str, int]
"""See `row_key`."""


def row_key(replicate: int, level: int, branch: str, draw: int) -> RowKey:
    """What tables are ordered by: replicate and level, the ticket before its controls."""
    return replicate, level, branch != "ticket", branch, draw


@dataclass(frozen=True)
class RunTables:
    """The additions of one ticket or control to the tables: a row of levels, and columns of layers and of curves."""

    row: Row
    layers: dict[str, Any]
    curves: dict[str, Any]


@dataclass(frozen=True)
class _FinishedRun:
    """What the status needs to know about a run."""

    level: int
    branch: str
    engine: str
    seconds: float
    diverged: bool


class ResultsCollector(Listener):
    """Collects the outcomes of an experiment's runs."""

    def __init__(
        self,
        config: SearchConfig,
        initial_state: Callable[[Start], State],
        matrix_weights: int | None = None,
        command: str | None = None,
        find_copies: bool = False,
        among: int = 1,
        structure: Structure = UNSTRUCTURED,
    ) -> None:
        """`initial_state` makes the parameters and buffers that a training starts with. With `find_copies`,
        replicates that end in the same weights are found. `among` is the number of collectors that share the memory
        for caches. `structure` is the structure of the search."""
        self.config = config
        self.matrix_weights = matrix_weights
        self.command = command
        self.tickets: dict[tuple[int, int], RunRequest] = {}
        """By (level, replicate)."""
        self.stages: list[Stage] = []
        """The sizes at which the experiment was finished before."""
        self.sessions: list[Session] = []
        """Those that trained before."""
        self._session = Session.begin()
        self._structure = structure
        self._initial_states = InitialStates(initial_state, among)
        self._find_copies = find_copies
        self._copies = Copies()
        self._tolerated: dict[int, dict[str, float]] = {}  # by replicate, of its dense training
        self._tables: dict[RowKey, RunTables] = {}
        self._points: dict[tuple[int, int, int, InterpolationPoint], dict[str, Any]] = {}
        self._runs: dict[tuple[int, RequestId], _FinishedRun] = {}
        self._stability_runs: dict[tuple[int, str], _FinishedRun] = {}  # by key, as lines may share an end
        self._ends = LineEnds()
        self._judged: Metric | None = None  # by the user's functions, if they return figures
        self._warned: set[str] = set()
        self._trained = 0
        self._inputs: tuple[int, ...] = ()

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Add the outcome of a run."""
        diverged = outcome.measures.diverged
        run = _FinishedRun(request.level, request.branch, outcome.engine, outcome.seconds, diverged)
        self._trained += trained
        self._inputs = request.run.start.network.inputs
        if request.point is not None:
            self._stability_runs[study, request.run.key] = run
            figures = own_figures(outcome) if isinstance(self.config, CustomConfig) else RECIPE_FIGURES
            row = point_row(study, request.level, request.draw, request.point, outcome, figures)
            # If ends of lines are evaluated again, that replaces what their trainings measured.
            self._points[study, request.level, request.draw, request.point] = row
            if isinstance(self.config, CustomConfig):
                self._check_ends(study, request, outcome)
        else:
            self._runs[study, request.request_id] = run
            if request.branch not in INTERMEDIATE:
                self._add(study, request, outcome)

    def _add(self, study: int, request: RunRequest, outcome: Outcome) -> None:
        run, start = request.run, self._initial_states(request.run.start)
        if not self._tables and isinstance(self.config, CustomConfig):
            self._check_figures(self.config, outcome)
        computed = without_parametrization(run, start, outcome)
        stats = [vars(layer) for layer in layer_stats(*computed, self._structure)]
        layers = {name: [layer[name] for layer in stats] for name in stats[0]}
        curves = {column_of(name): values.numpy() for name, values in outcome.curves.items()}
        tables = RunTables(Row.of(study, request, outcome), layers, curves)
        control, key = request.branch != "ticket", row_key(study, request.level, request.branch, request.draw)
        known = key in self._tables
        self._tables[key] = tables
        if self._judged is not None:
            self._check_judged(tables.row, self._judged)
        if not control:
            self.tickets[request.level, study] = request
            for layer in () if known else run.mask.empty_layers:
                log.warning("replicate %d, level %d: layer %s has no weights left", study, request.level, layer)
            if self._find_copies and not known:
                self._sketch(study, request, start, outcome)

    def _check_figures(self, config: CustomConfig, outcome: Outcome) -> None:
        """Check the figures that the user's functions returned in the first training."""
        curves = {name: curve for name, curve in outcome.curves.items() if name.startswith(FIGURE_PREFIX)}
        figures = {name.removeprefix(FIGURE_PREFIX): float(curve[-1]) for name, curve in curves.items()}
        tested = {
            name.removeprefix("test_").removesuffix("_at_stop"): value
            for name, value in outcome.measures.figures.items()
            if name.startswith("test_") and name.endswith("_at_stop")
        }
        check_direction(tested | figures, config.evaluation.minimize)
        if figures:
            self._judged = config.judged([outcome.measures])

    def _check_judged(self, row: Row, metric: Metric) -> None:
        """Log a warning at the first training that cannot be compared."""
        if not row.measures.diverged and row.measures[metric.at_stop] is None:
            place = f"the {row.branch} of replicate {row.replicate} at level {row.level}"
            text = f'the figure "{metric.name}" is missing or not finite for {place}: it cannot be compared'
            self._warn_once("figure", text)

    def _check_ends(self, study: int, request: RunRequest, outcome: Outcome) -> None:
        """Log a warning at the first line whose two trainings are the same in spite of different seeds."""
        if outcome.final and "ends" not in self._warned:
            start = self._initial_states(request.run.start)
            if text := self._ends.warning(study, request, start, outcome):
                self._warn_once("ends", text)

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s", text)

    def _sketch(self, study: int, request: RunRequest, start: State, outcome: Outcome) -> None:
        """Log a warning at the first copies."""
        mask = request.run.mask
        if request.level == 0:
            self._tolerated[study] = tolerances(mask, start, outcome.final)
        found = sketch(outcome.final, mask, self._tolerated.get(study, {}))
        self._copies.add(request.level, study, found)
        if "copies" not in self._warned and (text := copies_text(self.copies)):
            self._warn_once("copies", text)

    @property
    def copies(self) -> list[int]:
        """The replicates whose dense network or tickets ended in the same weights as those of another replicate."""
        return self._copies.replicates

    @property
    def keys(self) -> set[RowKey]:
        """The keys of the rows so far."""
        return {*self._tables}

    @property
    def run_keys(self) -> set[str]:
        """The keys in the store of all runs so far, including those without rows."""
        return {key for _, (*_, key) in self._runs} | {key for _, key in self._stability_runs}

    @property
    def rows(self) -> list[Row]:
        """The rows so far, in order."""
        return [tables.row for tables in self.tables]

    @property
    def tables(self) -> list[RunTables]:
        """The additions of all runs so far, in the order of `row_key`."""
        return [self._tables[key] for key in sorted(self._tables)]

    @property
    def points(self) -> list[dict[str, Any]]:
        """The points on lines between trainings."""
        return [*self._points.values()]

    def status(self, finished: bool) -> Status:
        """The status so far."""
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
            copies=self.copies,
            engines={engine: EngineTotals(runs=len(each), seconds=sum(each)) for engine, each in engines},
            costs=[RunCost(level, branch, len(each), sum(each)) for (level, branch), each in costs],
            versions=versions(),
            command=self.command,
            stages=self.stages + self._new_stage() if finished else self.stages,
            sessions=self.sessions + self._new_session(),
        )

    def _new_session(self) -> list[Session]:
        """This one, if it trained something, or if nothing is known of others."""
        return [self._session.until_now(self._trained)] if self._trained or not self.sessions else []

    def _new_stage(self) -> list[Stage]:
        """The size that is finished now, if it was not finished before."""
        rows = [row.to_dict() for row in self.rows]
        stage = Stage.of(rows) if rows else None
        return [] if stage is None or stage in self.stages[-1:] else [stage]

    def results(self, finished: bool) -> Results:
        """The results so far, as they would be read from a folder."""
        layers = self.table("layers").to_pylist() if finished else []
        stability = stability_table(self.points, every_column=True).to_pylist()
        tables = {"layers": layers, "stability": stability, "load_table": self.table}
        return Results.from_status(self.config, self.rows, self.status(finished), **tables)

    def table(self, name: str) -> pa.Table:
        """A table so far, with the columns of its file."""
        runs = self.tables
        if name == "levels":
            return levels_table([run.row for run in runs])
        if name == "stability":
            return stability_table(self.points)
        columns = [(run.row, run.layers if name == "layers" else run.curves) for run in runs]
        return table_of(name, columns)


def column_of(curve: str) -> str:
    """The column of the table of curves for this curve of an outcome; the user's figures are measured on validation
    examples."""
    return f"validation_{curve.removeprefix(FIGURE_PREFIX)}" if curve.startswith(FIGURE_PREFIX) else curve


def _by(key: Callable[[_FinishedRun], Any], runs: Iterable[_FinishedRun]) -> list[tuple[Any, list[float]]]:
    """The training times of runs with the same key, in order of the keys."""
    seconds: dict[Any, list[float]] = {}
    for run in runs:
        seconds.setdefault(key(run), []).append(run.seconds)
    return sorted(seconds.items())


class InitialStates:
    """A cache of the initial states that many runs share. It keeps the most recently used ones; all caches together
    have at most `MAX_BYTES`."""

    def __init__(self, make: Callable[[Start], State], among: int = 1) -> None:
        """`among` is the number of caches that share `MAX_BYTES`."""
        self._make = make
        self._among = among
        self._states: OrderedDict[str, State] = OrderedDict()
        self._bytes = 0

    def __call__(self, start: Start) -> State:
        key = start.model_dump_json()
        if key not in self._states:
            self._states[key] = state = self._make(start)
            self._bytes += _size(state)
            while self._bytes > MAX_BYTES // self._among and len(self._states) > 1:
                self._bytes -= _size(self._states.popitem(last=False)[1])
        self._states.move_to_end(key)
        return self._states[key]


def _size(state: State) -> int:
    return sum(tensor.nbytes for tensor in state.values())
