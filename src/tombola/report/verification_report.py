"""The result of a ticket verification, in sentences and a small table."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from tombola.experiments.margin import Margin
from tombola.report.formatting import mean, means_text, percent, text_table
from tombola.report.prose import divergence, late_minimum, margins
from tombola.report.units import margin_amount
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

TESTED_REASONS = ("less accurate", "slower", "worse than reinit")
"""Reasons of a verdict that a test showed."""


def show_verification(console: Console, summary: VerificationSummary) -> None:
    """Print the conclusion, the table, and what was tested."""
    console.print(verification_conclusion(summary), style="bold", markup=False, highlight=False)
    console.print()
    console.print(_table(summary))
    warnings = late_minimum(summary.dense_without_early_stop, summary.repeats) + divergence(summary.runs.diverged)
    for line in (reproduction(summary), *warnings, _scope(summary)):
        console.print(line, markup=False, highlight=False)


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
            f"The claim holds: {ticket} is at most {accuracy} less accurate than the dense network and stops at most "
            f"{stop} later{control} ({percent(summary.criteria.confidence)} sure): {_means(summary)}."
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
        return f"The claim does not hold: the recorded figures of the {name} are {_recorded_and_here(figures)}."
    tested = f"{verdict.reason} ({percent(summary.criteria.confidence)} sure)"
    reason = tested if verdict.reason in TESTED_REASONS else f"no match ({verdict.reason})"
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
    each = [f"Ticket: {_recorded_and_here(found.ticket)}"]
    each += [f"dense network: {_recorded_and_here(found.dense)}"] if found.dense else []
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
    if trained.accuracy is None:
        return ": they are not all finite"
    if trained.recorded is None or trained.recorded == trained.accuracy:
        return ""
    return f": test accuracy at the end is recorded as {trained.recorded:.2%}, but is {trained.accuracy:.2%} here"


def _accuracy_margin(margin: Margin) -> str:
    return margin_amount(margin, True)


def _own_criteria(summary: VerificationSummary) -> str:
    """The criteria, if those of the file are wider; otherwise empty."""
    if summary.own_state is None:
        return ""
    named: dict[str, tuple[str, Callable[[Any], str]]] = {
        "margin": ("accuracy margin", _accuracy_margin),
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
    if reason == "accuracy":
        return f"{unsure} be at most {accuracy} less accurate"
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
    accuracies, stops = [], []
    for name, branch in summary.branches.items():
        accuracies.append(f"{name} {mean(branch['test_accuracy_at_stop'], '.2%', missing='diverged')}")
        if branch["stop_iteration"].values:
            stops.append(f"{name} {mean(branch['stop_iteration'], ',.0f')}")
    return f"test accuracy {', '.join(accuracies)}; early stop {', '.join(stops) or 'unknown'}"


def _recorded_and_here(figures: FigureSummary) -> str:
    recorded, here = figures.recorded, figures.here
    was, now = recorded["test_accuracy_at_stop"], here["test_accuracy_at_stop"]
    text = f"{was:.2%} at early stop, iteration {recorded.stop_iteration:,}"
    if here.diverged:
        return f"{text}, but the same training diverges here"
    also = "".join(
        f"; {MEASURE_NAMES[name]} {_value(name, getattr(recorded, name))}, here {_value(name, getattr(here, name))}"
        for name in figures.off
        if name in MEASURE_NAMES
    )
    iterations = figures.tolerances["stop_iteration"]
    return (
        f"{text}, and the same training gives {now:.2%} at iteration {here.stop_iteration:,} "
        f"here (rounding explains {100 * figures.tolerance:.1f} points and {iterations:,.0f} iterations){also}"
    )


def _value(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:,.4g}"


def _table(summary: VerificationSummary) -> Table:
    """One row for the dense network, the ticket and its control each: means over repeats."""
    title = f"{plural(summary.repeats, 'repeat')}, {means_text(summary.repeats, summary.criteria.confidence)}"
    table = text_table(("", "weights left", "test % at early stop", "early stop"), left=("",), title=title, gap=3)
    for name, branch in summary.branches.items():
        weights = summary.weights_total if name == "dense" else summary.weights
        table.add_row(
            name,
            f"{weights:,} ({percent(weights / summary.weights_total)})",
            mean(branch["test_accuracy_at_stop"], ".2f", 100, " ± ", "diverged"),
            mean(branch["stop_iteration"], ",.0f", interval=" ± ", missing="diverged"),
        )
    return table
