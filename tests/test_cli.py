from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner, Result

from tests.conftest import tiny
from tombola.cli import app


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tiny().resolved()))


def tombola(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def run(*arguments: str) -> Result:
    return tombola("run", "tiny.toml", "--workers", "1", "--no-report", *arguments)


def test_an_experiment_runs_shows_and_repeats_without_training(tmp_path: Path) -> None:
    first = run()
    assert first.exit_code == 0, first.stderr
    assert "20 runs trained, 0 from the store" in first.stdout
    folder = tmp_path / "results" / "tiny"
    assert {path.name for path in folder.iterdir()} - {"ticket.safetensors"} == {
        "experiment.toml",
        "levels.parquet",
        "layers.parquet",
        "curves.parquet",
        "status.json",
    }
    tables = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    again = run()
    assert "Nothing to train: all 20 runs came from the store." in again.stdout
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == tables
    shown = tombola("show", "results/tiny")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[:10] == again.stdout.splitlines()[:10]
    summary = json.loads(tombola("show", "results/tiny", "--json").stdout)
    assert summary["finished"] is True
    assert summary["runs"] == {"trained": 0, "from_store": 20, "diverged": 0}
    assert [level["level"] for level in summary["levels"]] == [0, 1, 2, 3]


def test_json_is_one_document_on_standard_output() -> None:
    result = run("--json")
    assert json.loads(result.stdout)["runs"]["trained"] == 20


def test_the_store_is_shared_and_can_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--store", "elsewhere")
    assert not (tmp_path / "results" / ".tombola").exists()
    monkeypatch.setenv("TOMBOLA_STORE", str(tmp_path / "elsewhere"))
    more = run("--out", "other", "--set", "controls.reinit=1", "--set", "verdict.accuracy_margin=0.1")
    assert "Nothing to train: all 14 runs came from the store" in more.stdout


def test_a_winning_ticket_is_kept_and_shown(tmp_path: Path) -> None:
    everything_wins = [
        "--set",
        "replicates=3",
        "--set",
        "verdict.accuracy_margin=0.99",
        "--set",
        "verdict.stop_margin=99",
        "--set",
        "controls.reinit=0",
    ]
    result = run(
        *everything_wins,
        "--set",
        "verdict.max_density=0.99",
        "--set",
        "training.length=300it",
        "--set",
        "training.lr=0.05",
    )
    assert "The ticket is results/tiny/ticket.safetensors" in result.stdout
    shown = tombola("ticket", "show", "results/tiny/ticket.safetensors")
    assert shown.exit_code == 0
    assert "fc1.weight" in shown.stdout
    assert "From recipe tiny, replicate" in shown.stdout
    document = json.loads(tombola("ticket", "show", "results/tiny/ticket.safetensors", "--json").stdout)
    summary = json.loads(tombola("show", "results/tiny", "--json").stdout)
    assert document["weights"] == summary["smallest_winning"]["weights"]
    assert document["provenance"]["recipe"]["name"] == "tiny"
    from tombola.experiments.experiment import Experiment
    from tombola.experiments.recipe import parse_recipe
    from tombola.tickets.ticket import Ticket
    from tombola.zoo.models import build

    provenance = document["provenance"]
    ticket = Ticket.load(tmp_path / "results" / "tiny" / "ticket.safetensors")
    dense = Experiment(parse_recipe(provenance["recipe"], "ticket")).dense(provenance["replicate"])
    original = build(dense.start).state_dict()
    for name, kept in ticket.mask.items():
        assert (ticket.start[name] == original[name] * kept).all()


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    import torch

    from tombola.pruning.mask import Mask
    from tombola.tickets.ticket import Ticket

    mask = Mask({"weight": torch.tensor([[True, False]])})
    provenance = {"loss": math.nan, "all": [1, math.inf, {"low": -math.inf, "name": "NaN"}]}
    Ticket(mask, {"weight": torch.tensor([[1.0, 0.0]])}, provenance).save(tmp_path / "odd.safetensors")
    shown = tombola("ticket", "show", "odd.safetensors", "--json")
    assert shown.exit_code == 0, shown.stderr
    expected = {"loss": None, "all": [1, None, {"low": None, "name": "NaN"}]}
    assert json.loads(shown.stdout)["provenance"] == expected
    assert tombola("ticket", "show", "odd.safetensors").exit_code == 0


@pytest.fixture
def exportable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ticket of an experiment that lasts a moment, in its results folder; exports of it are timed no longer."""
    monkeypatch.setattr("tombola.exports.measuring.TURN", 0.0)
    wins = ["verdict.accuracy_margin=0.99", "verdict.stop_margin=99", "verdict.max_density=0.99", "controls.reinit=0"]
    settings = [*wins, "replicates=3", "training.length=300it", "training.lr=0.05"]
    result = run(*(part for setting in settings for part in ("--set", setting)))
    assert result.exit_code == 0, result.stderr
    return tmp_path / "results" / "tiny" / "ticket.safetensors"


def test_a_ticket_is_exported_shown_and_reported(exportable: Path) -> None:
    from tombola.exports.export import read_export
    from tombola.tickets.ticket import Ticket

    folder, page = exportable.parent / "shipped", exportable.parent / "report.html"
    page.write_text("of before")
    result = tombola("ticket", "export", "results/tiny/ticket.safetensors")
    assert result.exit_code == 0, result.stderr
    files = ["ticket.safetensors", "compact.safetensors", "compact.pt2", "compact.onnx", "sparse.safetensors"]
    assert f"Files in results/tiny/shipped: {', '.join([*files, 'csr.npz'])}." in result.stdout
    assert sorted(path.name for path in folder.iterdir()) == sorted([*files, "csr.npz", "measured.json"])
    assert "Inputs are float32 (N, 8, 8), numbers such as from 0 to 1." in result.stdout
    assert "No two-four: no layer keeps two of every four weights" in result.stdout
    assert "The report shows it too: results/tiny/report.html." in result.stdout
    assert '<h2 id="shipped-title">Shipped</h2>' in page.read_text(encoding="utf-8")
    exported, ticket = read_export(folder), Ticket.load(exportable)
    assert exported.figures[1].name == "dense ONNX"
    (dense,) = {each.accuracy for each in exported.figures if each.name not in ("ticket, fp16", "CSR")}
    assert dense == pytest.approx(ticket.provenance["measures"]["test_accuracy"], abs=0.005)
    assert exported.figures[2].accuracy == pytest.approx(dense, abs=0.01)  # the ticket file, in half precision
    assert exported.about.ticket.key == ticket.provenance["key"]


def test_exports_are_json_and_chosen(exportable: Path, tmp_path: Path) -> None:
    before = exportable.read_bytes()
    chosen = ["--as", "csr", "--as", "ticket", "--precision", "bf16", "--threads", "2"]
    (exportable.parent / "report.html").write_text("of before")
    result = tombola("ticket", "export", str(exportable), "--out", "out", "--json", *chosen)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout, parse_constant=pytest.fail)
    assert document.pop("folder") == "out"
    assert document == json.loads((tmp_path / "out" / "measured.json").read_text())
    assert [each["name"] for each in document["artefacts"]] == ["dense PyTorch", "dense ONNX", "CSR", "ticket, bf16"]
    assert (document["threads"], document["left_out"]) == (2, {})
    assert (exportable.parent / "report.html").read_text() == "of before"
    assert exportable.read_bytes() == before


def test_exports_that_cannot_be_have_one_clear_line(exportable: Path, tmp_path: Path) -> None:
    from tombola.tickets.ticket import Ticket

    ticket = Ticket.load(exportable)
    ticket.save(tmp_path / "untrained", trained="none")
    Ticket(ticket.mask, ticket.start, {"figures": {}}, ticket.trained).save(tmp_path / "own")
    assert ticket.drawn is not None
    network = ticket.drawn.network.model_copy(update={"name": "mine:network"})
    start = ticket.drawn.model_copy(update={"network": network})
    Ticket(ticket.mask, ticket.start, {}, ticket.trained, drawn=start).save(tmp_path / "outside", start="value")
    before = exportable.read_bytes()
    for arguments, message in (
        (["none"], "there is no ticket file none"),
        (["tiny.toml"], "damaged or not a safetensors file"),
        (["untrained"], "has no trained weights to export: it is of an older tombola"),
        (["own"], "does not say what network it is of: in Python, tombola.export("),
        (["outside"], 'its network "mine:network" is code from outside tombola'),
        (["outside", "--trust"], 'cannot import "mine:network": No module named'),
        ([str(exportable), "--as", "onx"], 'unknown artefact "onx": did you mean "onnx"?'),
        ([str(exportable), "--threads", "1000000"], "threads: should be at most "),
        ([str(exportable), "--out", "tiny.toml"], "the folder tiny.toml cannot be written: File exists"),
        ([str(exportable), "--out", "/proc/nowhere"], "the folder /proc/nowhere cannot be written"),
        ([str(exportable), "--out", "results/tiny"], "--out: results/tiny is where the ticket is"),
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


def test_a_kind_that_was_asked_for_and_cannot_be_is_an_error(exportable: Path, tmp_path: Path) -> None:
    assert tombola("ticket", "export", str(exportable), "--out", "out", "--as", "csr").exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    result = tombola("ticket", "export", str(exportable), "--out", "out", "--as", "ticket", "--as", "two-four")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(
        "error: no two-four can be made, so nothing was written: no layer keeps two of every four weights; "
        'search with structure = "2:4"\n'
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_an_interrupted_export_changes_nothing(exportable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.exports.artefacts import ARTEFACTS

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(ARTEFACTS, "compact", interrupted)
    result = tombola("ticket", "export", str(exportable), "--as", "csr", "--as", "compact", "--as", "ticket")
    assert result.exit_code == 130
    assert list((exportable.parent / "shipped").iterdir()) == []


def test_a_page_that_is_no_report_stays(exportable: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ticket").write_bytes(exportable.read_bytes())
    (tmp_path / "mine" / "report.html").write_text("my thesis")
    result = tombola("ticket", "export", "mine/ticket", "--as", "csr")
    assert result.exit_code == 0, result.stderr
    assert "mine/report.html stays as it is: mine is not a results folder" in result.stderr
    assert (tmp_path / "mine" / "report.html").read_text() == "my thesis"


def test_a_run_that_diverges_is_survived() -> None:
    result = run("--set", "training.lr=1e30", "--set", "training.optimizer=sgd", "--json")
    summary = json.loads(result.stdout)
    assert summary["runs"] == {"trained": 2, "from_store": 0, "diverged": 2}
    assert summary["smallest_winning"] is None
    assert "diverged" in tombola("show", "results/tiny").stdout


def test_one_shot_and_random_scores_run() -> None:
    for option in ("search.one_shot=true", "search.score=random"):
        result = run("--out", option, "--set", option, "--json")
        assert [level["weights"] for level in json.loads(result.stdout)["levels"]] == [1580, 968, 597, 371]


def test_recipes_are_listed() -> None:
    assert "lenet-mnist-openlth" in tombola("recipes").stdout
    assert "LeNet-300-100" in json.loads(tombola("recipes", "--json").stdout)["lenet-mnist"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digit"], 'unknown recipe "digit": did you mean "digits"?'),
        (["run", "none.toml"], "none.toml cannot be read"),
        (["run", "tiny.toml", "--set", "training.optimiser=sgd"], 'did you mean "optimizer"?'),
        (["run", "tiny.toml", "--set", "training.lr=-1"], "training.lr: input should be greater than 0"),
        (["run", "tiny.toml", "--set", "search.levels=99"], "set levels to at most"),
        (["run", "tiny.toml", "--set", "data.name=mnits"], 'unknown data set "mnits": did you mean "mnist"?'),
        (["run", "tiny.toml", "--set", "data.name=none.npz"], "there is no data file none.npz"),
        (["run", "tiny.toml", "--set", "data.name=mine.npz"], "y_test missing"),
        (["run", "tiny.toml", "--set", "model.name=mpl"], 'unknown network "mpl": did you mean "mlp"?'),
        (["run", "tiny.toml", "--engine", "eagr"], 'unknown engine "eagr": did you mean "eager"?'),
        (["run", "tiny.toml", "--device", "tpu"], 'unknown device "tpu"'),
        (["run", "tiny.toml", "--out", "/proc/nowhere"], "the output folder /proc/nowhere cannot be written"),
        (["run", "tiny.toml", "--store", "/proc/nowhere"], "the store /proc/nowhere cannot be written"),
        (["run", "tiny.toml", "--out", "thesis"], "thesis is not empty and no results folder"),
        (["show", "thesis"], "thesis is not a results folder"),
        (["ticket", "show", "thesis/chapter.tex"], "damaged or not a safetensors file"),
        (["ticket", "show", "none"], "there is no ticket file none"),
    ],
)
def test_wrong_input_gets_one_clear_line_and_status_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((5, 2)), y_train=np.zeros(5), x_test=np.zeros((5, 2)))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("Lottery tickets")
    result = tombola(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_another_configuration_in_the_same_folder_is_refused() -> None:
    assert run().exit_code == 0
    result = run("--set", "seed=1")
    assert result.exit_code == 2
    assert "belongs to another configuration: seed is 0 there and 1 here" in result.stderr


def test_wrong_options_have_status_2() -> None:
    assert tombola("run").exit_code == 2
    assert tombola("run", "tiny.toml", "--workers", "0").exit_code == 2
    assert tombola("shw", "x").exit_code == 2


def test_a_failure_while_running_has_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("tombola.engines.sparse.Sparse.train", fail)
    result = run()
    assert result.exit_code == 1
    assert "failed: the disk is full; everything finished is kept" in result.stderr


def test_an_interrupt_has_status_130_and_keeps_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.engines.sparse import Sparse

    train, calls = Sparse.train, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return train(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("tombola.engines.sparse.Sparse.train", interrupted)
        result = run()
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    summary = json.loads(tombola("show", "results/tiny", "--json").stdout)
    assert summary["finished"] is False
    assert "13 runs trained, 7 from the store" in run().stdout


@pytest.fixture
def _heard() -> Iterator[None]:
    """Ctrl-C is heard, which it is not by what a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_an_interrupt_that_another_error_hides_is_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr("tombola.engines.sparse.Sparse.train", interrupted)
    result = run()
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    assert "determine" not in result.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_speeds_are_shown() -> None:
    from torch import nn

    from tombola.engines.sparse.speeds import Speeds

    Speeds.default().sparse_is_faster(nn.Linear(30, 20), (5, 30), 0.1)
    shown = tombola("speeds").stdout
    assert "Linear(in_features=30" in shown
    assert "measurements in" in shown
    (speed,) = (
        s for s in json.loads(tombola("speeds", "--json").stdout)["layers"] if "in_features=30," in s["layer"]
    )
    assert speed["density"] == pytest.approx(0.8**10, abs=1e-4)
    assert speed["sparse"] > 0 < speed["dense"]


def test_results_say_which_engine_answered() -> None:
    run()
    (engine,) = json.loads(tombola("show", "results/tiny", "--json").stdout)["engines"].items()
    name, did = engine
    assert name.startswith("sparse (loop) on cpu")
    assert did["runs"] == 20
    assert did["seconds"] > 0
    assert "Engine: sparse (loop) on cpu" in tombola("show", "results/tiny").stdout


def test_a_run_leaves_a_report_and_experiments_are_compared(tmp_path: Path) -> None:
    first = run("--report", "--set", "training.length=20it")
    assert "The report is results/tiny/report.html." in first.stdout
    page = (tmp_path / "results" / "tiny" / "report.html").read_text()
    assert "tombola run tiny.toml --set training.length=20it" in page
    run("--out", "results/o[red]", "--set", "training.length=20it", "--set", "data.fraction=0.5")
    made = tombola("report", "results/o[red]", "-o", "other.html", "--figures", "figures")
    assert made.exit_code == 0, made.stderr
    assert "tombola run tiny.toml --out" in (tmp_path / "other.html").read_text()
    assert (tmp_path / "figures" / "accuracy.svg").exists()
    compared = tombola("compare", "results/tiny", "results/o[red]")
    assert compared.exit_code == 0, compared.stderr
    assert "data.fraction" in compared.stdout
    assert "The page is results/comparison.html." in compared.stdout
    assert "data.fraction" in (tmp_path / "results" / "comparison.html").read_text()
    document = json.loads(tombola("compare", "results/tiny", "results/o[red]", "--json").stdout)
    assert [experiment["label"] for experiment in document["experiments"]] == ["tiny", "o[red]"]
    assert "o[red]: " in compared.stdout


def test_reports_of_what_is_no_results_folder_are_refused(tmp_path: Path) -> None:
    for arguments in (["report", "nowhere"], ["compare", "nowhere"], ["report", str(tmp_path)]):
        refused = tombola(*arguments)
        assert refused.exit_code == 2
        assert "is not a results folder: it has no experiment.toml" in refused.stderr
