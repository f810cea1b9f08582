"""Shipped: what was measured of a ticket's artefacts, as tables and words, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tombola.exports.export import About, Export
from tombola.exports.measuring import BATCHES, Figures

SIZES = (
    "artefact", "weights", "on\ndisk", "in\nmemory", "working\nspace", "multiply-\nadds", "accuracy", "differs\nby",
)  # fmt: skip
"""The columns of the table of sizes."""

VERSUS = "vs.\ndense"
SPEEDS = ("artefact", "latency,\nµs", VERSUS, *(c for b in BATCHES[1:] for c in (f"images/s\nat {b}", VERSUS)))
"""The columns of the table of speeds."""


def sizes(figures: Sequence[Figures]) -> list[list[str]]:
    """The table of sizes, as text: what is stored and computed, and how right that is."""
    return [
        [
            each.name,
            f"{each.weights:,}",
            _bytes(each.bytes),
            _bytes(each.memory),
            _bytes(each.working),
            _work(each.multiply_adds),
            "" if each.accuracy is None else f"{each.accuracy:.2%}",
            _difference(each),
        ]
        for each in figures
    ]


def speeds(figures: Sequence[Figures]) -> list[list[str]]:
    """The table of speeds, as text. In brackets: how many times as good as the better dense side."""
    dense = [each for each in figures if _is_dense(each)]
    rows = []
    for each in figures:
        if each.latency is None:
            continue
        against = [] if _is_dense(each) else dense
        shortest = min((d.latency for d in against if d.latency is not None), default=None)
        cells = [each.name, f"{each.latency * 1e6:,.1f}", _times(shortest, each.latency)]
        for batch in BATCHES[1:]:
            speed = each.throughput.get(batch)
            best = max((d.throughput[batch] for d in against if batch in d.throughput), default=None)
            cells += ["" if speed is None else f"{speed:,.0f}", _times(speed, best)]
        rows.append(cells)
    return rows


def _is_dense(figures: Figures) -> bool:
    return figures.name.startswith("dense")


def _times(more: float | None, less: float | None) -> str:
    if more is None or less is None:
        return ""
    ratio = more / less
    return f"({ratio:.1f}×)" if ratio >= 0.1 else f"({ratio:.1g}×)"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _work(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"


def _difference(figures: Figures) -> str:
    if figures.difference is not None:
        return f"{figures.difference:.1g}"
    return "" if figures.not_finite is None else "NaN"


def caption(about: About, figures: Sequence[Figures] = ()) -> str:
    """What the figures are of, and what they mean; ONNX Runtime is explained where one of `figures` is of it."""
    ticket, threads = about.ticket, "one thread" if about.threads == 1 else f"{about.threads} threads"
    where = [f"{name} {n}" for name, n in (("level", ticket.level), ("replicate", ticket.replicate)) if n is not None]
    which = f" ({', '.join(where)})" if where else ""
    onnx = any("ONNX" in each.name for each in figures)
    machine = f"{about.machine}; ONNX in ONNX Runtime" if onnx else about.machine
    others = "PyTorch and ONNX Runtime need" if onnx else "PyTorch needs"
    return (
        f"A ticket of {ticket.weights:,} of {ticket.weights_total:,} weights{which}, tried on {about.examples:,} "
        f"examples: {_ended(about.data)} Timed in turns, medians, {threads} of {_ended(machine)} In brackets: times "
        f"as good as the better dense side. In memory: weights, buffers and indices. Working space: what the sparse "
        f"runtime keeps on top, after batches of {BATCHES[-1]}; {others} room for activations, too, and "
        f"{'do' if onnx else 'does'} not tell. Differs by: the largest difference of an output from dense PyTorch's."
    )


def notes(export: Export) -> list[str]:
    """What must not go unsaid: outputs that are no numbers, and what could not be made."""
    broken = [
        f"{each.name}: {each.not_finite:,} of {export.about.examples:,} answers are not finite."
        for each in export.figures
        if each.not_finite
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in export.left_out.items():
        reasons.setdefault(why, []).append(name)
    return broken + [_ended(f"No {', no '.join(names)}: {why}") for why, names in reasons.items()]


def _ended(text: str) -> str:
    """With a full stop, unless it has an end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def show_export(console: Console, export: Export) -> None:
    """Print what was exported, and where it lies."""
    for head, rows in ((SIZES, sizes(export.figures)), (SPEEDS, speeds(export.figures))):
        console.print(_table(head, rows))
        console.print()
    console.print(caption(export.about, export.figures), style="dim", markup=False, highlight=False)
    for note in notes(export):
        console.print(note, style="yellow", markup=False, highlight=False)
    if files := [each.file for each in export.figures if each.file]:
        _line(console, f"Files in {export.folder}: {', '.join(files)}.")
    _line(console, _ended(f"Inputs are {export.about.inputs}"))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0)  # its box has a space between columns: 80 are few
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", vertical="bottom", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
