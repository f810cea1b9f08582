"""The report of a results folder that changes."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

from tombola.experiments.file_names import CONFIGURATION
from tombola.report.document import Document, Section
from tombola.report.formatting import percent
from tombola.report.html import render
from tombola.report.page_sections import document
from tombola.report.report_data import read_report_data
from tombola.report.watch.watched_experiment import version
from tombola.stats.summary import Summary
from tombola.utils.errors import InputError

PAUSE = 4
"""How many times as long as a page took to make it is not made again."""


class WatchedPage:
    """The report of `folder`, made again when it is asked for and files have changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._html = ""
        self._version = ""
        self._next = 0.0

    @property
    def version(self) -> str:
        """Another text whenever `html` gives another page."""
        return self._version if time.monotonic() < self._next else version(self._folder)

    @property
    def html(self) -> str:
        """The page."""
        with self._lock:
            if (current := self.version) != self._version:  # before the files are read, which may change meanwhile
                began = time.monotonic()
                self._html = render(_document(self._folder), pictures=False)
                self._version = current
                self._next = time.monotonic() + PAUSE * (time.monotonic() - began)
            return self._html


def _document(folder: Path) -> Document:
    """The report, as far as it can be made."""
    name = folder.resolve().name
    if not (folder / CONFIGURATION).exists():
        return _note(name, f"{folder} has no experiment yet. When one begins there, its report is shown here.")
    try:
        data = read_report_data(folder)
    except InputError as error:
        return _note(name, "The report cannot be made.", str(error))
    if not data.results.rows:
        return _note(data.results.config.name, "No run has ended yet.", *data.problems)
    report = document(data)
    if data.results.finished:
        return report
    return dataclasses.replace(report, notes=[_provisional(data.summary), *report.notes])


def _note(title: str, text: str, *problems: str) -> Document:
    first = Section("first", "Report")
    return Document(title, "", [("", text)], first, problems=problems)


def _provisional(summary: Summary) -> str:
    """What the reader may conclude before all runs are done."""
    return (
        f"Provisional: a level is tested when all its {summary.replicates:,} replicates are there. If you stop, or "
        f"add replicates, because of what you see here, the probability of a false winner is larger than "
        f"{percent(1 - summary.criteria.confidence)}; looks that are planned beforehand (verdict.looks) keep to it."
    )
