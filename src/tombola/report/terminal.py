"""Tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tombola.ticket import Ticket

if TYPE_CHECKING:
    from tombola.engines.sparse.speeds import Speed


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print what `tombola.evidence.summary.summarise` gave: the table of levels, then the answer."""
    table = _levels(summary)
    if Measurement.get(console, console.options.update(width=1000), table).maximum > console.width:
        table = _levels(summary, stop_intervals=False)
    console.print(table)
    for line in _notes(summary):
        console.print(line, style="yellow", highlight=False)
    console.print(answer(summary), style="bold", highlight=False)
    for engine, did in summary["engines"].items():
        seconds = f"{did['seconds']:,.1f} s of computing"
        console.print(f"Engine: {engine}; {_count(did['runs'], 'run')}, {seconds}.", style="dim", highlight=False)


def answer(summary: dict[str, Any]) -> str:
    """The verdict in plain words."""
    criteria, found = summary["criteria"], summary["smallest_winning"]
    if not summary["levels"]:
        return "Nothing is finished yet."
    points = float(f"{100 * criteria['accuracy_margin']:g}")
    terms = (
        f"{criteria['confidence']:.0%} sure that they are at most {_count(points, 'point')} less "
        f"accurate than the dense network and stop at most {criteria['stop_margin']:.0%} later "
        f"({_count(summary['replicates'], 'replicate')})"
    )
    unfinished = "" if summary["finished"] else " So far, with runs still to do."
    if found is None:
        return f"No winning ticket: at no level are we {terms}.{unfinished}"
    return (
        f"Winning tickets down to {found['weights_left']:.1%} of the weights "
        f"({found['weights']:,} of them, level {found['level']}): we are {terms}.{unfinished}"
    )


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" + ("" if number == 1 else "s")


def _levels(summary: dict[str, Any], stop_intervals: bool = True) -> Table:
    branches = list(dict.fromkeys(branch for level in summary["levels"] for branch in level["branches"]))
    replicates = _count(summary["replicates"], "replicate")
    table = Table(
        title=f"{summary['recipe']}: {replicates}, means ± {summary['criteria']['confidence']:.0%} confidence",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    table.add_column("\nlevel", justify="right", no_wrap=True)
    table.add_column("\nleft", justify="right", no_wrap=True)
    for branch in branches:
        table.add_column(f"{branch}\naccuracy %", justify="right", no_wrap=True)
    for branch in branches:
        table.add_column(f"{branch}\nstops at", justify="right", no_wrap=True)
    table.add_column("points\nvs dense", justify="right", no_wrap=True)
    table.add_column("\nverdict", no_wrap=True)
    for level in summary["levels"]:
        figures = [level["branches"].get(branch) for branch in branches]
        table.add_row(
            str(level["level"]),
            f"{level['weights_left']:.1%}",
            *(_figure(figure, "test_accuracy_at_stop", 100, ".2f") for figure in figures),
            *(_figure(figure, "stop_iteration", 1, ",.0f", stop_intervals) for figure in figures),
            _difference(level["verdict"]),
            _verdict(level, summary["criteria"]),
        )
    return table


def _figure(branch: dict[str, Any] | None, name: str, factor: int, form: str, interval: bool = True) -> str:
    """A mean and, if wanted, half the width of its interval."""
    if branch is None:
        return "·"
    figure = branch[name]
    if not figure["values"]:
        return "diverged"
    mean = format(factor * figure["mean"], form)
    if figure["low"] is None or not interval:
        return mean
    return f"{mean} ±{format(factor * (figure['high'] - figure['mean']), form)}"


def _difference(verdict: dict[str, Any]) -> str:
    interval = verdict["accuracy_difference"]
    return "·" if interval is None else f"{100 * interval['mean']:+.2f}"


def _verdict(level: dict[str, Any], criteria: dict[str, Any]) -> Text:
    """`winning`, or the first thing that speaks against it: the means, or that they are not sure enough."""
    verdict = level["verdict"]
    accuracy, stop = verdict["accuracy_difference"], verdict["stop_difference"]
    if level["level"] == 0:
        return Text("dense", style="dim")
    if verdict["winning"]:
        return Text("winning", style="bold green")
    if accuracy is None:
        return Text("incomplete", style="yellow")
    if accuracy["mean"] < -criteria["accuracy_margin"]:
        return Text("less accurate", style="dim")
    if stop["mean"] > criteria["stop_margin"]:
        return Text("slower", style="dim")
    if not (verdict["accurate"] and verdict["fast"]):
        return Text("cannot tell", style="dim")
    return Text("matches", style="dim")  # but has too many weights, or a denser level does not win


def _notes(summary: dict[str, Any]) -> list[str]:
    """What must not go unsaid: divergence and collapse."""
    notes = []
    if summary["runs"]["diverged"]:
        notes.append(f"{_count(summary['runs']['diverged'], 'run')} diverged: the loss was not finite.")
    where: dict[str, list[str]] = {}
    for found in summary["collapsed"]:
        where.setdefault(found["layer"], []).append(f"level {found['level']} of replicate {found['replicate']}")
    for layer, places in where.items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        notes.append(f"Layer collapse: {layer} has no weights left at {places[0]}{more}.")
    return notes


def show_speeds(console: Console, speeds: Sequence[Speed]) -> None:
    """Print what was measured of layers: milliseconds of a training step on one thread."""
    for machine in dict.fromkeys(speed.machine for speed in speeds):
        table = Table(title=machine, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in ("layer", "weights left", "sparse ms", "dense ms", "trained"):
            table.add_column(column, justify="left" if column in ("layer", "trained") else "right")
        for speed in speeds:
            if speed.machine == machine:
                how = "sparse" if speed.sparse < speed.dense else "dense"
                table.add_row(speed.layer, f"{speed.density:.1%}", f"{speed.sparse:.3f}", f"{speed.dense:.3f}", how)
        console.print(table)


def ticket_summary(ticket: Ticket) -> dict[str, Any]:
    """What a ticket is, as JSON values."""
    mask = ticket.mask
    return {
        "weights": mask.count,
        "weights_total": mask.size,
        "weights_left": mask.density,
        "layers": {
            name: {"weights": left, "weights_total": mask.sizes[name], "shape": list(mask[name].shape)}
            for name, left in mask.counts.items()
        },
        "provenance": ticket.provenance,
    }


def show_ticket(console: Console, summary: dict[str, Any]) -> None:
    """Print what `ticket_summary` gave."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "shape", "weights left", "of", "density"):
        table.add_column(column, justify="left" if column in ("layer", "shape") else "right")
    for name, layer in summary["layers"].items():
        left, total = layer["weights"], layer["weights_total"]
        table.add_row(name, " × ".join(map(str, layer["shape"])), f"{left:,}", f"{total:,}", f"{left / total:.1%}")
    left, total = summary["weights"], summary["weights_total"]
    table.add_row("all", "", f"{left:,}", f"{total:,}", f"{left / total:.1%}", style="bold")
    console.print(Group(table, *_origin(summary["provenance"])))


def _origin(provenance: dict[str, Any]) -> list[str]:
    try:
        measures = provenance["measures"]
        return [
            f"From recipe {provenance['recipe']['name']}, replicate {provenance['replicate']}, level "
            f"{provenance['level']}; run {provenance['key']}.",
            f"Trained from these weights: test accuracy {measures['test_accuracy_at_stop']:.2%} at early stop "
            f"(iteration {measures['stop_iteration']:,}), {measures['test_accuracy']:.2%} at the end.",
        ]
    except (KeyError, TypeError):  # somebody's own
        return [f"Provenance: {json.dumps(provenance)}" if provenance else "It does not say where it came from."]
