"""Experiments, comparisons, speeds and tickets in the terminal."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tombola.report.barrier_units import BarrierUnits, barrier_units
from tombola.report.baseline_prose import NOT_TUNED
from tombola.report.baseline_section import trainings_table
from tombola.report.comparison_tables import common_table, winners_table
from tombola.report.console import print_text
from tombola.report.double_descent_section import curves_table, double_descent_sentences
from tombola.report.fitting_table import print_table
from tombola.report.formatting import (
    density_columns,
    density_legend,
    means_text,
    p_value,
    percent,
    text_table,
    work_left,
)
from tombola.report.measure_columns import measure_columns
from tombola.report.prose import conclusion, first_undecided, improvements, legend, rewind_choice, warnings
from tombola.report.ticket_lines import barriers_text, connections
from tombola.runs.outcome import Measures
from tombola.stats.experiment_comparison import ExperimentComparison
from tombola.stats.summary import StabilitySummary, Summary, VerdictSummary
from tombola.tickets.mask_codec import entropy
from tombola.tickets.origin import own_training
from tombola.tickets.ticket import Ticket
from tombola.utils.text import plural, printable

if TYPE_CHECKING:
    from tombola.engines.sparse.speeds import Speed


FINGERPRINT, SHORT = 32, 12
"""The least length of a fingerprint, and that of its shown beginning."""


def show_summary(console: Console, summary: Summary) -> None:
    """Print the conclusion, then the table of levels."""
    print_text(console, conclusion(summary), "bold")
    console.print()
    table = level_table(summary)
    if _is_too_wide(console, table):
        table = level_table(summary, stop_intervals=False)
    print_table(console, table)
    if work := work_left(summary.levels):
        print_text(console, f"Multiply-adds left, level by level: {', '.join(work)}.")
    if summary.smallest_winning and (undecided := first_undecided(summary)):
        print_text(console, undecided)
    if summary.baseline:
        console.print()
        trainings = trainings_table(summary, summary.baseline)
        if _is_too_wide(console, trainings):
            trainings = trainings_table(summary, summary.baseline, intervals=False)
        print_table(console, trainings)
    elif summary.levels:
        print_text(console, NOT_TUNED, "dim")
    for line in warnings(summary):
        print_text(console, line, "yellow")
    if summary.stability:
        if summary.stability.candidates:
            print_table(console, _stability(summary.stability, barrier_units(summary, summary.stability)))
        if summary.stability.rewound_to:
            print_text(console, rewind_choice(summary.stability))
    if summary.stability and summary.stability.tickets:
        print_table(console, barriers_text(summary, summary.stability))
        for line in connections(summary):
            print_text(console, line)
    if summary.double_descent:
        print_table(console, curves_table(summary, summary.double_descent))
        for line in double_descent_sentences(summary, summary.double_descent):
            print_text(console, line)
    if summary.levels:
        print_text(console, legend(summary) + density_legend(summary.levels), "dim")
    for name, engine in summary.engines.items():
        line = f"Engine: {name}; {plural(engine.runs, 'run')}, {engine.seconds:,.1f} s of computing."
        print_text(console, line, "dim")


def _is_too_wide(console: Console, table: Table) -> bool:
    return Measurement.get(console, console.options.update(width=1000), table).maximum > console.width


def level_table(summary: Summary, stop_intervals: bool = True) -> Table:
    """One row for each branch of each level."""
    replicates = plural(summary.replicates, "replicate")
    title = f"{summary.title}: {replicates}, {means_text(summary.replicates, summary.criteria.confidence)}"
    densities = density_columns(summary.levels)
    measures = measure_columns(summary)
    columns = ("level", *densities, "", *(column.head for column in measures), "p", "verdict")
    judged, *others = [column.head for column in measures]
    table = text_table(
        columns,
        left=("", "verdict"),
        title=title,
        least=("gap", "train", *(head for head in reversed(others) if head != "stop"), "of all", "p", "stop"),
        always=("left", "", judged, "verdict"),
    )
    for level in summary.levels:
        place = [str(level.level), *(cell(level) for cell in densities.values())]
        for name, branch in level.branches.items():
            ticket = name == "ticket"
            table.add_row(
                *(place if ticket else [""] * len(place)),
                "dense" if ticket and level.level == 0 else name,
                *(
                    column.cell(branch, "diverged", stop_intervals or column.key != "stop_iteration")
                    for column in measures
                ),
                _p_not_worse(level.verdict) if ticket else "",
                _verdict(level.verdict) if ticket else "",
                style=None if ticket else "dim",
            )
    return table


def _stability(stability: StabilitySummary, units: BarrierUnits) -> Table:
    """The error barrier at each candidate."""
    name, splits = "barrier" if units.unit else units.name, [s for s in stability.splits if s != "train"]
    heads = ("k", f"{name}, {splits[0]}", *splits[1:], "stable")
    table = text_table(heads, left=(), title="Stability")
    for candidate in stability.candidates:
        barriers = (units.shown(candidate.barrier(split), " ±") for split in splits)
        table.add_row(f"{candidate.k:,}it", *barriers, f"{candidate.stable} of {candidate.replicates}")
    return table


def _p_not_worse(verdict: VerdictSummary) -> str:
    """The larger of the p-values of accuracy and early stop."""
    tests = [found.p_not_worse for found in (verdict.difference, verdict.stop_difference) if found]
    return p_value(max(tests)) if tests else ""


def _verdict(verdict: VerdictSummary) -> Text:
    """The state, and in what tickets are better than the dense network, or why they do not win."""
    if verdict.winning:
        return Text("winning" + improvements(verdict), style="bold green")
    if verdict.state == "cannot tell":
        return Text("cannot tell", style="yellow")
    return Text(verdict.reason, style="dim")


def show_comparison(console: Console, comparison: ExperimentComparison) -> None:
    """Print tables, the conclusions, and what differs between the configurations."""
    named = {experiment.label: experiment.summary for experiment in comparison.experiments}
    _print_rows(console, *winners_table(named), left=("experiment", ""))
    _print_rows(console, *common_table(named), left=("experiment", "verdict"), title="At common levels")
    for label, summary in named.items():
        print_text(console, f"{label}: {conclusion(summary)}")
    columns = ["what differs", *named]
    differing = [[key, *map(_shortened, values)] for key, values in comparison.differences.items()]
    _print_rows(console, columns, differing, left=columns)


def _shortened(value: object) -> str:
    """A value of a configuration; of a fingerprint, which is too long a word for a table, the beginning."""
    text = "·" if value is None else str(value)
    return text[:SHORT] if len(text) >= FINGERPRINT and text.isalnum() else text


def _print_rows(
    console: Console,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Container[str],
    title: str | None = None,
    least: Sequence[str] = ("gap", "train"),
) -> None:
    """A table, unless it has no rows."""
    table = text_table(head, left=left, title=title, gap=2, least=least, always=("", "verdict"))
    for row in rows:
        table.add_row(*map(Text, row))
    if rows:
        print_table(console, table)


def show_speeds(console: Console, speeds: Sequence[Speed]) -> None:
    """Print the measured speeds of layers: milliseconds of a training step on one thread."""
    for machine in dict.fromkeys(speed.machine for speed in speeds):
        columns = ("layer", "weights left", "sparse ms", "dense ms", "trained")
        table = text_table(columns, left=("layer", "trained"), title=machine, gap=2)
        for speed in speeds:
            if speed.machine == machine:
                how = "sparse" if speed.sparse < speed.dense else "dense"
                table.add_row(speed.layer, percent(speed.density), f"{speed.sparse:.3f}", f"{speed.dense:.3f}", how)
        print_table(console, table)


def ticket_summary(ticket: Ticket) -> dict[str, Any]:
    """The contents of a ticket as JSON values, with how its file stores them if it was loaded from one."""
    mask = ticket.mask
    return {
        "weights": mask.count,
        "weights_total": mask.size,
        "weights_left": mask.density,
        "weights_left_of_all": ticket.density_of_all,
        "layers": {
            name: {"weights": int(kept.sum()), "weights_total": kept.numel(), "shape": list(kept.shape)}
            for name, kept in mask.layers.items()
        },
        "mask_entropy_bytes": entropy(mask) / 8,
        "file": ticket.stored and asdict(ticket.stored),
        "provenance": ticket.provenance,
    }


def show_ticket(console: Console, summary: dict[str, Any]) -> None:
    """Print a `ticket_summary`. Text from the file is not interpreted as markup."""
    columns = ("layer", "shape", "weights left", "of", "density")
    table = text_table(columns, left=columns[:2], gap=3, least=("shape", "of"))
    for name, layer in summary["layers"].items():
        left, total = layer["weights"], layer["weights_total"]
        density = percent(left / total) if total else ""
        table.add_row(_plain(name), " × ".join(map(str, layer["shape"])), f"{left:,}", f"{total:,}", density)
    left, total = summary["weights"], summary["weights_total"]
    table.add_row("all", "", f"{left:,}", f"{total:,}", percent(left / total), style="bold")
    of_all = summary["weights_left_of_all"]
    all_weights = [] if of_all is None else [f"{percent(of_all)} of all matrix weights of the network are left."]
    print_table(console, table)
    for line in [*all_weights, *_storage(summary), *_provenance(summary["provenance"])]:
        print_text(console, printable(line))


def _plain(text: str) -> Text:
    """Text from a file, without markup and terminal control characters."""
    return Text(printable(text))


def _storage(summary: dict[str, Any]) -> list[str]:
    """How the file stores the ticket."""
    file = summary["file"]
    if file is None:
        return []
    start = "by seed" if file["start"] == "seed" else "by value"
    trained = "no trained weights" if file["trained"] == "none" else f"trained weights in {file['trained']}"
    return [
        f"Initial weights are stored {start}; {trained}.",
        f"The file has {file['bytes']:,} bytes; its mask has {summary['mask_entropy_bytes']:,.0f} bytes of entropy.",
    ]


def _provenance(provenance: dict[str, Any]) -> list[str]:
    try:
        train = own_training(provenance)
        source = f"recipe {provenance['recipe']['name']}" if train is None else train
        place = f"replicate {provenance['replicate']}, level {provenance['level']}; run {provenance['key']}"
        measures = provenance["measures"]
        figures = _accuracies(measures) if train is None else _figures(Measures.model_validate(measures))
        return [f"From {source}, {place}.", f"Trained from these weights: {figures}."]
    except (LookupError, TypeError, ValueError, OverflowError):  # not written by an experiment
        return [f"Provenance: {json.dumps(provenance)}" if provenance else "The file has no provenance."]


def _accuracies(measures: dict[str, Any]) -> str:
    return (
        f"test accuracy {measures['test_accuracy_at_stop']:.2%} at early stop (iteration "
        f"{measures['stop_iteration']:,}), {measures['test_accuracy']:.2%} at the end"
    )


def _figures(measures: Measures) -> str:
    """Those of an own training, by name."""
    stop = measures.stop_iteration
    found = [f"{name} {value:g}" for name, value in measures.figures.items()]
    found += [] if stop is None else [f"early stop at iteration {stop:,}"]
    return ", ".join([f"{measures.iterations:,} iterations", *found])
