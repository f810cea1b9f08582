"""What came of a check, in words and a small table."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tombola.report.words import count
from tombola.results import versions

SURELY = ("less accurate", "slower", "worse than reinit")
"""Reasons that are statements of a test."""


def show_checked(console: Console, summary: dict[str, Any]) -> None:
    """Print what `tombola.checked.Checked.summary` gave: the answer, the table, and what was tested."""
    lines = [reproduction(summary), *_notes(summary), scope(summary)]
    console.print(answer(summary), style="bold", markup=False, highlight=False)
    console.print()
    console.print(_table(summary))
    for line in lines:
        console.print(line, markup=False, highlight=False)


def answer(summary: dict[str, Any]) -> str:
    """Whether the claim holds, in one sentence with its figures."""
    reproduced, verdict, state = summary["reproduced"], summary["verdict"], summary["state"]
    orders, left = count(summary["repeats"], "other order"), f"{summary['weights_left']:.1%}"
    tried = f"in {orders} of batches the ticket, {left} of the weights,"
    if state == "holds":
        control = "" if verdict["p_better_than_control"] is None else ", and is better than newly drawn weights"
        sure = f"{summary['criteria']['confidence']:.0%} sure"
        return f"The claim holds: {tried} {_allowed(summary)}{control} ({sure}): {_figures(summary)}."
    if state == "cannot tell":
        return f"Cannot tell: {tried} {_open(summary)}: {_figures(summary)}. {_advice(summary)}"
    if verdict["state"] != "not winning":
        what = next(name for name in ("ticket", "dense") if name in reproduced and not reproduced[name]["reproduced"])
        return f"The claim does not hold: of the {_named(what)} it says {_recorded_and_here(reproduced[what])}."
    reason = verdict["reason"]
    how = f"surely {reason}" if reason in SURELY else f"no match ({reason})"
    return f"The claim does not hold: {tried} is {how}: {_figures(summary)}."


def reproduction(summary: dict[str, Any]) -> str:
    """Whether the recorded figures were got again."""
    found = summary["reproduced"]
    anew = " (as the store remembers them; not trained anew)" if found["remembered"] else ""
    both = " and of the dense network" if "dense" in found else ""
    weights = _weights(found["trained_apart"])
    if found["exact"]:
        return f"Recorded figures of the ticket{both}: reproduced to the bit{anew}.{weights}"
    how = "reproduced but for rounding" if found["all"] else "not reproduced"
    each = "; ".join(f"{_named(n)}: {_recorded_and_here(found[n])}" for n in ("ticket", "dense") if n in found)
    here = versions()
    other = [f"{n} {v}, here {here[n]}" for n, v in found["versions"].items() if n in here and here[n] != v]
    made = f" Made with {'; '.join(other)}." if other else ""
    return f"Recorded figures of the ticket{both}: {how}{anew}. {each[0].upper()}{each[1:]}.{made}{weights}"


def _weights(apart: float | None) -> str:
    """How far the trained weights in the file are from those that were got here."""
    if apart is None:
        return ""
    how = f"{apart:.2g} of their length away from these" if apart else "these, to the bit"
    return f" The trained weights in the file are {how}."


def scope(summary: dict[str, Any]) -> str:
    """What was tested, and what was not."""
    return (
        f"Tested is one mask with one start on one split of the data, in {count(summary['repeats'], 'order')} of "
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
    return f"About {count(more, 'more repeat')} would probably decide (--repeats {repeats + more})."


def _points(share: float) -> str:
    return count(float(f"{100 * share:g}"), "point")


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
    return (
        f"{said}, and the same training gives {here['test_accuracy_at_stop']:.2%} at iteration "
        f"{here['stop_iteration']:,} here (rounding explains {100 * figures['tolerance']:.1f} points)"
    )


def _named(what: str) -> str:
    return "dense network" if what == "dense" else what


def _notes(summary: dict[str, Any]) -> list[str]:
    notes = []
    if summary["late"]:
        notes.append(
            f"{summary['late']} of {count(summary['repeats'], 'dense network')} had the minimum of validation loss "
            f"at the last iteration: trained longer, they could be more accurate, and harder to match."
        )
    if summary["runs"]["diverged"]:
        notes.append(f"{count(summary['runs']['diverged'], 'run')} diverged: the loss was not finite.")
    return notes


def _table(summary: dict[str, Any]) -> Table:
    """One row for the dense network, the ticket and its control each: means over repeats."""
    criteria, branches = summary["criteria"], summary["branches"]
    title = f"{count(summary['repeats'], 'repeat')}, means ± {criteria['confidence']:.0%} confidence"
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
