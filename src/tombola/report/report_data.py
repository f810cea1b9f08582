"""The data of a report, as far as it can be read from a results folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tombola.experiments.results import TICKET, Results, read_results
from tombola.exports.export_result import EXPORT_FOLDER, FIGURES_FILE, Export, read_export
from tombola.stats.summarise import build_summary
from tombola.stats.summary import Summary
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError


@dataclass(frozen=True)
class ReportData:
    """The results of one experiment."""

    folder: Path
    results: Results
    summary: Summary
    curves: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, one line each."""
    export: Export | None = None
    """The measurements of the ticket's artefacts, if it was exported."""

    @property
    def ticket_layers(self) -> list[dict[str, Any]]:
        """The rows of layers of tickets."""
        return [layer for layer in self.results.layers if layer["branch"] == "ticket"]

    @property
    def percent_left(self) -> dict[int, float]:
        """The percentage of weights left, by level."""
        return {level.level: 100 * level.weights_left for level in self.summary.levels}


def read_report_data(results: str | Path | Results) -> ReportData:
    """The data of a report of `results`, or of those in a folder, of which damaged files are left out and named in
    `ReportData.problems`.

    Raises `InputError` if the folder is not a results folder.
    """
    return report_data(results if isinstance(results, Results) else read_results(results, lenient=True))


def report_data(results: Results) -> ReportData:
    """The data of a report of `results`, with the rest of their folder if they are from one."""
    problems = list(results.problems)
    try:
        curves = results.curves
    except InputError as error:
        curves = []
        problems.append(str(error))
    export = None
    if results.folder is not None:
        for name in ("levels", "layers", "curves"):
            if not (results.folder / f"{name}.parquet").exists():
                problems.append(f"{results.folder / f'{name}.parquet'} does not exist (yet)")
        export = _read_export(results.folder, problems)
    return ReportData(results.folder or Path(), results, build_summary(results), curves, problems, export)


def _read_export(folder: Path, problems: list[str]) -> Export | None:
    """The measurements in the folder of exports, if they are of this folder's ticket."""
    path = folder / EXPORT_FOLDER / FIGURES_FILE
    if not path.exists():
        return None
    try:
        export, key = read_export(path.parent), Ticket.load(folder / TICKET).provenance.get("key")
    except InputError as error:
        problems.append(str(error))
        return None
    if key is None or export.about.ticket.key != key:
        problems.append(f"{path.parent} is of another ticket: run `tombola ticket export` again")
        return None
    return export
