"""The page that puts several experiments side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tombola.experiments.experiment_title import configured_as
from tombola.report.comparison_tables import common_table
from tombola.report.document import Document, Link, Section, Table
from tombola.report.figures.figure import Figure, FigureRow, MissingFigure, figure
from tombola.report.figures.level_chart import RULES, bands_that_matter, level_chart
from tombola.report.figures.level_figures import (
    COST_AXIS,
    GAP,
    STOP,
    Measure,
    cost_rows,
    judged_measure,
    level_axis,
    measure_rows,
)
from tombola.report.formatting import NONE, density, mean
from tombola.report.prose import conclusion, without_winner
from tombola.report.provenance_section import documentation, facts, links, provenance_tables, written
from tombola.report.report_data import ReportData
from tombola.report.units import units_of
from tombola.stats.experiment_comparison import unique_labels
from tombola.utils.differences import differences
from tombola.utils.text import plural

MAX_CONCLUSIONS = 3
"""The largest number of conclusions above the figures; more would push them off the first screen and are below."""

GAP_CAPTION = "Accuracy on the training examples minus accuracy on the test set, both at early stop."


def comparison(experiments: Sequence[ReportData], page: Path | None = None, report: str = "") -> Document:
    """The page that compares several experiments. If it becomes the file `page`, it has links to the files named
    `report` in the results folders."""
    labels = unique_labels([e.results.folder for e in experiments], [e.results.config.name for e in experiments])
    named = dict(zip(labels, experiments, strict=True))
    caption = (
        "Solid lines: tickets; broken lines: controls. Bands: confidence intervals of the mean; of few replicates "
        "the lowest to the highest value."
    )
    first = [
        *(_overlaid(named, measure, caption) for measure in _judged(experiments)),
        _overlaid(named, STOP, "Lower is sooner."),
    ]
    conclusions = [(label, conclusion(data.summary)) for label, data in named.items()]
    few = len(conclusions) <= MAX_CONCLUSIONS
    paragraphs = [] if few else [f"{label}: {text}" for label, text in conclusions]
    problems = [
        f"{label}: {problem}."
        for label, data in named.items()
        for problem in [*([] if data.results.finished else ["not finished"]), *data.problems]
    ]
    return Document(
        title="Experiments side by side",
        window_title=", ".join(named),
        about=f"{plural(len(named), 'experiment')}: {', '.join(named)}",
        conclusions=conclusions if few else [],
        first=Section("first", "What is judged, and early stop", parts=first),
        sections=[
            Section("experiments", "The experiments", paragraphs, [_table(named), *_common(named)]),
            Section(
                "generalisation", "Generalisation and cost", parts=[_overlaid(named, GAP, GAP_CAPTION), _costs(named)]
            ),
            Section("differences", "What differs in their configurations", *_differences(named)),
            _provenance(named),
        ],
        problems=problems,
        links=_links(named, page, report),
    )


def _judged(experiments: Sequence[ReportData]) -> list[Measure]:
    """The judged metric of each experiment, once; their names tell them apart."""
    found = {data.summary.metric: judged_measure(data.summary) for data in experiments}
    names = [measure.name for measure in found.values()]
    return [
        measure if names.count(measure.name) == 1 else replace(measure, name=f"{measure.name}-{index}")
        for index, measure in enumerate(found.values(), 1)
    ]


def _overlaid(named: Mapping[str, ReportData], measure: Measure, caption: str) -> Figure | MissingFigure:
    summaries = [data.summary for data in named.values()]
    judged = [
        (summary, [row for row in measure_rows(summary, measure) if row["branch"] not in RULES])
        for summary in summaries  # the dense network is the first point of tickets
    ]
    banded = bands_that_matter([summary.criteria.control for summary in summaries], len(named))
    axis = level_axis(judged, measure, banded)
    rows = [{"experiment": label, **row} for label, (_, rows) in zip(named, judged, strict=True) for row in rows]
    return figure(measure.name, measure.title, caption, level_chart(rows, axis, banded, list(named)), rows)


def _costs(named: Mapping[str, ReportData]) -> Figure | MissingFigure:
    rows: list[FigureRow] = [{"experiment": label, **row} for label, data in named.items() for row in cost_rows(data)]
    caption = "The mean time of one training, whenever and on whichever engine it was trained."
    return figure("cost", "Cost of a run", caption, level_chart(rows, COST_AXIS, (), list(named)), rows)


def _table(named: Mapping[str, ReportData]) -> Table:
    rows = []
    units = {label: units_of(data.summary) for label, data in named.items()}
    configured = {label: [configured_as(data.results.config)] for label, data in named.items()}
    if all([label] == configured[label] for label in named):
        configured = {label: [] for label in named}  # it says nothing new
    names = {each.name for each in units.values()}
    for label, data in named.items():
        summary = data.summary
        dense, found = summary.dense, summary.smallest_winning
        judged = NONE if dense is None else units[label].mean(dense[summary.metric.at_stop])
        rows.append(
            [
                label,
                *configured[label],
                str(data.folder),
                f"{summary.replicates:,}",
                judged if len(names) == 1 else f"{units[label].name} {judged}",
                NONE if dense is None else mean(dense["stop_iteration"], ",.0f"),
                density(found) if found else without_winner(summary),
                f"{found.weights:,}" if found else NONE,
                f"{sum(engine.seconds for engine in summary.engines.values()):,.0f} s",
            ]
        )
    means = [f"dense: {names.pop()}" if len(names) == 1 else "dense", "dense: early stop"]
    about = ["experiment", *(["configuration"] if any(configured.values()) else []), "folder"]
    head = [*about, "replicates", *means, "smallest winning", "weights", "computing"]
    return Table("experiments-table", "Side by side", head, rows, frozenset(range(len(about))))


def _common(named: Mapping[str, ReportData]) -> list[Table]:
    """Empty if the experiments have no level in common."""
    head, rows = common_table({label: data.summary for label, data in named.items()})
    caption = "Tickets at the levels at which all experiments have about as many weights left"
    return [Table("common-levels", caption, head, rows, frozenset({0, len(head) - 1}))] if rows else []


def _differences(named: Mapping[str, ReportData]) -> tuple[list[str], list[Table]]:
    found = differences([data.results.config.resolved() for data in named.values()])
    if not found:
        return ["Nothing."], []
    rows = [[key, *(NONE if value is None else str(value) for value in values)] for key, values in found.items()]
    caption = "Configuration keys whose values differ; – means not set"
    return [], [Table("differences-table", caption, ["key", *named], rows, frozenset(range(1 + len(named))))]


def _provenance(named: Mapping[str, ReportData]) -> Section:
    found = {label: facts(data.results, data.results.sessions) for label, data in named.items()}
    return Section("provenance", "Provenance", [written()], provenance_tables(found))


def _links(named: Mapping[str, ReportData], page: Path | None, report: str) -> list[Link]:
    """To the reports beside the results, and to the documentation."""
    if page is None or not report:
        return documentation()
    reports = [links(data.results, page, f"{label}/", [report]) for label, data in named.items()]
    return [*(link for found in reports for link in found), *documentation()]
