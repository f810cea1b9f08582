"""The trainings of the dense network, and tickets compared with the best: tables for the terminal and the page."""

from __future__ import annotations

from rich.table import Table as TerminalTable
from rich.text import Text

from tombola.report.document import Section, Table
from tombola.report.formatting import density, percent, text_table
from tombola.report.measure_columns import MeasureColumn
from tombola.report.report_tables import difference
from tombola.report.units import margin_amount, units_of
from tombola.stats.summary import BaselineComparison, BaselineSummary, Summary


def trainings_table(summary: Summary, baseline: BaselineSummary, intervals: bool = True) -> TerminalTable:
    """The trainings of the dense network, for the terminal."""
    columns = _columns(summary, baseline)
    head = ("trained with", *(column.head for column in columns), "")
    table = text_table(head, left=("trained with", ""), title="The dense network")
    for index in range(len(baseline.trainings)):
        table.add_row(*map(Text, (*_cells(baseline, index, columns, intervals), _remark(baseline, index))))
    return table


def baseline_sections(summary: Summary) -> list[Section]:
    """The section of the page; empty if the dense network was trained in one way only."""
    if summary.baseline is None:
        return []
    chosen_by = units_of(summary, summary.baseline.chosen_by)
    paragraphs = [
        "A ticket that matches a badly trained dense network shows little (Ma et al. 2021). So the dense network was "
        f"also trained in other ways. The best is the one with the best {chosen_by.name}{chosen_by.when}; test "
        "examples choose nothing. Whether a ticket wins is about the dense network trained as the tickets are."
    ]
    tables = [_trainings(summary, summary.baseline), *_differences(summary)]
    return [Section("baseline", "Tuned baseline", paragraphs, tables)]


def _columns(summary: Summary, baseline: BaselineSummary) -> list[MeasureColumn]:
    """What the best is chosen by, what is judged, and early stop, if it was asked for."""
    metrics = dict.fromkeys([baseline.chosen_by, summary.metric])
    columns = []
    for metric in metrics:
        units = units_of(summary, metric)
        columns.append(MeasureColumn(units.short, metric.at_stop, units.form, units.factor, True))
    return [*columns, *([MeasureColumn("stop", "stop_iteration", ",.0f", 1, True)] if summary.timed else [])]


def _trainings(summary: Summary, baseline: BaselineSummary) -> Table:
    columns = _columns(summary, baseline)
    rows = [
        [
            *_cells(baseline, index, columns),
            *([str(training.without_early_stop)] if summary.timed else []),
            str(training.figures.diverged),
            _remark(baseline, index),
        ]
        for index, training in enumerate(baseline.trainings)
    ]
    late = ["without early stop"] if summary.timed else []
    head = ["trained with", *(column.head for column in columns), *late, "diverged", ""]
    caption = f"Trainings of the dense network: means over replicates{units_of(summary).when and ', at early stop'}"
    return Table("baseline-trainings", caption, head, rows, frozenset({0, len(head) - 1}))


def _cells(baseline: BaselineSummary, index: int, columns: list[MeasureColumn], intervals: bool = True) -> list[str]:
    training = baseline.trainings[index]
    return [training.training, *(column.cell(training.figures, "diverged", intervals) for column in columns)]


def _remark(baseline: BaselineSummary, index: int) -> str:
    return ", ".join(["as the tickets"] * (index == 0) + ["the best"] * (index == baseline.best))


def _differences(summary: Summary) -> list[Table]:
    """Tickets compared with the best training; empty if it is not known."""
    units, metric = units_of(summary), summary.metric
    rows = [
        [
            str(level.level),
            density(level),
            _answer(found, metric.worse),
            *difference(found, "p_not_worse", units.form, units.factor),
        ]
        for level in summary.levels
        if (found := level.verdict.tuned_baseline)
    ]
    confidence, margin = percent(summary.criteria.confidence), margin_amount(summary.criteria.margin, metric.fraction)
    caption = (
        f"Tickets compared with the best training of the dense network: at most {margin} {metric.worse}? Mean "
        f"difference [one-sided bounds, each with {confidence} confidence]"
    )
    head = ["level", "weights left", "answer", units.difference, "p"]
    return [Table("baseline-differences", caption, head, rows, frozenset({2}))] if rows else []


def _answer(found: BaselineComparison, worse: str) -> str:
    return "yes" if found.accurate else f"no: {worse}" if found.worse else "cannot tell"
