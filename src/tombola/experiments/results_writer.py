"""ResultsWriter: keeps a results folder up to date while its experiment runs."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import tomli_w

from tombola.experiments import results_schema as schema
from tombola.experiments.file_names import CONFIGURATION
from tombola.experiments.growth import growth_of_folder, growth_text
from tombola.experiments.live_mark import LiveMark
from tombola.experiments.results_collector import ResultsCollector, row_key
from tombola.experiments.results_schema import Stage
from tombola.experiments.search_config import SearchConfig
from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write, writing

log = logging.getLogger(__name__)

WRITE_EVERY = 1.0
"""The least number of seconds between writes of the tables while an experiment runs."""

PAUSE = 20
"""How many times as long as a write took there is none."""

OVERDUE = 10.0
"""Seconds after which a write does not wait until all outcomes that are known have been answered."""


class ResultsWriter(Listener):
    """Passes outcomes to a collector, and writes the collector's contents to a folder."""

    def __init__(self, folder: Path, collector: ResultsCollector) -> None:
        """Start or resume the collector's experiment in `folder`.

        Raises `InputError` if the folder cannot be written, has other contents, or belongs to another configuration;
        the message names the differences.
        """
        self.folder = folder
        self._collector = collector
        self._next_write = time.monotonic()
        _claim(folder, collector.config)
        self._mark = LiveMark(folder)
        before, _ = schema.read_status(folder)
        self._complete_before = before.finished
        collector.stages = before.stages
        self._changed = True  # nothing has been written yet
        collector.sessions = before.sessions
        self._written = {row_key(**{name: row[name] for name in schema.KEY}) for row in _rows_there(folder)}
        if collector.command is None:
            collector.command = before.command

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """Collect the outcome. With many in the store, some time passes before the next training: then write."""
        self._collector.answered(study, request, outcome, trained)
        self._changed = True
        if time.monotonic() >= self._next_write + OVERDUE:
            self._write_unfinished()

    def between_trainings(self) -> None:
        """Write the tables if there is something new: at most every `WRITE_EVERY` seconds, and a twentieth of the
        time."""
        if self._changed and time.monotonic() >= self._next_write:
            self._write_unfinished()

    def write(self, finished: bool) -> None:
        """Write the tables of all runs so far, and the status."""
        began, collector = time.monotonic(), self._collector
        for name in schema.TABLES:
            if name != "stability" or collector.points:
                schema.write_table(self.folder, name, collector.table(name))
        schema.write_runs(self.folder, collector.run_keys)  # before the status: if that is finished, none is missing
        schema.write_status(self.folder, collector.status(finished))
        self._changed = False
        self._next_write = time.monotonic() + max(WRITE_EVERY, PAUSE * (time.monotonic() - began))
        if finished:
            self._mark.remove()

    def _write_unfinished(self) -> None:
        """Write the tables of all runs so far, unless the folder has more: it was complete, or its store is lost."""
        if not self._complete_before and self._written <= self._collector.keys:
            self.write(finished=False)
        else:
            self._next_write = time.monotonic() + WRITE_EVERY

    def interrupted(self) -> None:
        """Write the tables of all runs so far, unless the folder has more."""
        try:
            self._write_unfinished()
        finally:
            self._mark.remove()


def _rows_there(folder: Path) -> list[dict[str, Any]]:
    """The rows of the table of levels; empty if it cannot be read."""
    try:
        return schema.read_table(folder, "levels")
    except InputError:
        return []


def _claim(folder: Path, config: SearchConfig) -> None:
    """Write the configuration to a folder that is new, or whose experiment is the same or is extended."""
    configuration = folder / CONFIGURATION
    with writing(folder):
        grown = growth_of_folder(folder, config)
        other = not configuration.exists() and folder.exists()
        if other and any(not path.name.endswith(".tmp") for path in folder.iterdir()):
            raise InputError(f"{folder} is neither empty nor a results folder; name another one with --out")
        folder.mkdir(parents=True, exist_ok=True)
        if grown:
            log.info("%s", growth_text(folder, grown))
            _reopen(folder)  # first, because an experiment that grows is unfinished even if the next step fails
        with atomic_write(configuration) as temporary:
            temporary.write_text(tomli_w.dumps(config.resolved()), encoding="utf-8")


def _reopen(folder: Path) -> None:
    """Mark the experiment as unfinished, and remember that it was finished."""
    before, _ = schema.read_status(folder)
    rows = _rows_there(folder)
    first = [Stage.of(rows)] if before.finished and rows else []  # older versions did not write stages
    schema.write_status(folder, before.model_copy(update={"finished": False, "stages": before.stages or first}))
