from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.support.digits_tickets import QUICK_KINDS, digits_test, digits_ticket
from tombola.exports import export as module
from tombola.exports.artefact_files import FILES
from tombola.exports.artefacts import ARTEFACTS, ExportContext, csr, dense_onnx
from tombola.exports.benchmark import Artefact, Figures
from tombola.exports.examples import Examples
from tombola.exports.export import export
from tombola.exports.export_result import FIGURES_FILE, Export, ExportInfo, TicketInfo, read_export
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.files import read_tensors
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.description import Data

pytestmark = pytest.mark.usefixtures("quick_export")


def names(exported: Export) -> list[str]:
    return [each.name for each in exported.figures]


def test_a_ticket_is_exported_whole(tmp_path: Path) -> None:
    ticket = digits_ticket()
    exported = export(ticket, tmp_path / "new" / "folder", turns=1)
    assert names(exported) == [
        "ticket, dense PyTorch", "ticket, fp16", "compact PyTorch", "compact exported", "compact ONNX",
        "compact int8", "sparse", "CSR",
    ]  # fmt: skip
    files = [each.file for each in exported.figures if each.file]
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted([*files, FIGURES_FILE])
    for each in exported.figures[1:]:
        assert each.bytes == (exported.folder / each.file).stat().st_size
    assert exported.figures[0].file == ""
    assert exported.left_out["ticket, dense ONNX"] == "not in this test"
    assert "2:4" in exported.left_out["two-four"]
    about = exported.about
    assert about.ticket == TicketInfo(ticket.mask.count, 5000, 1, 0, ticket.provenance["key"])
    assert (about.data, about.examples, about.threads) == ("the test set of digits", 600, 1)
    assert about.inputs == "float32 (N, 8, 8), numbers such as from 0 to 1"
    assert about.versions["torch"] == torch.__version__
    known = {name: value for name, value in asdict(about.ticket).items() if value is not None}
    said = {"inputs": about.inputs, "ticket": known}
    assert read_tensors(exported.folder / "compact.safetensors")[1] == said
    assert read_tensors(exported.folder / "sparse.safetensors")[1]["about"] == said
    x, y = digits_test()
    correct = (ticket.network()(x).argmax(1) == y).double().mean().item()
    exact = [each.accuracy for each in exported.figures if each.name not in ("ticket, fp16", "compact int8", "CSR")]
    assert exact == [pytest.approx(correct, abs=0.002)] * 5  # rounding may decide one of 600
    assert read_export(exported.folder) == exported


def test_a_second_export_writes_the_same_bytes(tmp_path: Path) -> None:
    first = export(digits_ticket(), tmp_path, kinds=QUICK_KINDS, turns=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != FIGURES_FILE}
    for name in before:
        (tmp_path / name).write_bytes(b"something else")
    again = export(digits_ticket(), tmp_path, kinds=QUICK_KINDS, turns=1)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert names(again) == names(first) == ["ticket, dense PyTorch", "ticket, fp16", "compact PyTorch", "CSR"]


def test_only_files_of_an_earlier_export_are_removed(tmp_path: Path) -> None:
    for name in (*FILES.values(), FIGURES_FILE, "mine.onnx", "dense.safetensors"):
        (tmp_path / name).write_text("last week's")
    exported = export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"csr.npz", "dense.safetensors", FIGURES_FILE, "mine.onnx"}
    assert exported.figures[-1].bytes == (tmp_path / "csr.npz").stat().st_size


def test_a_ticket_that_is_not_of_an_export_stays(tmp_path: Path) -> None:
    digits_ticket().save(tmp_path / "ticket.safetensors", trained="fp32")
    before = (tmp_path / "ticket.safetensors").read_bytes()
    export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)
    assert (tmp_path / "ticket.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["threads", "turns"])
@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", None])
def test_invalid_counts_are_an_error_and_nothing_is_written(tmp_path: Path, name: str, count: Any) -> None:
    with pytest.raises(InputError, match=rf"^{name}: .*{count!r}$"):
        export(digits_ticket(), tmp_path / "new", kinds=QUICK_KINDS, **{name: count})
    assert not (tmp_path / "new").exists()


def test_reasons_for_left_out_artefacts_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "dense_onnx", dense_onnx)
    missing = InputError("this needs onnx: pip install 'tombola[onnx]'")

    def needed(*_: str) -> None:
        raise missing

    monkeypatch.setattr("tombola.exports.onnx_file.require", needed)
    exported = export(digits_ticket("vit", steps=1), tmp_path, kinds=[*QUICK_KINDS, "onnx", "sparse"], turns=1)
    assert names(exported) == ["ticket, dense PyTorch", "ticket, fp16", "compact PyTorch", "CSR"]
    assert exported.left_out["ticket, dense ONNX"] == exported.left_out["onnx"] == str(missing)
    assert "tombola.sparse" in exported.left_out["sparse"]
    assert not (tmp_path / "sparse.safetensors").exists()
    assert read_export(tmp_path).left_out == exported.left_out


def test_other_errors_propagate_and_leave_the_folder_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)

    def interrupted(shipment: ExportContext) -> Artefact:
        (shipment.folder / "begun").touch()
        raise error

    monkeypatch.setitem(ARTEFACTS, "onnx", interrupted)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for error in (KeyboardInterrupt(), RuntimeError("a bug")):
        with pytest.raises(type(error)):
            export(digits_ticket(), tmp_path, kinds=["ticket", "onnx", "compact"], turns=1)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_strict_makes_a_missing_artefact_an_error(tmp_path: Path) -> None:
    export(digits_ticket(), tmp_path, kinds=["csr"], turns=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"two-four.*2:4"):
        export(digits_ticket(), tmp_path, kinds=["ticket", "two-four"], strict=True, turns=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    export(digits_ticket(), tmp_path, kinds=["ticket"], strict=True, turns=1)  # the dense ONNX network may be missing
    assert {path.name for path in tmp_path.iterdir()} == {"ticket.safetensors", FIGURES_FILE}


def test_threads_are_at_most_four_for_each_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cores", lambda: 1)
    with pytest.raises(InputError, match=r"^threads: .*at most 4.*not 5$"):
        export(digits_ticket(), tmp_path / "new", kinds=QUICK_KINDS, threads=5)
    assert not (tmp_path / "new").exists()
    assert export(digits_ticket(), tmp_path, kinds=["csr"], threads=4, turns=1).about.threads == 4


def test_invalid_provenance_is_not_recorded(tmp_path: Path) -> None:
    ticket = digits_ticket()
    said = ticket.provenance | {"level": 2**63, "replicate": -1, "key": "\ud800"}
    strange = Ticket(ticket.mask, ticket.start, said, ticket.trained, drawn=ticket.drawn)
    exported = export(strange, tmp_path, kinds=["csr"], turns=1)
    assert exported.about.ticket == TicketInfo(ticket.mask.count, 5000)
    assert read_export(tmp_path) == exported


def test_an_unknown_kind_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'"spare".*"sparse"'):
        export(digits_ticket(), tmp_path / "new", kinds=["spare"])
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(InputError, match=f"{folder} cannot be written"):
            export(digits_ticket(), folder, kinds=QUICK_KINDS, turns=1)


def test_former_keywords_still_work(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.warns(DeprecationWarning, match="export") as warned, pytest.raises(InputError, match="two-four"):
        export(digits_ticket(), tmp_path, kinds=["two-four"], must=True, tell=lines.append)
    assert ["must=" in str(warned[0].message), "tell=" in str(warned[1].message)] == [True, True]
    assert lines[-1] == "writing two-four"


class ByName(nn.Module):
    """Takes a keyword argument only; its layers have the names that they had."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.call = network.forward
        for name, layer in network.named_children():
            self.add_module(name, layer)

    def forward(self, *, image: Tensor) -> Any:
        return self.call(image)


def test_int8_is_calibrated_on_training_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Examples | None] = []

    def noted(context: ExportContext) -> Artefact:
        seen.append(context.calibration)
        return replace(csr(context), note="" if context.calibration is None else context.calibration.what)

    monkeypatch.setitem(ARTEFACTS, "int8", noted)
    ticket, x = digits_ticket(), digits_test()[0]

    def said(**options: Any) -> str:
        return export(ticket, tmp_path, kinds=["int8"], strict=True, turns=1, **options).figures[-1].note

    assert said() == "the training set of digits"
    train = prepare(Data.model_validate(ticket.provenance["run"]["data"])).train
    assert seen[-1] is not None
    chosen = torch.linspace(0, len(train) - 1, 512).round().long()
    assert len(train) > 512
    assert torch.equal(seen[-1].x, train[chosen][0])
    own = Examples(torch.cat([x[:3], torch.full((1, 8, 8), 2.0)]), what="mine")
    assert said(calibration=own) == "mine, and accuracy is measured on 3 of them, too"
    assert said(calibration=Examples(own.x[3:], what="mine")) == "mine"
    with pytest.raises(InputError, match=r"^calibration: .*\(2, 5\)"):
        said(calibration=Examples(torch.zeros(2, 5)))
    named = {"network": ByName(ticket.network()), "examples": Examples({"image": x[:9]})}
    assert said(**named) == ""  # it does not take the data that the ticket names as they are
    assert said(**named, calibration=Examples({"image": x[9:12]}, what="mine")) == "mine"
    unknown = Ticket(ticket.mask, ticket.start, {}, ticket.trained, drawn=ticket.drawn)
    export(unknown, tmp_path, kinds=["int8"], strict=True, turns=1, examples=Examples(x[:9]))
    assert seen[-1] is None
    export(ticket, tmp_path, kinds=["csr"], turns=1, calibration=Examples(torch.zeros(2, 5)))  # it is not needed


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((3, 8, 8), math.nan), "finite"),
        (torch.zeros(3, 4, 16), r"\(N, 4, 16\)"),  # the network flattens images of any size
    ],
)
def test_invalid_calibration_is_an_error_before_anything_is_written(tmp_path: Path, x: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=f"^calibration: .*{message}"):
        export(digits_ticket(), tmp_path / "out", calibration=Examples(x))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["examples", "calibration"])
def test_bare_tensors_are_not_examples(tmp_path: Path, option: str) -> None:
    with pytest.raises(InputError, match=rf"^{option}: should be tombola\.Examples.*Tensor$"):
        export(digits_ticket(), tmp_path, **{option: torch.zeros(3, 8, 8)})  # type: ignore[arg-type]


def test_int8_is_never_dynamic_if_calibration_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("no ranges")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fails)
    options: dict[str, Any] = {"kinds": ["int8"], "strict": True, "turns": 1}
    assert export(digits_ticket(), tmp_path, **options).figures[-1].note.startswith("dynamic ")
    with pytest.raises(InputError, match=r"calibration: .*no ranges"):
        export(digits_ticket(), tmp_path, calibration=Examples(torch.zeros(3, 8, 8)), **options)


def test_int8_is_made_without_the_onnx_file(tmp_path: Path) -> None:
    (only,) = export(digits_ticket(), tmp_path, kinds=["int8"], strict=True, turns=1).figures[1:]
    assert {path.name for path in tmp_path.iterdir()} == {only.file, FIGURES_FILE}
    assert only.note.startswith("static ")
    assert only.multiply_adds == 64 * 50 + 50 * 30 + 30 * 10
    assert read_export(tmp_path).about.versions["onnxruntime"] == onnxruntime.__version__
    assert "onnxruntime" not in export(digits_ticket(), tmp_path, kinds=["csr"], turns=1).about.versions
    assert only.accuracy is not None
    assert only.latency is not None


def test_a_notebook_shows_an_export_as_a_table(damaged: tuple[Path, dict[str, Any]]) -> None:
    folder, content = damaged
    (folder / FIGURES_FILE).write_text(json.dumps(content))
    page = read_export(folder)._repr_html_()
    assert page.count("<tr>") == 1 + 2
    assert all(f"{cell}</td>" in page for cell in ("ticket, dense PyTorch", "csr.npz", "90.00%", "10.0", "200,000"))
    assert "no onnx" in page


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder for a file of figures, and valid content to damage."""
    info = ExportInfo("float32 (N, 8, 8)", TicketInfo(5, 10, 1, 0, "key"), "digits", 600, 1, "a CPU", {"torch": "2"})
    dense = Figures("ticket, dense PyTorch", "", 10, 90, 80, 10, 1e-5, {64: 1e5, 256: 2e5}, 0.9, 0.0, 0, None)
    csr = Figures("CSR", "csr.npz", 5, 60, 50, None, None, {}, None, None)
    return tmp_path, json.loads(json.dumps(Export(tmp_path, [dense, csr], info, {"onnx": "no onnx"}).to_json()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"artefacts": []}, "damaged: artefacts: List should have at least 1 item"),
        ({"artefacts": [{"name": "x"}]}, r"damaged: artefacts\.0\.file: Field required"),
        ({"left_out": ["x"]}, "damaged"),
        ({"machine": None}, "damaged: machine"),
        ({"versions": math.nan}, "damaged: versions"),
        ({"examples": "600"}, "damaged: examples"),
        ({"examples": 600.0}, "damaged: examples"),
        ({"examples": 0}, "damaged: examples"),
        ({"threads": True}, "damaged: threads"),
        ({"dense": {"accuracy": 2.0}}, r"damaged: dense\.accuracy"),
        ({"ticket": {"weights": 5, "weights_total": 0}}, r"damaged: ticket\.weights_total"),
        ({"ticket": {"weights": 2**63, "weights_total": 5}}, r"damaged: ticket\.weights"),
        ({"ticket": {"weights": 5, "weights_total": 10**400}}, "damaged"),
        ({"ticket": {"weights": 5, "weights_total": 5, "level": -1}}, r"damaged: ticket\.level"),
        ({"machine": "\ud800"}, "damaged: Invalid JSON"),
    ],
)
def test_damaged_figures_are_an_error(
    damaged: tuple[Path, dict[str, Any]], change: dict[str, Any], said: str
) -> None:
    folder, content = damaged
    (folder / FIGURES_FILE).write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=said) as refused:
        read_export(folder)
    assert str(folder / FIGURES_FILE) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"latency": 0},
        {"throughput": {"64": 0}},
        {"throughput": {"0": 1.0}},
        {"accuracy": 2},
        {"accuracy": math.nan},
        {"latency": "0.5"},
        {"latency": 10**400},
        {"bytes": -1},
        {"bytes": 2**63},
        {"memory": 2.0},
    ],
)
def test_impossible_figures_are_an_error(damaged: tuple[Path, dict[str, Any]], change: dict[str, Any]) -> None:
    folder, content = damaged
    content["artefacts"][0] |= change
    (folder / FIGURES_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"damaged: artefacts\.0\.{next(iter(change))}"):
        read_export(folder)


@pytest.mark.parametrize("text", ["", "[]", "5", "{}", "{", "[" * 100_000, "\udcff"])
def test_other_files_than_figures_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / FIGURES_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="damaged"):
        read_export(tmp_path)


def test_figures_are_json_values(damaged: tuple[Path, dict[str, Any]]) -> None:
    folder, content = damaged
    (folder / FIGURES_FILE).write_text(json.dumps(content))
    read = read_export(folder)
    assert json.loads(json.dumps(read.to_json())) == content
    assert read.figures[0].throughput == {64: 1e5, 256: 2e5}
    assert replace(read, figures=[]).to_json()["artefacts"] == []
    assert asdict(read.about.ticket)["weights"] == 5
