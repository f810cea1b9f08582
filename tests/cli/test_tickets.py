"""`tombola ticket show` and `export`; tests/tickets/verify has `check`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command_line import WINNING, run, tombola, with_settings
from tombola.exports.artefacts import ARTEFACTS
from tombola.exports.export_result import DenseNetwork, read_export
from tombola.pruning.mask import Mask
from tombola.tickets.ticket import Ticket


def test_nan_and_infinity_are_null_in_json(tmp_path: Path) -> None:
    mask = Mask({"weight": torch.tensor([[True, False]])})
    provenance = {"loss": math.nan, "all": [1, math.inf, {"low": -math.inf, "name": "NaN"}]}
    Ticket(mask, {"weight": torch.tensor([[1.0, 0.0]])}, provenance).save(tmp_path / "odd.safetensors")
    shown = tombola("ticket", "show", "odd.safetensors", "--json")
    assert shown.exit_code == 0, shown.stderr
    expected = {"loss": None, "all": [1, None, {"low": None, "name": "NaN"}]}
    assert json.loads(shown.stdout)["provenance"] == expected
    assert tombola("ticket", "show", "odd.safetensors").exit_code == 0


@pytest.fixture
def exportable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _fake_engine: None) -> Path:
    """The ticket of an experiment, in its results folder; exports of it are measured briefly."""
    monkeypatch.setattr("tombola.exports.benchmark.MIN_SECONDS", 0.0)
    result = run(*with_settings(*WINNING))
    assert result.exit_code == 0, result.stderr
    return tmp_path / "results" / "tiny" / "ticket.safetensors"


def test_a_ticket_is_exported_and_the_report_updated(exportable: Path) -> None:
    folder, page = exportable.parent / "shipped", exportable.parent / "report.html"
    page.write_text("an earlier report")
    result = tombola("ticket", "export", "results/tiny/ticket.safetensors")
    assert result.exit_code == 0, result.stderr
    files = "ticket.safetensors, compact.safetensors, compact.pt2, compact.onnx, compact-int8.onnx, "
    files += "sparse.safetensors, csr.npz"
    assert {path.name for path in folder.iterdir()} == {*files.split(", "), "measured.json"}
    for part in (files, "results/tiny/shipped", "(N, 8, 8)", "two-four", "results/tiny/report.html"):
        assert part in result.stdout
    assert 'id="shipped-title"' in page.read_text(encoding="utf-8")
    exported, ticket = read_export(folder), Ticket.load(exportable)
    assert exported.figures[1].name == "ticket, dense ONNX"
    (dense,) = {
        each.accuracy for each in exported.figures if each.name not in ("ticket, fp16", "compact int8", "CSR")
    }
    assert dense == pytest.approx(ticket.provenance["measures"]["test_accuracy"], abs=0.005)
    assert exported.figures[2].accuracy == pytest.approx(dense, abs=0.01)  # the ticket file, in half precision
    assert exported.about.ticket.key == ticket.provenance["key"]
    assert exported.about.dense == DenseNetwork(ticket.provenance["dense"]["test_accuracy"])
    assert exported.about.dense.accuracy != dense


def test_chosen_exports_are_printed_as_json(exportable: Path, tmp_path: Path) -> None:
    before = exportable.read_bytes()
    chosen = ["--as", "csr", "--as", "ticket", "--precision", "bf16", "--threads", "2"]
    (exportable.parent / "report.html").write_text("an earlier report")
    result = tombola("ticket", "export", str(exportable), "--out", "out", "--json", *chosen)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert document.pop("folder") == "out"
    assert document == json.loads((tmp_path / "out" / "measured.json").read_text())
    assert [each["name"] for each in document["artefacts"]] == [
        "ticket, dense PyTorch",
        "ticket, dense ONNX",
        "CSR",
        "ticket, bf16",
    ]
    assert (document["threads"], document["left_out"]) == (2, {})
    assert (exportable.parent / "report.html").read_text() == "an earlier report"
    assert exportable.read_bytes() == before


def test_int8_is_calibrated_on_own_examples(exportable: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.random.default_rng(0).random((9, 8, 8), dtype=np.float32))
    arguments = ["ticket", "export", str(exportable), "--out", "out", "--force", "--as", "int8", "--calibration"]
    result = tombola(*arguments, "mine.npz")
    assert result.exit_code == 0, result.stderr
    assert "9 examples: mine.npz" in " ".join(result.stdout.split())
    assert read_export(tmp_path / "out").about.dense is not None
    result = tombola(*arguments, "none.npz")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --calibration: none.npz ")


def test_impossible_exports_have_one_line(exportable: Path, tmp_path: Path) -> None:
    ticket = Ticket.load(exportable)
    ticket.save(tmp_path / "untrained", trained="none")
    Ticket(ticket.mask, ticket.start, {"figures": {}}, ticket.trained).save(tmp_path / "own")
    assert ticket.drawn is not None
    network = ticket.drawn.network.model_copy(update={"name": "mine:network"})
    start = ticket.drawn.model_copy(update={"network": network})
    Ticket(ticket.mask, ticket.start, {}, ticket.trained, drawn=start).save(tmp_path / "outside", start="value")
    before = exportable.read_bytes()
    for arguments, message in (
        (["none"], "no ticket file none"),
        (["tiny.toml"], "tiny.toml"),
        (["untrained"], "no trained weights"),
        (["own"], "tombola.export("),
        (["outside"], '"mine:network"'),
        (["outside", "--trust"], "No module named"),
        ([str(exportable), "--as", "onx"], '"onx": did you mean "onnx"?'),
        ([str(exportable), "--threads", "1000000"], "threads: should be at most "),
        ([str(exportable), "--out", "tiny.toml"], "tiny.toml"),
        ([str(exportable), "--out", "/proc/nowhere"], "/proc/nowhere"),
        ([str(exportable), "--out", "results/tiny"], "--out: results/tiny"),
    ):
        result = tombola("ticket", "export", *arguments)
        assert result.exit_code == 2, (arguments, result.stderr)
        assert message in result.stderr
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""
    assert exportable.read_bytes() == before
    assert not (tmp_path / "shipped").exists()
    assert tombola("ticket", "export", str(exportable), "--precision", "fp8").exit_code == 2


def test_an_impossible_kind_writes_nothing(exportable: Path, tmp_path: Path) -> None:
    assert tombola("ticket", "export", str(exportable), "--out", "out", "--as", "csr").exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    result = tombola(
        "ticket", "export", str(exportable), "--out", "out", "--force", "--as", "ticket", "--as", "two-four"
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert "two-four" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupted_export_writes_nothing(exportable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(ARTEFACTS, "compact", interrupted)
    result = tombola("ticket", "export", str(exportable), "--as", "csr", "--as", "compact", "--as", "ticket")
    assert result.exit_code == 130
    assert list((exportable.parent / "shipped").iterdir()) == []


def test_a_page_that_is_not_a_report_is_not_overwritten(exportable: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ticket").write_bytes(exportable.read_bytes())
    (tmp_path / "mine" / "report.html").write_text("my thesis")
    result = tombola("ticket", "export", "mine/ticket", "--as", "csr")
    assert result.exit_code == 0, result.stderr
    assert "mine/report.html" in result.stderr
    assert (tmp_path / "mine" / "report.html").read_text() == "my thesis"
