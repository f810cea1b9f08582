"""Which runs of a store a results folder refers to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tombola.experiments import results_schema as schema
from tombola.experiments.file_names import STATUS
from tombola.experiments.folders import unreadable
from tombola.utils.errors import InputError
from tombola.zoo.models.description import parents_of_start

SLACK = 600.0
"""An outcome may be missing from tables that were written up to this many seconds after it was stored."""

Description = Mapping[str, Any]
"""The description of a run; see `BaseRun.description`."""


@dataclass(frozen=True)
class RunReferences:
    """What a results folder says about its runs."""

    folder: Path
    keys: frozenset[str]
    """The keys of the runs that it names."""
    complete: bool
    """Whether these are all its runs: the experiment is finished, and has listed them."""
    since: float
    """If it is not complete, outcomes stored after this time may belong to it: seconds since the epoch."""
    problems: list[str]
    """What could not be read, one line each."""

    def may_have(self, modified: float, description: Description, own: Collection[str]) -> bool:
        """Whether a run that the folder does not name may belong to the experiment: it was stored after the folder
        was written, or is of the same kind (see `kind_of`) as one of its `own` runs."""
        return not self.complete and (modified >= self.since or kind_of(description) in own)


def read_references(folder: Path) -> RunReferences:
    """The runs that a results folder names. A folder with damaged files counts as incomplete."""
    if why := unreadable(folder):
        return RunReferences(folder, frozenset(), complete=False, since=0.0, problems=[f"it {why}"])
    status, problems = schema.read_status(folder)
    named: set[str] = set()
    rows: set[str] = set()
    try:
        named = schema.read_runs(folder)
        rows = _keys_of_rows(folder)
    except InputError as error:
        problems = [*problems, str(error)]
    complete = status.finished and not problems and bool(named) and rows <= named
    keys = named | rows
    return RunReferences(folder, frozenset(keys), complete, _written(folder) - SLACK if keys else 0.0, problems)


def kind_of(description: Description) -> str:
    """A key that is the same for all runs of an experiment that train on the same data, or with the same function of
    the user."""
    if "data" in description:
        return json.dumps({name: value for name, value in description["data"].items() if name != "seed"})
    return str(description.get("procedure"))


def parents_of(description: Description) -> list[str]:
    """The keys of the runs whose final weights a run starts from."""
    return parents_of_start(description["start"])


def _keys_of_rows(folder: Path) -> set[str]:
    path = folder / "levels.parquet"
    if not path.exists():
        return set()
    try:
        return set(pq.read_table(path, columns=["run"])["run"].to_pylist())
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise schema.damaged(path, str(error).partition("\n")[0]) from error


def _written(folder: Path) -> float:
    """When the folder was last written."""
    try:
        return (folder / STATUS).stat().st_mtime
    except OSError:
        return SLACK
