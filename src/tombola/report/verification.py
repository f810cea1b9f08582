"""What came of a check, in words and a small table."""

from __future__ import annotations

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tombola.utils.text import plural, printable
from tombola.utils.versions import versions

FIGURES = {
    "diverged": "divergence",
    "iterations": "iterations trained",
    "validation_loss_at_stop": "validation loss at early stop",
    "validation_accuracy_at_stop": "validation accuracy at early stop",
    "train_accuracy_at_stop": "training accuracy at early stop",
    "train_accuracy": "training accuracy at the end",
    "test_accuracy": "test accuracy at the end",
}
"""What figures are called, beside test accuracy at early stop and its iteration."""

SURELY = ("less accurate", "slower", "worse than reinit")
"""Reasons that are statements of a test."""


def show_checked(console: Console, summary: dict[str, Any]) -> None:
    """Print what `tombola.tickets.verification.Checked.summary` gave: the answer, the table, and what was tested."""
    lines = [reproduction(summary), *_notes(summary), scope(summary)]
    console.print(answer(summary), style="bold", markup=False, highlight=False)
    console.print()
    console.print(_table(summary))
    for line in lines:
        console.print(line, markup=False, highlight=False)


def answer(summary: dict[str, Any]) -> str:
    """Whether the claim holds, in one sentence with its figures."""
    return " ".join(part for part in (_found(summary), _criteria(summary), _remembered(summary)) if part)


def _found(summary: dict[str, Any]) -> str:
    """What was found."""
    reproduced, verdict, state = summary["reproduced"], summary["verdict"], summary["state"]
    orders, left = plural(summary["repeats"], "other order"), f"{summary['weights_left']:.1%}"
    k, last = summary["rewound_to"], summary["iterations"]
    rewound = f" rewound to iteration {k:,} of {last:,}," if k else ""
    tried = f"in {orders} of batches the ticket, {left} of the weights,{rewound}"
    if state == "holds":
        control = "" if verdict["p_better_than_control"] is None else ", and is better than newly drawn weights"
        sure = f"{summary['criteria']['confidence']:.0%} sure"
        return f"The claim holds: {tried} {_allowed(summary)}{control} ({sure}): {_figures(summary)}."
    if state == "cannot tell":
        return f"Cannot tell: {tried} {_open(summary)}: {_figures(summary)}. {_advice(summary)}"
    what = summary["failing"]
    if what == "trained":
        return f"The claim does not hold: its trained weights are not those of the record{_weights_say(reproduced)}."
    if what != "verdict":
        return f"The claim does not hold: of the {_named(what)} it says {_recorded_and_here(reproduced[what])}."
    reason = verdict["reason"]
    how = f"surely {reason}" if reason in SURELY else f"no match ({reason})"
    return f"The claim does not hold: {tried} is {how}: {_figures(summary)}."


def reproduction(summary: dict[str, Any]) -> str:
    """Whether the recorded figures were got again."""
    found = summary["reproduced"]
    anew = " (as the store remembers them; not trained anew)" if found["remembered"] else ""
    both = " and of the dense network" if "dense" in found else ""
    weights = _weights(found["trained"])
    if found["exact"]:
        return f"Recorded figures of the ticket{both}: reproduced to the bit{anew}.{weights}"
    how = "reproduced but for rounding" if found["all"] else "not reproduced"
    each = "; ".join(f"{_named(n)}: {_recorded_and_here(found[n])}" for n in ("ticket", "dense") if n in found)
    here = versions()
    other = [
        printable(f"{n} {v}, here {here[n]}") for n, v in found["versions"].items() if n in here and here[n] != v
    ]
    made = f" Made with {'; '.join(other)}." if other else ""
    return f"Recorded figures of the ticket{both}: {how}{anew}. {each[0].upper()}{each[1:]}.{made}{weights}"


def _weights(trained: dict[str, Any] | None) -> str:
    """How far the trained weights in the file are from those that were got here."""
    if trained is None:
        return ""
    how = "these, to the bit" if not trained["apart"] else "these, rounded"
    if not trained["same"]:
        apart = trained["apart"]
        how = f"{apart:.2g} of a layer's length away from these" if math.isfinite(apart) else "not these"
    return (
        f" The trained weights in the file are {how}{'' if trained['reproduced'] else '; not those of the record'}."
    )


def _weights_say(reproduced: dict[str, Any]) -> str:
    """What is wrong with the trained weights in the file."""
    trained = reproduced["trained"]
    if trained["accuracy"] is None:
        return ": they are not all finite"
    said = f"test accuracy {trained['recorded']:.2%} at the end, and they have {trained['accuracy']:.2%}"
    return f": {said} here" if trained["recorded"] != trained["accuracy"] else ""


def _criteria(summary: dict[str, Any]) -> str:
    """What it was judged by, where the file allows itself more; empty elsewhere."""
    if summary["own_state"] is None:
        return ""
    here, own = summary["criteria"], summary["own_criteria"]
    named = {
        "accuracy_margin": ("an accuracy margin of", _points),
        "stop_margin": ("a stop margin of", _share),
        "confidence": ("a confidence of", _share),
        "max_density": ("at most so many weights left:", _share),
    }
    judged = " and ".join(
        f"{name} {said(here[key])} (the file's own: {said(own[key])})"
        for key, (name, said) in named.items()
        if here[key] != own[key]
    )
    state = {"holds": "it holds", "does not hold": "it does not hold", "cannot tell": "it cannot be told"}
    return f"It is judged by {judged}; by the file's own {state[summary['own_state']]}."


def _share(value: float) -> str:
    return f"{value:.3g} times" if value >= 10 else f"{100 * value:g}%"


def _remembered(summary: dict[str, Any]) -> str:
    """How many of the runs were not trained now."""
    runs = summary["runs"]
    if not runs["from_store"]:
        return ""
    of = f"{runs['from_store']:,} of {plural(runs['from_store'] + runs['trained'], 'run')}"
    return f"{of} came from the store {printable(summary['store'])}, and were not trained now."


def scope(summary: dict[str, Any]) -> str:
    """What was tested, and what was not."""
    return (
        f"Tested is one mask with one start on one split of the data, in {plural(summary['repeats'], 'order')} of "
        f"batches that the ticket was not chosen by. Nothing is said of other masks, starts or data."
    )


def _allowed(summary: dict[str, Any]) -> str:
    """What the claim says, with its margins."""
    criteria = summary["criteria"]
    points, later = _points(criteria["accuracy_margin"]), f"{criteria['stop_margin']:.0%}"
    return f"is at most {points} less accurate than the dense network and stops at most {later} later"


def _open(summary: dict[str, Any]) -> str:
    """What cannot be told."""
    reason, criteria = summary["verdict"]["reason"].replace("replicate", "repeat"), summary["criteria"]
    sure = f"is not {criteria['confidence']:.0%} sure to"
    if reason == "accuracy":
        return f"{sure} be at most {_points(criteria['accuracy_margin'])} less accurate"
    if reason == "early stop":
        margin = summary["verdict"]["stop_margin"]
        return f"{sure} stop at most {margin:.0%} later" if margin else f"{sure} stop sooner"
    return f"is not sure to win ({reason})"


def _advice(summary: dict[str, Any]) -> str:
    more, repeats = summary["verdict"]["more_replicates"], summary["repeats"]
    if more is None:
        return str(summary["verdict"]["instead"]).replace("replicates", "repeats")
    return f"About {plural(more, 'more repeat')} would probably decide (--repeats {repeats + more})."


def _points(share: float) -> str:
    return plural(float(f"{100 * share:g}"), "point")


def _figures(summary: dict[str, Any]) -> str:
    """The means of all branches."""
    accuracies, stops = [], []
    for name, figures in summary["branches"].items():
        if not figures["stop_iteration"]["values"]:
            accuracies.append(f"{name} diverged")
            continue
        accuracies.append(f"{name} {figures['test_accuracy_at_stop']['mean']:.2%}")
        stops.append(f"{name} {figures['stop_iteration']['mean']:,.0f}")
    return f"test accuracy {', '.join(accuracies)}; early stop {', '.join(stops) or 'unknown'}"


def _recorded_and_here(figures: dict[str, Any]) -> str:
    recorded, here = figures["recorded"], figures["here"]
    said = f"{recorded['test_accuracy_at_stop']:.2%} at early stop, iteration {recorded['stop_iteration']:,}"
    if here["diverged"]:
        return f"{said}, and the same training diverges here"
    also = "".join(
        f"; {FIGURES[name]} {_as_said(name, recorded[name])}, here {_as_said(name, here[name])}"
        for name in figures["off"]
        if name in FIGURES
    )
    points, iterations = 100 * figures["tolerance"], figures["tolerances"]["stop_iteration"]
    return (
        f"{said}, and the same training gives {here['test_accuracy_at_stop']:.2%} at iteration "
        f"{here['stop_iteration']:,} here (rounding explains {points:.1f} points and {iterations:,.0f} iterations)"
        f"{also}"
    )


def _as_said(name: str, value: float) -> str:
    return f"{value:.2%}" if "accuracy" in name else f"{value:,.4g}"


def _named(what: str) -> str:
    return "dense network" if what == "dense" else what


def _notes(summary: dict[str, Any]) -> list[str]:
    notes = []
    if summary["late"]:
        notes.append(
            f"{summary['late']} of {plural(summary['repeats'], 'dense network')} had the minimum of validation loss "
            f"at the last iteration: trained longer, they could be more accurate, and harder to match."
        )
    if summary["runs"]["diverged"]:
        notes.append(f"{plural(summary['runs']['diverged'], 'run')} diverged: the loss was not finite.")
    return notes


def _table(summary: dict[str, Any]) -> Table:
    """One row for the dense network, the ticket and its control each: means over repeats."""
    criteria, branches = summary["criteria"], summary["branches"]
    title = f"{plural(summary['repeats'], 'repeat')}, means ± {criteria['confidence']:.0%} confidence"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("", "weights left", "test % at early stop", "early stop"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, figures in branches.items():
        weights = summary["weights_total"] if name == "dense" else summary["weights"]
        table.add_row(
            name,
            f"{weights:,} ({weights / summary['weights_total']:.1%})",
            _figure(figures["test_accuracy_at_stop"], 100, ".2f"),
            _figure(figures["stop_iteration"], 1, ",.0f"),
        )
    return table


def _figure(figure: dict[str, Any], factor: int, form: str) -> str:
    """A mean and half the width of its interval."""
    if not figure["values"]:
        return "diverged"
    mean = format(factor * figure["mean"], form)
    return mean if figure["low"] is None else f"{mean} ± {format(factor * (figure['high'] - figure['mean']), form)}"
