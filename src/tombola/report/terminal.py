"""Tables for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tombola.report.prose import answer, better, late, rewound, transferred
from tombola.tickets.mask_codec import entropy
from tombola.tickets.ticket import Ticket
from tombola.utils.text import plural

if TYPE_CHECKING:
    from tombola.engines.sparse.speeds import Speed


LEGEND = (
    "Accuracies are those at early stop, the iteration of minimum validation loss; gap is training less test "
    "accuracy, in points; p is the chance of results like these if tickets were worse than the dense network by the "
    "margins; (+n): about n more replicates would probably decide."
)


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """Print what `tombola.stats.summary.summarise` gave: the answer, then the table of levels."""
    console.print(answer(summary), style="bold", markup=False, highlight=False)
    console.print()
    table = _levels(summary)
    if Measurement.get(console, console.options.update(width=1000), table).maximum > console.width:  # too wide
        table = _levels(summary, stop_intervals=False)
    console.print(table)
    for line in _notes(summary):
        console.print(line, style="yellow", markup=False, highlight=False)
    if summary["stability"]:
        console.print(_stability(summary["stability"]))
        if summary["stability"]["rewound_to"]:
            console.print(rewound(summary["stability"]), markup=False, highlight=False)
    if summary["levels"]:
        console.print(LEGEND, style="dim", highlight=False)
    for engine, did in summary["engines"].items():
        line = f"Engine: {engine}; {plural(did['runs'], 'run')}, {did['seconds']:,.1f} s of computing."
        console.print(line, style="dim", markup=False, highlight=False)


def _levels(summary: dict[str, Any], stop_intervals: bool = True) -> Table:
    """One row for each branch of each level."""
    replicates = plural(summary["replicates"], "replicate")
    table = Table(
        title=f"{summary['recipe']}: {replicates}, means ± {summary['criteria']['confidence']:.0%} confidence",
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for name in ("level", "left", "", "test %", "train", "gap", "stop", "p", "verdict"):
        left = name in ("", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for level in summary["levels"]:
        place = [str(level["level"]), f"{level['weights_left']:.1%}"]
        for branch, figures in level["branches"].items():
            ticket = branch == "ticket"
            table.add_row(
                *(place if ticket else ("", "")),
                "dense" if ticket and level["level"] == 0 else branch,
                _figure(figures, "test_accuracy_at_stop", 100, ".2f"),
                _figure(figures, "train_accuracy_at_stop", 100, ".1f", interval=False),
                _figure(figures, "gap_at_stop", 100, ".1f", interval=False),
                _figure(figures, "stop_iteration", 1, ",.0f", stop_intervals),
                _p(level["verdict"]) if ticket else "",
                _verdict(level) if ticket else "",
                style=None if ticket else "dim",
            )
    return table


def _stability(found: dict[str, Any]) -> Table:
    """The barrier at each candidate."""
    table = Table(title="Stability", title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for name in ("k", "barrier, validation", "test", "stable"):
        table.add_column(name, justify="right", no_wrap=True)
    for candidate in found["candidates"]:
        barriers = (
            _figure({"barrier": candidate[f"{part}_barrier"]}, "barrier", 100, ".2f")
            for part in ("validation", "test")
        )
        table.add_row(f"{candidate['k']:,}it", *barriers, f"{candidate['stable']} of {candidate['replicates']}")
    return table


def _figure(branch: dict[str, Any], name: str, factor: int, form: str, interval: bool = True) -> str:
    """A mean and, if wanted, half the width of its interval."""
    figure = branch[name]
    if not figure["values"]:
        return "diverged"
    mean = format(factor * figure["mean"], form)
    if figure["low"] is None or not interval:
        return mean
    return f"{mean} ±{format(factor * (figure['high'] - figure['mean']), form)}"


def _p(verdict: dict[str, Any]) -> str:
    """The larger of the two p-values that say it is no match."""
    tests = [verdict[name]["p_not_worse"] for name in ("accuracy_difference", "stop_difference") if verdict[name]]
    return "" if not tests else "<.001" if max(tests) < 0.001 else f"{max(tests):.3f}".removeprefix("0")


def _verdict(level: dict[str, Any]) -> Text:
    """`winning`, and what it does better than the dense network; or in short what speaks against it."""
    verdict = level["verdict"]
    if verdict["state"] == "winning":
        return Text("winning" + better(level), style="bold green")
    if verdict["state"] == "cannot tell":
        more = verdict["more_replicates"]
        return Text("cannot tell" + (f" (+{more})" if more else ""), style="yellow")
    return Text(verdict["reason"], style="dim")


def _notes(summary: dict[str, Any]) -> list[str]:
    """What must not go unsaid: divergence and collapse."""
    notes = []
    if summary["runs"]["diverged"]:
        notes.append(f"{plural(summary['runs']['diverged'], 'run')} diverged: the loss was not finite.")
    if summary["late"]:
        notes.append(late(summary))
    if summary["transfer"]:
        notes.append(transferred(summary))
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
    """What a ticket is, as JSON values; of one that was loaded, how its file holds it too."""
    mask = ticket.mask
    return {
        "weights": mask.count,
        "weights_total": mask.size,
        "weights_left": mask.density,
        "layers": {
            name: {"weights": left, "weights_total": mask.sizes[name], "shape": list(mask[name].shape)}
            for name, left in mask.counts.items()
        },
        "mask_entropy_bytes": entropy(mask) / 8,
        "file": ticket.stored and asdict(ticket.stored),
        "provenance": ticket.provenance,
    }


def show_ticket(console: Console, summary: dict[str, Any]) -> None:
    """Print what `ticket_summary` gave. Whatever a file says is shown as it is, not as markup."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("layer", "shape", "weights left", "of", "density"):
        table.add_column(column, justify="left" if column in ("layer", "shape") else "right")
    for name, layer in summary["layers"].items():
        left, total = layer["weights"], layer["weights_total"]
        density = f"{left / total:.1%}" if total else ""
        table.add_row(_plain(name), " × ".join(map(str, layer["shape"])), f"{left:,}", f"{total:,}", density)
    left, total = summary["weights"], summary["weights_total"]
    table.add_row("all", "", f"{left:,}", f"{total:,}", f"{left / total:.1%}", style="bold")
    console.print(Group(table, *map(_plain, [*_held(summary), *_origin(summary["provenance"])])))


def _plain(text: str) -> Text:
    """Text that a file may have from anybody: without markup and without what a terminal would obey."""
    return Text("".join(letter if letter.isprintable() else "?" for letter in text))


def _held(summary: dict[str, Any]) -> list[str]:
    """How the file holds the ticket."""
    file = summary["file"]
    if file is None:
        return []
    start = "by seed, drawn when they are asked for" if file["start"] == "seed" else "by value"
    trained = "no trained weights" if file["trained"] == "none" else f"trained weights in {file['trained']}"
    return [
        f"Initial weights {start}; {trained}.",
        f"The file has {file['bytes']:,} bytes; the entropy of its mask is {summary['mask_entropy_bytes']:,.0f}.",
    ]


def _origin(provenance: dict[str, Any]) -> list[str]:
    try:
        measures = provenance["measures"]
        return [
            f"From recipe {provenance['recipe']['name']}, replicate {provenance['replicate']}, level "
            f"{provenance['level']}; run {provenance['key']}.",
            f"Trained from these weights: test accuracy {measures['test_accuracy_at_stop']:.2%} at early stop "
            f"(iteration {measures['stop_iteration']:,}), {measures['test_accuracy']:.2%} at the end.",
        ]
    except (LookupError, TypeError, ValueError):  # somebody's own
        return [f"Provenance: {json.dumps(provenance)}" if provenance else "It does not say where it came from."]
