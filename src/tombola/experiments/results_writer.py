"""ResultsWriter: keeps a results folder up to date while its experiment runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import tomli_w

from tombola.experiments import results_schema as schema
from tombola.experiments.recipe import parse_config
from tombola.experiments.recipe_parsing import read_toml
from tombola.experiments.results import CONFIGURATION
from tombola.experiments.results_collector import ResultsCollector
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.stability_table import stability_table
from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.utils.differences import differences
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write, writing

WRITE_EVERY = 10.0
"""Seconds between writes of the tables while an experiment runs."""


class ResultsWriter(Listener):
    """Hands outcomes on to a collector, and writes to a folder what that has."""

    def __init__(self, folder: Path, collector: ResultsCollector) -> None:
        """Start or resume the collector's experiment in `folder`.

        Raises `InputError` if the folder cannot be written, has other contents, or belongs to another configuration;
        the message names the differences.
        """
        self.folder = folder
        self._collector = collector
        self._next_write = time.monotonic() + WRITE_EVERY
        _claim(folder, collector.config)
        before, _ = schema.read_status(folder)
        self._complete_before = before.finished
        if collector.command is None:
            collector.command = before.command

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Write the tables from time to time."""
        self._collector.answered(study, request, outcome, trained)
        if not self._complete_before and time.monotonic() > self._next_write:
            self.write(finished=False)

    def write(self, finished: bool) -> None:
        """Write the tables of all runs so far, and the status."""
        began, collector = time.monotonic(), self._collector
        runs = collector.tables
        tables = {
            "levels": schema.levels_table([run.row for run in runs]),
            "layers": schema.table_of("layers", [(run.row, run.layers) for run in runs]),
            "curves": schema.table_of("curves", [(run.row, run.curves) for run in runs]),
        }
        if points := collector.points:
            tables["stability"] = stability_table(points)
        for name, table in tables.items():
            schema.write_table(self.folder, name, table)
        with atomic_write(self.folder / "status.json") as temporary:
            temporary.write_text(collector.status(finished).model_dump_json(indent=1) + "\n", encoding="utf-8")
        # Large tables take a while to write: at most a twentieth of the time.
        self._next_write = time.monotonic() + max(WRITE_EVERY, 20 * (time.monotonic() - began))

    def interrupted(self) -> None:
        """Write the tables of all runs so far, unless the folder was complete before."""
        if not self._complete_before:
            self.write(finished=False)


def _claim(folder: Path, config: SearchConfig) -> None:
    """Write the configuration to a new folder, or compare it with that of an existing one."""
    configuration = folder / CONFIGURATION
    with writing(folder):
        if configuration.exists():
            there = parse_config(read_toml(configuration), source=str(configuration))
            if found := differences([there.resolved(), config.resolved()]):
                listed = [f"{key} is {_shown(a)} there and {_shown(b)} here" for key, (a, b) in sorted(found.items())]
                raise InputError(
                    f"{folder} belongs to another configuration: {'; '.join(listed)}. Name another folder with --out"
                )
        elif folder.exists() and any(not path.name.endswith(".tmp") for path in folder.iterdir()):
            raise InputError(f"{folder} is neither empty nor a results folder; name another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(configuration) as temporary:
            temporary.write_text(tomli_w.dumps(config.resolved()), encoding="utf-8")


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
