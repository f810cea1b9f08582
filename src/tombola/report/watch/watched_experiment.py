"""How far an experiment is, as its results folder tells another process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tombola.experiments.experiment import count_runs
from tombola.experiments.experiment_title import experiment_title
from tombola.experiments.file_names import CONFIGURATION, STATUS
from tombola.experiments.live_mark import is_marked
from tombola.experiments.planning.expected_runs import why_at_most
from tombola.experiments.recipe import parse_config
from tombola.experiments.recipe_parsing import read_toml
from tombola.experiments.results import TICKET
from tombola.experiments.results_schema import TABLES, Status, read_status
from tombola.exports.export_result import EXPORT_FOLDER, FIGURES_FILE

READ = (CONFIGURATION, STATUS, *(f"{name}.parquet" for name in TABLES), TICKET, f"{EXPORT_FOLDER}/{FIGURES_FILE}")
"""The files in a results folder that a report depends on."""


@dataclass(frozen=True)
class ExperimentProgress:
    """How far an experiment is."""

    name: str
    state: Literal["waiting", "running", "interrupted", "finished"]
    """`waiting` if it has not begun."""
    done: int = 0
    """Runs."""
    expected: int = 0
    """All runs; at most so many, if `at_most`."""
    at_most: bool = False
    seconds_left: float | None = None
    """From `changed` on; None if unknown."""
    changed: float | None = None
    """When the results were last written, in seconds since the epoch."""


def read_progress(folder: Path) -> ExperimentProgress:
    """How far the experiment in `folder` is; a folder that is missing, or has no configuration, waits for one.

    Raises `InputError` if the configuration is invalid.
    """
    configuration = folder / CONFIGURATION
    if not configuration.is_file():
        return ExperimentProgress(folder.resolve().name, "waiting")
    config = parse_config(read_toml(configuration), source=str(configuration))
    status, _ = read_status(folder)
    done, expected = sum(cost.runs for cost in status.costs), count_runs(config)
    running = not status.finished and is_marked(folder)
    return ExperimentProgress(
        experiment_title(config, folder),
        "finished" if status.finished else "running" if running else "interrupted",
        done,
        max(done, expected),
        config.stability is not None or why_at_most(config) is not None,
        _seconds_left(folder, status, expected - done) if running else None,
        max((changed for _, changed, _ in _files(folder)), default=0) / 1e9 or None,
    )


def version(folder: Path) -> str:
    """Another text whenever a file in `folder` changes that a report depends on."""
    return hashlib.sha256(repr([*_files(folder)]).encode()).hexdigest()[:16]


def _seconds_left(folder: Path, status: Status, runs: int) -> float | None:
    """As many times the mean so far as there are `runs` to do. A command writes the configuration when it begins."""
    if not status.runs.trained:
        return None
    try:
        began, written = ((folder / name).stat().st_mtime for name in (CONFIGURATION, STATUS))
    except OSError:
        return None
    return max(0.0, (written - began) / status.runs.trained * runs)


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """The name, time of the last change in nanoseconds and size of each file there."""
    for name in READ:
        try:
            found = (folder / name).stat()
        except OSError:
            continue
        yield name, found.st_mtime_ns, found.st_size
