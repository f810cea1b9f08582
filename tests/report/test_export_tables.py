from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.report_data import report_data, report_row
from tests.support.reports import HOSTILE, Elements, document_of, figure_names, printed, problems_of, section_names
from tombola.experiments.results import TICKET, read_results
from tombola.exports.benchmark import Figures
from tombola.exports.export_result import (
    EXPORT_FOLDER,
    FIGURES_FILE,
    DenseNetwork,
    Export,
    ExportInfo,
    TicketInfo,
    read_export,
)
from tombola.pruning.mask import Mask
from tombola.report.export_tables import COSTS, SIZES, SPEEDS, caption, costs, notes, show_export, sizes, speeds
from tombola.report.html import render
from tombola.report.page_sections import document
from tombola.report.report_data import read_report_data
from tombola.tickets.ticket import Ticket


def figures(name: str, scale: float = 1.0, **changes: Any) -> Figures:
    """Figures of an artefact that is `scale` times as fast as one that takes a millisecond."""
    made = Figures(
        name, name.replace(" ", "."), 14_719_818, 58_939_123, 58_900_000, 556_651_520,
        1e-3 / scale, {64: 1e3 * scale, 256: 2e3 * scale}, 0.9567, 6e-6, 0,
    )  # fmt: skip
    return replace(made, **changes)


NAMES = ("ticket", "PyTorch", "ONNX", "compact", "sparse", "CSR")
"""What lines with the measurements of an artefact begin with."""
NOTHING: dict[str, Any] = {"latency": None, "throughput": {}}
FILE: dict[str, Any] = NOTHING | {"accuracy": None, "difference": None, "not_finite": None}


def exported(folder: Path = Path("results/shipped"), **changes: Any) -> Export:
    """All kinds of artefacts, of a large network."""
    about = ExportInfo(
        "float32 (N, 3, 32, 32), scaled", TicketInfo(735_990, 14_719_818, 7, 2, "22ticket"),
        "the test set of cifar10", 10_000, 2, "A machine, avx2", {"torch": "2"}, DenseNetwork(0.965),
    )  # fmt: skip
    made = [
        figures("ticket, dense PyTorch", file="", difference=0.0),
        figures("ticket, dense ONNX", 2.0, file=""),
        figures("ticket, fp16", weights=735_990, memory=None, multiply_adds=None, difference=0.0123, **NOTHING),
        figures("compact exported", 0.5, file="compact.pt2"),
        figures(
            "sparse", 40.0, weights=735_990, bytes=5_900_123, memory=999, working=1_234_567, multiply_adds=999_999
        ),
        figures("CSR", weights=735_990, multiply_adds=None, **FILE),
    ]
    why = "this needs onnx: pip install 'tombola[onnx]'"
    left_out = {"ticket, dense ONNX": why, "onnx": why, "two-four": 'search with structure = "2:4"'}
    return replace(Export(folder, made, about, left_out), **changes)


def shown(export: Export, width: int = 80) -> str:
    return printed(show_export, export, width=width)


@pytest.mark.parametrize("width", [80, 120])
def test_both_tables_fit_a_terminal(width: int) -> None:
    text = shown(exported(), width)
    assert "…" not in text
    lines = text.splitlines()
    soft = ("Files in", "Inputs are")  # not wrapped
    assert all(len(line) <= 80 for line in lines if not line.startswith(soft)) or width > 80
    assert ["dense", "network", "556.7", "M", "96.50%"] in [line.split() for line in lines]
    if width == 80:  # the longest name is continued on a second line, with the numbers
        assert ["ticket,", "dense"] in [line.split() for line in lines]
    tables = [line for line in lines if line.startswith(NAMES) and any(map(str.isdigit, line))]
    assert [line.removeprefix("ticket, dense").split() for line in tables[:6]] == [
        ["PyTorch", "14,719,818", "58.9", "MB", "58.9", "MB", "556.7", "M", "95.67%", "0"],
        ["ONNX", "14,719,818", "58.9", "MB", "58.9", "MB", "556.7", "M", "95.67%", "6e-06"],
        ["ticket,", "fp16", "735,990", "58.9", "MB", "95.67%", "0.01"],
        ["compact", "exported", "14,719,818", "58.9", "MB", "58.9", "MB", "556.7", "M", "95.67%", "6e-06"],
        ["sparse", "735,990", "5.9", "MB", "1.0", "kB", "1.2", "MB", "999,999", "95.67%", "6e-06"],
        ["CSR", "735,990", "58.9", "MB", "58.9", "MB"],
    ]
    assert [line.removeprefix("ticket, dense").split() for line in tables[6:10]] == [
        ["PyTorch", "1,000.0", "1,000", "2,000"],
        ["ONNX", "500.0", "2,000", "4,000"],
        ["compact", "exported", "2,000.0", "(0.2×)", "500", "(0.2×)", "1,000", "(0.2×)"],
        ["sparse", "25.0", "(20.0×)", "40,000", "(20.0×)", "80,000", "(20.0×)"],
    ]


def test_numbers_are_right_aligned() -> None:
    lines = shown(exported()).splitlines()
    rows = [line for line in lines if line.startswith(NAMES) and any(map(str.isdigit, line))]
    ends = {line.index(n) + len(n) for line in rows[:6] for n in ("14,719,818", "735,990") if n in line}
    assert len(ends) == 1
    assert len({line.index("(20.0×)") for line in rows if "(20.0×)" in line}) == 1


def test_ratios_are_to_the_faster_dense_network() -> None:
    first = figures("ticket, dense PyTorch", 4.0, file="")
    made = [first, figures("ticket, dense ONNX", 2.0, file=""), figures("sparse", 6.0)]
    assert speeds(made)[2] == ["sparse", "166.7", "(1.5×)", "6,000", "(1.5×)", "12,000", "(1.5×)"]
    mixed = [replace(made[0], latency=1.0), *made[1:]]  # one is faster at one example, the other at many
    assert speeds(mixed)[2][2:5] == ["(3.0×)", "6,000", "(1.5×)"]
    slow = [made[0], figures("sparse", 0.08)]
    assert speeds(slow)[1][2] == "(0.02×)"
    assert speeds(made[2:]) == [["sparse", "166.7", "", "6,000", "", "12,000", ""]]
    assert all(len(row) == len(SPEEDS) for row in speeds(exported().figures))
    gpu = [figures("half", 10.0, file="", device="cuda"), figures("2:4", 30.0, device="cuda")]
    assert [row[:3] for row in speeds([*made, *gpu])[3:]] == [["half", "100.0", ""], ["2:4", "33.3", "(3.0×)"]]
    assert speeds([*made, *gpu])[:3] == speeds(made)
    assert all(len(row) == len(SIZES) for row in sizes(exported().figures))


def test_accuracy_is_beside_work_and_latency() -> None:
    one = exported()
    assert costs(one.figures, one.about.dense) == [
        ["dense network", "96.50%", "556.7 M", "", ""],
        ["ticket, dense PyTorch", "95.67%", "556.7 M", "1,000.0", ""],
        ["ticket, dense ONNX", "95.67%", "556.7 M", "500.0", ""],
        ["compact exported", "95.67%", "556.7 M", "2,000.0", "(0.2×)"],
        ["sparse", "95.67%", "999,999", "25.0", "(20.0×)"],
    ]
    assert costs(one.figures) == costs(one.figures, one.about.dense)[1:]
    assert costs([], DenseNetwork(0.5)) == [["dense network", "50.00%", "", "", ""]]
    assert all(len(row) == len(COSTS) for row in costs(one.figures))


def test_outputs_that_are_not_finite() -> None:
    broken = [
        figures("ticket, dense PyTorch", not_finite=3),
        figures("sparse", difference=None, not_finite=1_000),
        figures("csr", **FILE),
    ]
    assert [row[-1] for row in sizes(broken)] == ["6e-06", "NaN", ""]
    first, second = notes(exported(figures=broken, left_out={}))
    assert [row[6] for row in sizes(broken, DenseNetwork(0.5))] == ["50.00%", "95.67%", "95.67%", ""]
    assert first.startswith("ticket, dense PyTorch: 3 of 10,000 ")
    assert second.startswith("sparse: 1,000 of 10,000 ")


def test_the_caption_and_notes() -> None:
    one = exported()
    assert notes(one) == [
        "No ticket, dense ONNX, no onnx: this needs onnx: pip install 'tombola[onnx]'.",
        'No two-four: search with structure = "2:4".',
    ]
    said = caption(one.about, one.figures)
    facts = "735,990 of 14,719,818 weights (level 7, replicate 2)", "10,000 examples, the test set of cifar10."
    for fact in (*facts, "Dense network: ", "Accuracy of all others: "):
        assert fact in said
    assert "2 threads of A machine, avx2; ONNX in ONNX Runtime. " in said
    assert "batches of 256" in said
    without = caption(one.about, [each for each in one.figures if "ONNX" not in each.name])
    assert "ONNX" not in without
    assert "A machine, avx2. " in without
    asked = exported(left_out={"onnx": "is the forward pass random?", "csr": "it ends."})
    assert notes(asked) == ["No onnx: is the forward pass random?", "No csr: it ends."]
    bare = caption(replace(one.about, threads=1, ticket=TicketInfo(5, 10), data="made up", dense=None))
    assert "5 of 10 weights. " in bare
    assert "Accuracy: on 10,000 examples, made up. " in bare
    assert "Dense network" not in bare
    assert "GPU" not in bare
    assert "GPU" in caption(one.about, [figures("2:4", device="cuda")])
    assert "one thread of A machine" in bare
    text = shown(one)
    assert text.endswith(
        "Files in results/shipped:\n  ticket,.fp16, compact.pt2, sparse, CSR\n"
        "Inputs are float32 (N, 3, 32, 32), scaled.\n"
    )
    assert "Files" not in shown(replace(one, figures=one.figures[:2]))


def test_what_is_said_of_single_artefacts_and_of_an_unknown_dense_network() -> None:
    one = exported(left_out={}, figures=[figures("compact int8", note="calibrated on 512 examples: digits")])
    assert notes(one) == ["compact int8: calibrated on 512 examples: digits."]
    unknown = replace(one, about=replace(one.about, dense=None))
    (said, no_dense) = notes(unknown)
    assert said == notes(one)[0]
    assert no_dense.startswith("No dense network: ")
    assert not sizes(unknown.figures)[0][0].startswith("dense")
    without = [replace(each, accuracy=None) for each in unknown.figures]
    assert notes(replace(unknown, figures=without)) == notes(one)


def test_files_of_former_versions_are_shown_with_todays_names(tmp_path: Path) -> None:
    content = exported(tmp_path).to_json()
    content.pop("dense")
    for each, former in zip(content["artefacts"], ["dense PyTorch", "dense ONNX"], strict=False):
        each["name"] = former
    for each in content["artefacts"]:
        del each["note"], each["device"]
    content["left_out"] = {"dense ONNX": "no onnx"}
    (tmp_path / FIGURES_FILE).write_text(json.dumps(content))
    read = read_export(tmp_path)
    assert [each.name for each in read.figures] == [each.name for each in exported().figures]
    assert speeds(read.figures) == speeds(exported().figures)
    assert (read.about.dense, [*read.left_out]) == (None, ["ticket, dense ONNX"])


def test_names_are_not_markup_in_the_terminal() -> None:
    one = exported(Path("a[red]b"), left_out={"[bold]": "[/nonsense]"})
    text = shown(replace(one, figures=[figures("[red]name")]))
    for said in ("[red]name", "a[red]b", "No [bold]: [/nonsense]."):
        assert said in text


def write_export(results: Path, **changes: Any) -> dict[str, Any]:
    """Write the figures of an export of one of its tickets to a results folder."""
    key = next(row.run for row in read_results(results).rows if row.branch == "ticket" and row.level == 2)
    mask = Mask({"fc.weight": torch.ones(1, 1, dtype=torch.bool)})
    Ticket(mask, {"fc.weight": torch.ones(1, 1)}, {"key": key}).save(results / TICKET)
    one = exported(results / EXPORT_FOLDER)
    one = replace(one, about=replace(one.about, ticket=replace(one.about.ticket, key=key)), **changes)
    content = one.to_json()
    one.folder.mkdir(exist_ok=True)
    (one.folder / FIGURES_FILE).write_text(json.dumps(content))
    return content


def rendered(export: Export | None) -> str:
    """The page of a small experiment with this export."""
    return render(document(replace(report_data([report_row(0, 0)]), export=export)))


def test_the_page_shows_both_tables(results: Path) -> None:
    assert "shipped" not in section_names(document_of(results))
    write_export(results)
    page = rendered(read_report_data(results).export)
    elements = Elements(page)
    assert '<a href="#shipped">Shipped</a>' in page
    for said in (
        "735,990 of 14,719,818 weights (level 7, replicate 2)",
        "No ticket, dense ONNX, no onnx: this needs onnx",
        "Inputs are float32 (N, 3, 32, 32), scaled.",
        "multiply-adds",
        "96.50%",
        "working space",
        "images/s at 256",
        "(20.0×)",
    ):
        assert said in elements.text
    tables = [a.get("id") for tag, a in elements.tags if tag == "table"]
    assert [name for name in tables if name and name.startswith("shipped")] == [
        f"shipped-{name}" for name in ("costs", "sizes", "speeds")
    ]
    assert "Incomplete." not in elements.text
    section = page[page.index('<section id="shipped"') : page.index('<section id="cost"')]
    assert "<details" not in section
    assert section.count("<tr>") == 3 + 5 + 7 + 4
    assert "<td>–</td>" in section
    assert "<td></td>" not in section
    assert '<th scope="row" class="words">sparse</th>' in section


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: "no JSON",
        lambda _: "[]",
        lambda content: json.dumps(content | {"examples": HOSTILE}),
        lambda content: json.dumps(content | {"artefacts": [{**content["artefacts"][0], "latency": 0}]}),
        lambda content: json.dumps(content).replace("0.9567", "NaN"),
    ],
)
def test_damaged_figures_are_named_and_the_rest_is_shown(results: Path, harm: Any) -> None:
    content = write_export(results)
    (results / EXPORT_FOLDER / FIGURES_FILE).write_text(harm(content))
    report = document_of(results)
    assert f"{FIGURES_FILE} is damaged" in problems_of(report)
    assert "shipped" not in section_names(report)
    assert "accuracy" in figure_names(report)


def test_figures_of_another_ticket_are_not_shown(results: Path) -> None:
    write_export(results)
    ticket = Ticket.load(results / TICKET)
    other = next(row.run for row in read_results(results).rows if row.branch == "ticket" and row.level == 1)
    for provenance in ({"key": other}, {}):
        Ticket(ticket.mask, ticket.start, provenance).save(results / TICKET)
        report = document_of(results)
        assert f"{EXPORT_FOLDER} is of another ticket" in problems_of(report)
        assert "shipped" not in section_names(report)
    (results / TICKET).unlink()
    report = document_of(results)
    assert str(results / TICKET) in problems_of(report)
    assert "shipped" not in section_names(report)


def test_hostile_names_are_escaped_on_the_page(results: Path) -> None:
    content = write_export(results)
    content["artefacts"][4]["name"] = content["data"] = content["machine"] = content["inputs"] = HOSTILE
    content["left_out"], content["artefacts"][5]["note"] = {HOSTILE: HOSTILE}, HOSTILE
    (results / EXPORT_FOLDER / FIGURES_FILE).write_text(json.dumps(content))
    elements = Elements(rendered(read_report_data(results).export))
    assert elements.text.count(HOSTILE) == 9
    assert not any("onerror" in attributes for _, attributes in elements.tags)


def test_an_export_without_artefacts() -> None:
    assert 'id="shipped-sizes"' in rendered(exported(figures=[], left_out={}))
    assert "Inputs are" in shown(exported(figures=[], left_out={}))
