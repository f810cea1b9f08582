"""Material: all that a report is made of, as far as it can be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tombola.experiments.results import TICKET, Results, read_curves, read_results
from tombola.exports.export import MEASURED, SHIPPED, Export, read_export
from tombola.stats.summary import summarise
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError


@dataclass(frozen=True)
class ReportData:
    """The results of one experiment."""

    folder: Path
    results: Results
    summary: dict[str, Any]
    """See `tombola.stats.summary.summarise`."""
    curves: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is missing or damaged, a sentence each."""
    shipped: Export | None = None
    """What was measured of the ticket's artefacts, if it was exported."""

    @property
    def tickets_layers(self) -> list[dict[str, Any]]:
        """The rows of layers that are tickets'."""
        return [layer for layer in self.results.layers if layer["branch"] == "ticket"]


def read_report_data(folder: Path) -> ReportData:
    """Read a results folder. What is damaged is left out and named.

    Raises `InputError` when it is no results folder.
    """
    results = read_results(folder, lenient=True)
    problems = list(results.problems)
    try:
        curves = read_curves(folder)
    except InputError as error:
        curves = []
        problems.append(str(error))
    for name in ("levels", "layers", "curves"):
        if not (folder / f"{name}.parquet").exists():
            problems.append(f"{folder / f'{name}.parquet'} is not there (yet)")
    shipped = _shipped(folder, problems)
    return ReportData(folder, results, summarise(results), curves, problems, shipped)


def _shipped(folder: Path, problems: list[str]) -> Export | None:
    """What lies in the folder of exports, if that is of the folder's own ticket."""
    path = folder / SHIPPED / MEASURED
    if not path.exists():
        return None
    try:
        shipped, key = read_export(path.parent), Ticket.load(folder / TICKET).provenance.get("key")
    except InputError as error:
        problems.append(str(error))
        return None
    if key is None or shipped.about.ticket.key != key:
        problems.append(f"{path.parent} is of another ticket: run `tombola ticket export` again")
        return None
    return shipped
