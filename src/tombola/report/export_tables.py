"""The measurements of an exported ticket, as tables and sentences, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from tombola.exports.benchmark import BATCH_SIZES, Figures
from tombola.exports.export_result import Export, ExportInfo
from tombola.report.formatting import of_all_weights, text_table
from tombola.utils.text import byte_size

SIZES = (
    "artefact", "weights", "on\ndisk", "in\nmemory", "working\nspace", "multiply-\nadds", "accuracy", "differs\nby",
)  # fmt: skip
"""The columns of the table of sizes."""

VERSUS = "vs.\ndense"
SPEEDS = ("artefact", "latency,\nµs", VERSUS, *(c for b in BATCH_SIZES[1:] for c in (f"images/s\nat {b}", VERSUS)))
"""The columns of the table of speeds."""


def sizes(figures: Sequence[Figures]) -> list[list[str]]:
    """The rows of the table of sizes: storage, memory, work and accuracy."""
    return [
        [
            each.name,
            f"{each.weights:,}",
            _bytes(each.bytes),
            _bytes(each.memory),
            _bytes(each.working),
            _operations(each.multiply_adds),
            "" if each.accuracy is None else f"{each.accuracy:.2%}",
            _difference(each),
        ]
        for each in figures
    ]


def speeds(figures: Sequence[Figures]) -> list[list[str]]:
    """The rows of the table of speeds. In brackets: how many times as fast as the faster dense network."""
    dense = [each for each in figures if each.name.startswith("dense")]
    rows = []
    for each in figures:
        if each.latency is None:
            continue
        references = [] if each in dense else dense
        shortest = min((d.latency for d in references if d.latency is not None), default=None)
        cells = [each.name, f"{each.latency * 1e6:,.1f}", _speedup(shortest, each.latency)]
        for batch in BATCH_SIZES[1:]:
            speed = each.throughput.get(batch)
            best = max((d.throughput[batch] for d in references if batch in d.throughput), default=None)
            cells += ["" if speed is None else f"{speed:,.0f}", _speedup(speed, best)]
        rows.append(cells)
    return rows


def _speedup(numerator: float | None, denominator: float | None) -> str:
    if numerator is None or denominator is None:
        return ""
    ratio = numerator / denominator
    return f"({ratio:.1f}×)" if ratio >= 0.1 else f"({ratio:.1g}×)"


def _bytes(count: int | None) -> str:
    return "" if count is None else byte_size(count)


def _operations(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else f"{count:,}"


def _difference(figures: Figures) -> str:
    if figures.difference is not None:
        return f"{figures.difference:.1g}"
    return "" if figures.not_finite is None else "NaN"


def caption(about: ExportInfo, figures: Sequence[Figures] = ()) -> str:
    """What was measured and how; mentions ONNX Runtime if one of the `figures` is of it."""
    ticket, threads = about.ticket, "one thread" if about.threads == 1 else f"{about.threads} threads"
    where = [f"{name} {n}" for name, n in (("level", ticket.level), ("replicate", ticket.replicate)) if n is not None]
    which = f" ({', '.join(where)})" if where else ""
    onnx = any("ONNX" in each.name for each in figures)
    machine = f"{about.machine}; ONNX in ONNX Runtime" if onnx else about.machine
    others = "PyTorch and ONNX Runtime need" if onnx else "PyTorch needs"
    return (
        f"A ticket with {ticket.weights:,} of {ticket.weights_total:,} weights{which}{of_all_weights(ticket)}, "
        f"tested on {about.examples:,} examples: {_sentence(about.data)} Median times, measured alternately, with "
        f"{threads} of "
        f"{_sentence(machine)} In brackets: times as fast as the faster dense network. In memory: weights, buffers "
        f"and indices. Working space: additional memory of the sparse runtime after batches of {BATCH_SIZES[-1]}; "
        f"{others} memory for activations, too, which is not measured. Differs by: the largest difference of an "
        f"output from dense PyTorch's."
    )


def notes(export: Export) -> list[str]:
    """Warnings: outputs that are not finite, and artefacts that could not be made."""
    broken = [
        f"{each.name}: {each.not_finite:,} of {export.about.examples:,} outputs are not finite."
        for each in export.figures
        if each.not_finite
    ]
    reasons: dict[str, list[str]] = {}
    for name, why in export.left_out.items():
        reasons.setdefault(why, []).append(name)
    return broken + [_sentence(f"No {', no '.join(names)}: {why}") for why, names in reasons.items()]


def _sentence(text: str) -> str:
    """With a full stop at the end, unless there is a punctuation mark."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def show_export(console: Console, export: Export) -> None:
    """Print the measurements and the names of the files."""
    for head, rows in ((SIZES, sizes(export.figures)), (SPEEDS, speeds(export.figures))):
        table = text_table(head, left=("artefact",))
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
        console.print()
    console.print(caption(export.about, export.figures), style="dim", markup=False, highlight=False)
    for note in notes(export):
        console.print(note, style="yellow", markup=False, highlight=False)
    if files := [each.file for each in export.figures if each.file]:
        _line(console, f"Files in {export.folder}: {', '.join(files)}.")
    _line(console, _sentence(f"Inputs are {export.about.inputs}"))


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
