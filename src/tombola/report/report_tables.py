"""The tables of the report."""

from __future__ import annotations

from tombola.exports.export_result import Export
from tombola.report.barrier_units import BarrierUnits
from tombola.report.document import Table
from tombola.report.export_tables import COSTS, SIZES, SPEEDS, costs, sizes, speeds
from tombola.report.figures.style import ordered
from tombola.report.formatting import NONE, density, mean, p_value, percent, work_left
from tombola.report.prose import improvements
from tombola.report.units import units_of
from tombola.stats.summary import DifferenceSummary, MeasureSummary, StabilitySummary, Summary


def verdicts(summary: Summary) -> Table:
    """Tickets compared with the dense network: one row for each level."""
    rows, units, work = [], units_of(summary), work_left(summary.levels)
    for index, level in enumerate(summary.levels):
        verdict = level.verdict
        reason = f": {verdict.reason}" if verdict.reason else ""
        rows.append(
            [
                str(level.level),
                density(level),
                f"{level.weights:,}",
                *work[index : index + 1],
                f"{verdict.state}{reason}{improvements(verdict)}",
                *difference(verdict.difference, "p_not_worse", units.form, units.factor),
                *(difference(verdict.stop_difference, "p_not_worse", ".1f", 100) if summary.timed else ()),
                p_value(verdict.p_better_than_control),
                NONE if verdict.more_replicates is None else f"{verdict.more_replicates:,}",
            ]
        )
    place = ["level", "weights left", "weights", *(["multiply-adds left"] if work else []), "verdict"]
    compared, groups = _difference_heads(summary, len(place))
    head = [*place, *compared, "p, control", "more replicates"]
    caption = _difference_caption(summary, "Tickets compared with the dense network")
    return Table("verdict-dense", caption, head, rows, frozenset({head.index("verdict")}), groups=[*groups, ("", 2)])


def controls(summary: Summary) -> list[Table]:
    """Tickets compared with each control, a table for each; all are folded but that of the verdict's control."""
    names = ordered(name for level in summary.levels for name in level.controls)
    units = units_of(summary)
    compared, groups = _difference_heads(summary, 2)
    head = ["level", "weights left", *compared]
    tables: list[Table] = []
    for name in names:
        rows = []
        for level in summary.levels:
            if control := level.controls.get(name):
                gain = difference(control.difference, "p_better", units.form, units.factor)
                stop = difference(control.stop_difference, "p_better", ".1f", 100) if summary.timed else []
                rows.append([str(level.level), density(level), *gain, *stop])
        caption = _difference_caption(summary, f"Tickets compared with the control “{name}”")
        folded = name != summary.criteria.control
        tables.append(Table(f"verdict-{len(tables)}", caption, head, rows, folded=folded, groups=groups))
    return tables


def _difference_heads(summary: Summary, before: int) -> tuple[list[str], list[tuple[str, int]]]:
    """The heads of the columns of differences, and those above them, after `before` other columns."""
    compared = [units_of(summary).difference, *(["early stop, %"] if summary.timed else [])]
    return ["difference", "p"] * len(compared), [("", before), *((what, 2) for what in compared)]


def _difference_caption(summary: Summary, what: str) -> str:
    confidence = percent(summary.criteria.confidence)
    return f"{what}: mean difference [one-sided bounds, each with {confidence} confidence]"


def difference(found: DifferenceSummary | None, p: str, form: str, factor: float) -> list[str]:
    """A difference times `factor` with its bounds, and its p-value of the name `p`."""
    if found is None:
        return [NONE, NONE]
    low, high = (NONE if bound is None else f"{factor * bound:+{form}}" for bound in (found.low, found.high))
    return [f"{factor * found.mean:+{form}} [{low}, {high}]".replace("-", "−"), p_value(getattr(found, p))]


def generalisation(summary: Summary) -> Table:
    """Training accuracy and generalisation gap, by level and branch."""
    branches = ordered(name for level in summary.levels for name in level.branches)
    head = ["level", "weights left", *["training accuracy", "gap at early stop", "gap at the end"] * len(branches)]
    rows = []
    for level in summary.levels:
        cells = [str(level.level), density(level)]
        for name in branches:
            if branch := level.branches.get(name):
                cells += map(_points, (branch["train_accuracy_at_stop"], branch["gap_at_stop"], branch["gap"]))
            else:
                cells += [NONE] * 3
        rows.append(cells)
    caption = "Training accuracy at early stop in %; training minus test accuracy in points; means over replicates"
    return Table("generalisation-table", caption, head, rows, groups=[("", 2), *((name, 3) for name in branches)])


def _points(measure: MeasureSummary) -> str:
    return mean(measure, ".2f", 100, " ± ").replace("-", "−")


def stability(found: StabilitySummary, units: BarrierUnits) -> Table:
    """The error barriers at each k, on the examples that were asked about."""
    rows = [
        [
            f"{candidate.k:,}",
            *(units.shown(candidate.barrier(split)) for split in found.splits),
            f"{candidate.stable} of {candidate.replicates}",
        ]
        for candidate in found.candidates
    ]
    examples = {"train": "on training examples", "validation": "on validation examples", "test": "on the test set"}
    head = ["k", *(examples[split] for split in found.splits), "stable replicates"]
    most = f"{units.factor * found.tolerance:g}"
    caption = f"{units.title}s{units.in_unit}; at most {most} on validation examples counts as stable"
    return Table("stability-table", caption, head, rows)


def engines(summary: Summary) -> list[Table]:
    """How many runs each engine trained, and in what time."""
    rows = [
        [name, f"{engine.runs:,}", f"{engine.seconds:,.1f}", f"{engine.seconds / max(engine.runs, 1):.3g}"]
        for name, engine in summary.engines.items()
    ]
    head = ["engine", "runs", "seconds", "seconds per run"]
    return [Table("engines", "Engines", head, rows, frozenset({0}))] if rows else []


def exported(export: Export) -> list[Table]:
    """What was measured of a ticket's artefacts: accuracy beside its costs, then all sizes and speeds."""
    tables, figures, dense = [], export.figures, export.about.dense
    for name, caption, head, rows in (
        ("shipped-costs", "Accuracy, work and latency", COSTS, costs(figures, dense)),
        ("shipped-sizes", "Sizes and accuracy", SIZES, sizes(figures, dense)),
        ("shipped-speeds", "Speeds: of one example, and of batches", SPEEDS, speeds(figures)),
    ):
        columns = [column.replace("-\n", "-").replace("\n", " ") for column in head]
        cells = [[cell or NONE for cell in row] for row in rows]
        tables.append(Table(name, caption, columns, cells, frozenset({0})))
    return tables
