"""The measurements of an exported ticket, as tables and sentences, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from tombola.exports.benchmark import BATCH_SIZES, Figures
from tombola.exports.export_result import DenseNetwork, Export, ExportInfo
from tombola.report.console import print_text, print_unbroken
from tombola.report.fitting_table import print_table
from tombola.report.formatting import of_all_weights, operations, text_table
from tombola.utils.text import byte_size

SIZES = (
    "artefact", "weights", "on\ndisk", "in\nmemory", "working\nspace", "multiply-\nadds", "accuracy", "differs\nby",
)  # fmt: skip
"""The columns of the table of sizes."""

DROPPED_FIRST = ("differs by", "working space", "multiply-adds", "in memory")
"""Those that a narrow terminal leaves out first, by their names in a line."""

VERSUS = "vs.\ndense"
SPEEDS = ("artefact", "latency,\nµs", VERSUS, *(c for b in BATCH_SIZES[1:] for c in (f"images/s\nat {b}", VERSUS)))
"""The columns of the table of speeds."""


DENSE = "dense network"
"""The row of the network that the ticket was found in: its accuracy, and what follows from its layers."""


COSTS = ("artefact", "accuracy", "multiply-\nadds", "latency,\nµs", VERSUS)
"""The columns of the table of costs."""


def costs(figures: Sequence[Figures], dense: DenseNetwork | None = None) -> list[list[str]]:
    """The rows of the table of costs, of the artefacts that are timed: accuracy beside the work and the time that it
    takes; that of the `dense` network first."""
    of_dense = [] if dense is None else [[DENSE, f"{dense.accuracy:.2%}", _work_of_dense(figures), "", ""]]
    timed = [each for each in figures if each.latency is not None]
    return of_dense + [
        [each.name, _percent(each.accuracy), _work(each), *row[1:3]]
        for each, row in zip(timed, speeds(figures), strict=True)
    ]


def sizes(figures: Sequence[Figures], dense: DenseNetwork | None = None) -> list[list[str]]:
    """The rows of the table of sizes: storage, memory, work and accuracy; that of the `dense` network first."""
    accuracy = "" if dense is None else f"{dense.accuracy:.2%}"
    of_dense = [] if dense is None else [[DENSE, *[""] * 4, _work_of_dense(figures), accuracy, ""]]
    return of_dense + [
        [
            each.name,
            f"{each.weights:,}",
            _bytes(each.bytes),
            _bytes(each.memory),
            _bytes(each.working),
            _work(each),
            _percent(each.accuracy),
            _difference(each),
        ]
        for each in figures
    ]


def speeds(figures: Sequence[Figures]) -> list[list[str]]:
    """The rows of the table of speeds. In brackets: how many times as fast as the ticket stored densely, where that
    is faster; of what is run on a GPU, as that on the GPU."""
    rows = []
    for each in figures:
        if each.latency is None:
            continue
        references = [d for d in figures if d.is_reference and d.device == each.device and not each.is_reference]
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


def _work_of_dense(figures: Sequence[Figures]) -> str:
    """The multiply-adds of the ticket stored densely: the dense network has the same layers."""
    return _work(figures[0]) if figures else ""


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _bytes(count: int | None) -> str:
    return "" if count is None else byte_size(count)


def _work(figures: Figures) -> str:
    return "" if figures.multiply_adds is None else operations(figures.multiply_adds)


def _difference(figures: Figures) -> str:
    if figures.difference is not None:
        return f"{figures.difference:.1g}"
    return "" if figures.not_finite is None else "NaN"


def caption(about: ExportInfo, figures: Sequence[Figures] = ()) -> str:
    """What was measured and how, and what each figure is of; mentions ONNX Runtime and GPUs if one of the `figures`
    is of them."""
    ticket, threads = about.ticket, "one thread" if about.threads == 1 else f"{about.threads} threads"
    where = [f"{name} {n}" for name, n in (("level", ticket.level), ("replicate", ticket.replicate)) if n is not None]
    which = f" ({', '.join(where)})" if where else ""
    onnx, gpu = any("ONNX" in each.name for each in figures), any(each.device == "cuda" for each in figures)
    machine = f"{about.machine}; ONNX in ONNX Runtime" if onnx else about.machine
    others = "PyTorch and ONNX Runtime need" if onnx else "PyTorch needs"
    accuracy = "Accuracy of all others" if about.dense else "Accuracy"
    parts = [
        f"A ticket with {ticket.weights:,} of {ticket.weights_total:,} weights{which}{of_all_weights(ticket)}.",
        "Ticket, dense: its weights stored as before pruning, zeros included.",
        f"{DENSE.capitalize()}: after its own training, on the test set, as recorded then." if about.dense else "",
        f"{accuracy}: on {about.examples:,} examples, {_sentence(about.data)}",
        "Differs by: the largest difference of an output from that of the ticket in dense PyTorch.",
        "Multiply-adds: of linear and convolutional layers for one example, those with stored zeros included.",
        "In memory: weights, buffers and indices.",
        f"Working space: additional memory of the sparse runtime after batches of {BATCH_SIZES[-1]}; {others} memory "
        "for activations, too, which is not measured.",
        f"Latency: of one example. Median times, measured alternately, with {threads} of {_sentence(machine)}",
        "On a GPU: with the transfers of inputs and outputs." if gpu else "",
        "In brackets: times as fast as the faster of the dense rows" + (" on that device." if gpu else "."),
    ]
    return " ".join(filter(None, parts))


def notes(export: Export) -> list[str]:
    """What is to be said of artefacts: of those whose outputs are not finite, of single ones, of those that could not
    be made, and of the dense network's accuracy if it is not known."""
    broken = [
        f"{each.name}: {each.not_finite:,} of {export.about.examples:,} outputs are not finite."
        for each in export.figures
        if each.not_finite
    ]
    single = [_sentence(f"{each.name}: {each.note}") for each in export.figures if each.note]
    known = export.about.dense is not None or all(each.accuracy is None for each in export.figures)
    unknown = [] if known else [f"No {DENSE}: the ticket does not say how accurate that was on the test set."]
    reasons: dict[str, list[str]] = {}
    for name, why in export.left_out.items():
        reasons.setdefault(why, []).append(name)
    return (
        broken + single + unknown + [_sentence(f"No {', no '.join(names)}: {why}") for why, names in reasons.items()]
    )


def _sentence(text: str) -> str:
    """With a full stop at the end, unless there is a punctuation mark."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def show_export(console: Console, export: Export) -> None:
    """Print the measurements and the names of the files."""
    for head, rows in ((SIZES, sizes(export.figures, export.about.dense)), (SPEEDS, speeds(export.figures))):
        table = text_table(head, left=("artefact",), least=DROPPED_FIRST)
        for row in rows:
            table.add_row(*map(Text, row))
        print_table(console, table)
        console.print()
    print_text(console, caption(export.about, export.figures), "dim")
    for note in notes(export):
        print_text(console, note, "yellow")
    if files := [each.file for each in export.figures if each.file]:
        print_unbroken(console, f"Files in {export.folder}:")
        print_text(console, f"  {', '.join(files)}")
    print_text(console, _sentence(f"Inputs are {export.about.inputs}"))
