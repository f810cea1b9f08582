"""Results: the contents of an experiment's results folder, which can also be read without tombola.

    experiment.toml      the whole configuration, with all defaults
    levels.parquet       one row for each replicate x level x branch x draw (see `Row`)
    layers.parquet       one row for each of these x layer (see `LayerStats`)
    curves.parquet       one row for each of these x iteration: losses and accuracies
    stability.parquet    one row for each point on a line between two trainings, with a section [stability]
    runs.txt             the keys of all runs in the store, including those without rows
    ticket.safetensors   the smallest winning ticket, if there is one
    status.json          see `Status`

The order of rows does not depend on the order in which runs finish.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self, TypeVar

import pyarrow as pa
from pydantic import ValidationError

from tombola.experiments import results_schema as schema
from tombola.experiments.file_names import CONFIGURATION
from tombola.experiments.metric import Metric
from tombola.experiments.recipe import Recipe, parse_config
from tombola.experiments.recipe_parsing import read_toml
from tombola.experiments.results_schema import Row, RunCost, Stage, Status, Tally, read_table
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.session import Session
from tombola.utils.errors import InputError, unknown
from tombola.utils.former_names import former_attribute
from tombola.utils.text import plural

TICKET = "ticket.safetensors"

T = TypeVar("T")


def _no_table(name: str) -> pa.Table:
    """An empty table."""
    return schema.TABLES[name].empty_table()


@dataclass(frozen=True, repr=False)
class Results:
    """The contents of a results folder; `layers` and `stability` are the rows of these tables."""

    config: SearchConfig
    rows: list[Row]
    finished: bool
    tally: Tally
    layers: list[dict[str, Any]] = field(default_factory=list)
    engines: dict[str, dict[str, float]] = field(default_factory=dict)
    """By engine: the number of `runs` that it trained, now or earlier, and the sum of their `seconds`."""
    costs: list[RunCost] = field(default_factory=list)
    inputs: tuple[int, ...] = ()
    """The shape of one example."""
    versions: dict[str, str] = field(default_factory=dict)
    """The versions of tombola and of the libraries that results depend on."""
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, one line each."""
    command: str | None = None
    stability: list[dict[str, Any]] = field(default_factory=list)
    matrix_weights: int | None = None
    """The number of all matrix weights of the network, prunable or not; None if unknown."""
    copies: list[int] = field(default_factory=list)
    """The replicates that ended in the same weights as others, and so are not independent evidence."""
    stages: list[Stage] = field(default_factory=list)
    """The sizes at which the experiment was finished, in order, if it was extended."""
    sessions: list[Session] = field(default_factory=list, compare=False)
    """When, where and by what its runs were trained; empty in folders of older versions."""
    folder: Path | None = field(default=None, compare=False)
    """The folder that the results were read from; None if they were not read from a folder."""
    load_table: Callable[[str], pa.Table] = field(default=_no_table, compare=False)
    """Returns a table by its name, with the columns of its file."""
    _derived: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, compare=False)

    recipe = former_attribute("recipe", "config")

    @classmethod
    def from_status(cls, config: SearchConfig, rows: list[Row], status: Status, **tables: Any) -> Self:
        """The results with the contents of a status."""
        return cls(
            config,
            rows,
            finished=status.finished,
            tally=status.runs,
            engines={name: totals.model_dump() for name, totals in status.engines.items()},
            costs=status.costs,
            inputs=status.inputs,
            matrix_weights=status.matrix_weights,
            versions=status.versions,
            command=status.command,
            copies=status.copies,
            stages=status.stages,
            sessions=status.sessions,
            **tables,
        )

    @functools.cached_property
    def curves(self) -> list[dict[str, Any]]:
        """The rows of the table of curves. The table is large, so it is read on first use. Raises `InputError` if it
        is damaged."""
        rows: list[dict[str, Any]] = self.load_table("curves").to_pylist()
        return rows

    def derived(self, make: Callable[[Self], T]) -> T:
        """The value that `make` computes from these results; computed once."""
        if make not in self._derived:
            self._derived[make] = make(self)
        value: T = self._derived[make]
        return value

    def stored_in(self, folder: Path) -> Self:
        """The same results, with the tables in this folder."""
        return dataclasses.replace(self, folder=folder, load_table=functools.partial(schema.read_arrow, folder))

    def frame(self, table: str = "levels") -> Any:
        """A table, "levels", "layers", "curves" or "stability", as in its file: a `pandas.DataFrame` if pandas is
        installed, else a `pyarrow.Table`.

        Raises `InputError` for another name, and if the table is damaged.
        """
        if table not in schema.TABLES:
            raise unknown("table", table, schema.TABLES)
        found = self.load_table(table)
        return found if find_spec("pandas") is None else found.to_pandas()

    def __repr__(self) -> str:
        return f"<Results of {self.config.name}: {self._counts}>"

    @property
    def _counts(self) -> str:
        return f"{plural(self.config.replicates, 'replicate')}, {plural(len(self.rows), 'run')}"

    def rows_of(self, branch: str, level: int) -> list[Row]:
        """The rows of a branch at a level."""
        return [row for row in self.rows if (row.branch, row.level) == (branch, level)]

    @property
    def metric(self) -> Metric:
        """The judged metric."""
        return self.config.judged(row.measures for row in self.rows)

    @property
    def barrier_metric(self) -> Metric:
        """The metric whose barriers on lines between trainings are measured."""
        return self.config.barrier_metric(row.measures for row in self.rows)

    @property
    def collapsed(self) -> list[tuple[int, int, str]]:
        """(replicate, level, layer) of each layer of a ticket that has no weights left."""
        return [
            (layer["replicate"], layer["level"], layer["layer"])
            for layer in self.layers
            if layer["branch"] == "ticket" and layer["weights"] == 0
        ]


def read_results(folder: str | Path, lenient: bool = False) -> Results:
    """Read a results folder.

    Raises `InputError` if it is not a results folder, or if a table is damaged; if `lenient`, a damaged table is left
    out and `Results.problems` names it. A missing or damaged status does not raise and is always named there: a
    verdict depends on the status only through the copies that it lists.
    """
    folder = Path(folder)
    configuration = folder / CONFIGURATION
    if not configuration.is_file():
        raise InputError(f"{folder} is not a results folder: it has no {CONFIGURATION}")
    config = parse_config(read_toml(configuration), source=str(configuration))
    status, problems = schema.read_status(folder)

    def table(name: str, read: Callable[[Path, str], list[Any]] = read_table) -> list[Any]:
        try:
            return read(folder, name)
        except InputError as error:
            if not lenient:
                raise
            problems.append(str(error))
            return []

    rows = table("levels", functools.partial(_read_rows, recipe=isinstance(config, Recipe)))
    tables = {"layers": table("layers"), "stability": table("stability")}
    load_table = functools.partial(schema.read_arrow, folder)
    return Results.from_status(
        config, rows, status, problems=problems, folder=folder, load_table=load_table, **tables
    )


def _read_rows(folder: Path, name: str, recipe: bool) -> list[Row]:
    path = folder / f"{name}.parquet"
    try:
        rows = [Row.from_dict(values) for values in read_table(folder, name)]
    except ValidationError as error:
        raise schema.damaged(path, schema.first_error(error)) from error
    for row in rows:
        if recipe and not row.measures.diverged and any(row.measures[name] is None for name in schema.FIGURES):
            where = f"replicate {row.replicate}, level {row.level}, {row.branch}"
            raise schema.damaged(path, f"{where}: a figure is missing")
    return rows
