"""The result of a ticket verification, in sentences and a small table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from tombola.report.console import print_text
from tombola.report.fitting_table import print_table
from tombola.report.formatting import mean, means_text, percent, text_table
from tombola.report.measure_columns import MeasureColumn
from tombola.report.prose import divergence, late_minimum, margins
from tombola.report.units import Units, margin_amount, metric_units
from tombola.runs.outcome import Measures
from tombola.tickets.verification_summary import FigureSummary, VerificationSummary, WeightSummary
from tombola.utils.libraries import versions
from tombola.utils.text import plural, printable

MEASURE_NAMES = {
    "diverged": "divergence",
    "iterations": "iterations trained",
    "validation_loss_at_stop": "validation loss at early stop",
    "validation_accuracy_at_stop": "validation accuracy at early stop",
    "train_accuracy_at_stop": "training accuracy at early stop",
    "train_accuracy": "training accuracy at the end",
    "test_accuracy": "test accuracy at the end",
}
"""The names of measures, except test accuracy at early stop and its iteration."""

TESTED_REASONS = ("slower", "worse than reinit")
"""Reasons of a verdict that a test showed, besides that the metric is worse."""


def show_verification(console: Console, summary: VerificationSummary) -> None:
    """Print the conclusion, the table, and what was tested."""
    print_text(console, verification_conclusion(summary), "bold")
    console.print()
    print_table(console, _table(summary))
    warnings = late_minimum(summary.dense_without_early_stop, summary.repeats) + divergence(summary.runs.diverged)
    for line in (reproduction(summary), *warnings, _scope(summary)):
        print_text(console, line)


def verification_conclusion(summary: VerificationSummary) -> str:
    """Whether the claim holds, with its figures."""
    parts = (_result(summary), _own_criteria(summary), _from_store(summary))
    return " ".join(part for part in parts if part)


def _result(summary: VerificationSummary) -> str:
    verdict, reproduced = summary.verdict, summary.reproduction
    rewound = f" rewound to iteration {summary.rewound_to:,} of {summary.iterations:,}," if summary.rewound_to else ""
    ticket = (
        f"in {plural(summary.repeats, 'other order')} of batches the ticket, {percent(summary.weights_left)} of the "
        f"weights,{rewound}"
    )
    if summary.state == "holds":
        accuracy, stop = margins(summary)
        control = "" if verdict.p_better_than_control is None else ", and is better than newly drawn weights"
        return (
            f"The claim holds: {ticket} is at most {accuracy} {summary.metric.worse} than the dense network"
            f"{f' and stops at most {stop} later' if summary.timed else ''}{control} "
            f"({percent(summary.criteria.confidence)} confidence): {_means(summary)}."
        )
    if summary.state == "cannot tell":
        return f"Cannot tell: {ticket} {_undecided(summary)}: {_means(summary)}. {_advice(summary)}"
    if summary.failing == "trained" and reproduced.trained:
        wrong = _wrong_weights(reproduced.trained)
        return f"The claim does not hold: its trained weights do not match the recorded figures{wrong}."
    if summary.failing in ("ticket", "dense"):
        figures = reproduced.dense if summary.failing == "dense" else reproduced.ticket
        assert figures is not None
        name = "dense network" if summary.failing == "dense" else "ticket"
        return (
            f"The claim does not hold: the recorded figures of the {name} are {_recorded_and_here(summary, figures)}."
        )
    tested = f"{verdict.reason} ({percent(summary.criteria.confidence)} confidence)"
    reason = tested if verdict.reason in (summary.metric.worse, *TESTED_REASONS) else f"no match ({verdict.reason})"
    return f"The claim does not hold: {ticket} is {reason}: {_means(summary)}."


def reproduction(summary: VerificationSummary) -> str:
    """Whether the recorded figures were reproduced."""
    found, here = summary.reproduction, versions()
    stored = " (from the store, not trained again)" if found.remembered else ""
    subject = f"Recorded figures of the ticket{' and of the dense network' if found.dense else ''}"
    weights = _trained_weights(found.trained)
    if found.exact:
        return f"{subject}: reproduced exactly{stored}.{weights}"
    how = "reproduced up to rounding" if found.reproduced else "not reproduced"
    each = [f"Ticket: {_recorded_and_here(summary, found.ticket)}"]
    each += [f"dense network: {_recorded_and_here(summary, found.dense)}"] if found.dense else []
    other = [
        printable(f"{name} {version}, here {here[name]}")
        for name, version in found.versions.items()
        if name in here and here[name] != version
    ]
    made = f" Made with {'; '.join(other)}." if other else ""
    return f"{subject}: {how}{stored}. {'; '.join(each)}.{made}{weights}"


def _trained_weights(trained: WeightSummary | None) -> str:
    """How far the trained weights in the file are from those trained here."""
    if trained is None:
        return ""
    how = "equal to those trained here" + (", up to rounding" if trained.apart else "")
    if not trained.same:
        distance = f" (relative distance {trained.apart:.2g})" if math.isfinite(trained.apart) else ""
        how = f"different from those trained here{distance}"
    recorded = "" if trained.reproduced else "; they do not match the recorded figures"
    return f" The trained weights in the file are {how}{recorded}."


def _wrong_weights(trained: WeightSummary) -> str:
    """What is wrong with the trained weights in the file."""
    if trained.figure is None:
        return ": they are not all finite"
    if trained.recorded is None or trained.recorded == trained.figure or trained.name is None:
        return ""
    recorded, here = (_value(trained.name, value) for value in (trained.recorded, trained.figure))
    return f": {_name(trained.name)} is recorded as {recorded}, but is {here} here"


def _own_criteria(summary: VerificationSummary) -> str:
    """The criteria, if those of the file are wider; otherwise empty."""
    if summary.own_state is None:
        return ""
    named: dict[str, tuple[str, Callable[[Any], str]]] = {
        "margin": (f"{summary.metric.name} margin", lambda margin: margin_amount(margin, summary.metric.fraction)),
        "stop_margin": ("stop margin", percent),
        "confidence": ("confidence", percent),
        "max_density": ("largest fraction of weights left", percent),
    }
    used, own = summary.criteria, summary.own_criteria
    criteria = "; ".join(
        f"{name} {shown(getattr(used, key))} (in the file: {shown(getattr(own, key))})"
        for key, (name, shown) in named.items()
        if getattr(used, key) != getattr(own, key)
    )
    state = "cannot be decided" if summary.own_state == "cannot tell" else summary.own_state
    return f"The file's criteria are wider than those applied: {criteria}. By the file's criteria the claim {state}."


def _from_store(summary: VerificationSummary) -> str:
    """How many runs were not trained now."""
    stored, trained = summary.runs.from_store, summary.runs.trained
    if not stored:
        return ""
    return (
        f"{stored:,} of {plural(stored + trained, 'run')} came from the store {printable(summary.store)} and were "
        f"not trained again."
    )


def _scope(summary: VerificationSummary) -> str:
    return (
        f"Tested: one mask with one set of initial weights on one split of the data, in "
        f"{plural(summary.repeats, 'order')} of batches that were not used to choose the ticket. Other masks, "
        f"initial weights and data were not tested."
    )


def _undecided(summary: VerificationSummary) -> str:
    accuracy, stop = margins(summary)
    reason, unsure = summary.verdict.reason, f"is not {percent(summary.criteria.confidence)} sure to"
    if reason == summary.metric.name:
        return f"{unsure} be at most {accuracy} {summary.metric.worse}"
    if reason == "early stop":
        return f"{unsure} stop at most {stop} later" if summary.verdict.stop_margin else f"{unsure} stop sooner"
    return f"is not sure to win ({reason.replace('replicate', 'repeat')})"


def _advice(summary: VerificationSummary) -> str:
    more, repeats = summary.verdict.more_replicates, summary.repeats
    if more is None:
        return summary.verdict.advice.replace("replicates", "repeats")
    return f"About {plural(more, 'more repeat')} would probably decide (--repeats {repeats + more})."


def _means(summary: VerificationSummary) -> str:
    """The means of all branches."""
    units, figures, stops = _units(summary), [], []
    percent_sign = "%" if summary.metric.fraction else ""
    for name, branch in summary.branches.items():
        shown = mean(branch[summary.metric.at_stop], units.form, units.factor, missing="diverged")
        figures.append(f"{name} {shown}{percent_sign if shown != 'diverged' else ''}")
        if branch["stop_iteration"].values:
            stops.append(f"{name} {mean(branch['stop_iteration'], ',.0f')}")
    early = f"; early stop {', '.join(stops) or 'unknown'}" if summary.timed else ""
    return f"{units.name} {', '.join(figures)}{early}"


def _units(summary: VerificationSummary) -> Units:
    return metric_units(summary.metric, summary.branches["dense"], summary.timed)


def _recorded_and_here(summary: VerificationSummary, figures: FigureSummary) -> str:
    recorded, here, units, at_stop = figures.recorded, figures.here, _units(summary), summary.metric.at_stop
    was, now = (None if m[at_stop] is None else units.text(m[at_stop] or 0.0) for m in (recorded, here))
    at = "" if recorded.stop_iteration is None else f" at early stop, iteration {recorded.stop_iteration:,}"
    text = f"{was}{at}"
    if here.diverged:
        return f"{text}, but the same training diverges here"
    also = "".join(
        f"; {_name(name)} {_value(name, _measure(recorded, name))}, here {_value(name, _measure(here, name))}"
        for name in figures.off
        if name not in (at_stop, "stop_iteration")
    )
    iterations = figures.tolerances.get("stop_iteration")
    explained = (
        f"{units.factor * figures.tolerance:.1f} points" if summary.metric.fraction else f"{figures.tolerance:.2g}"
    )
    explained += "" if iterations is None else f" and {iterations:,.0f} iterations"
    there = "" if here.stop_iteration is None else f" at iteration {here.stop_iteration:,}"
    return f"{text}, and the same training gives {now}{there} here (rounding explains {explained}){also}"


def _measure(measures: Measures, name: str) -> Any:
    return getattr(measures, name) if name in Measures.model_fields else measures[name]


def _name(figure: str) -> str:
    """The name of a figure in words."""
    if figure in MEASURE_NAMES:
        return MEASURE_NAMES[figure]
    words = figure.removesuffix("_at_stop").replace("_", " ")
    return f"{words} {'at early stop' if figure.endswith('_at_stop') else 'at the end'}"


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "missing"
    return f"{value:.2%}" if "accuracy" in name and 0 <= value <= 1 else f"{value:,.4g}"


def _table(summary: VerificationSummary) -> Table:
    """One row for the dense network, the ticket and its control each: means over repeats."""
    title = f"{plural(summary.repeats, 'repeat')}, {means_text(summary.repeats, summary.criteria.confidence)}"
    columns = _columns(summary)
    heads = ("", "weights left", *(column.head for column in columns))
    table = text_table(heads, left=("",), title=title, gap=3, least=("weights left", "early stop"))
    for name, branch in summary.branches.items():
        weights = summary.weights_total if name == "dense" else summary.weights
        left = f"{weights:,} ({percent(weights / summary.weights_total)})"
        table.add_row(name, left, *(column.cell(branch, "diverged") for column in columns))
    return table


def _columns(summary: VerificationSummary) -> list[MeasureColumn]:
    units = _units(summary)
    judged = MeasureColumn(f"{units.short}{units.when}", summary.metric.at_stop, units.form, units.factor, True)
    return [judged, *([MeasureColumn("early stop", "stop_iteration", ",.0f", 1, True)] if summary.timed else [])]
