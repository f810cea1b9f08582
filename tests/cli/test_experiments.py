"""`tombola run`, `show`, `report`, `compare` and `speeds`.

Errors are one line on standard error, and have an exit status: 2 invalid input, 1 failure, 130 interrupted.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tests.support.command_line import WINNING, run, tombola, with_settings
from tests.support.fake_engine import FakeEngine
from tombola.engines.sparse.speeds import Speeds
from tombola.experiments.recipe import parse_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.stats import summarise
from tombola.tickets.ticket import Ticket
from tombola.zoo.models import build

SHORT = with_settings("training.length=20it", "training.evaluate_every=10it")


def test_a_finished_experiment_is_shown_and_not_trained_again(tmp_path: Path) -> None:
    first = run(*SHORT)
    assert first.exit_code == 0, first.stderr
    assert "20 runs trained, 0 from the store" in first.stdout
    folder = tmp_path / "results" / "tiny"
    assert {path.name for path in folder.iterdir()} - {"ticket.safetensors"} == {
        "experiment.toml",
        "levels.parquet",
        "layers.parquet",
        "curves.parquet",
        "runs.txt",
        "log.txt",
        "status.json",
    }
    tables = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    again = run(*SHORT)
    assert "all 20 runs came from the store" in again.stdout
    assert {path.name: path.read_bytes() for path in folder.glob("*.parquet")} == tables
    shown = tombola("show", "results/tiny")
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[:10] == again.stdout.splitlines()[:10]
    assert "sparse (loop) on cpu" in shown.stdout
    summary = json.loads(tombola("show", "results/tiny", "--json").stdout)
    assert summary["finished"] is True
    assert summary["runs"] == {"trained": 0, "from_store": 20, "diverged": 0}
    assert [level["level"] for level in summary["levels"]] == [0, 1, 2, 3]
    ((engine, used),) = summary["engines"].items()
    assert engine.startswith("sparse (loop) on cpu")
    assert used["runs"] == 20
    assert used["seconds"] > 0


def test_a_diverged_experiment_is_finished() -> None:
    result = run(*SHORT, *with_settings("training.lr=1e30", "training.optimizer=sgd"), "--json")
    summary = json.loads(result.stdout)
    assert summary["runs"] == {"trained": 2, "from_store": 0, "diverged": 2}
    assert summary["smallest_winning"] is None
    assert "diverged" in tombola("show", "results/tiny").stdout


@pytest.mark.usefixtures("_fake_engine")
def test_experiments_can_share_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("--store", "elsewhere")
    assert not (tmp_path / "results" / ".tombola").exists()
    monkeypatch.setenv("TOMBOLA_STORE", str(tmp_path / "elsewhere"))
    more = run("--out", "other", *with_settings("controls.reinit=1", "verdict.margin=0.1"))
    assert "all 14 runs came from the store" in more.stdout


@pytest.mark.usefixtures("_fake_engine")
def test_a_winning_ticket_is_saved_and_shown(tmp_path: Path) -> None:
    result = run(*with_settings(*WINNING))
    assert "results/tiny/ticket.safetensors" in result.stdout
    shown = tombola("ticket", "show", "results/tiny/ticket.safetensors")
    assert shown.exit_code == 0
    assert "fc1.weight" in shown.stdout
    assert "tiny" in shown.stdout
    document = json.loads(tombola("ticket", "show", "results/tiny/ticket.safetensors", "--json").stdout)
    summary = json.loads(tombola("show", "results/tiny", "--json").stdout)
    assert document["weights"] == summary["smallest_winning"]["weights"]
    provenance = document["provenance"]
    assert provenance["recipe"]["name"] == "tiny"
    ticket = Ticket.load(tmp_path / "results" / "tiny" / "ticket.safetensors")
    dense = RecipeExperiment(parse_recipe(provenance["recipe"], "ticket")).dense(provenance["replicate"])
    original = build(dense.start).state_dict()
    for name, kept in ticket.mask.items():
        assert (ticket.start[name] == original[name] * kept).all()


@pytest.mark.usefixtures("_fake_engine")
def test_one_shot_and_random_pruning_have_the_same_counts() -> None:
    for option in ("search.one_shot=true", "search.score=random"):
        document = json.loads(run("--out", option, "--set", option, "--json").stdout)  # nothing else is printed
        assert [level["weights"] for level in document["levels"]] == [1580, 968, 597, 371]


@pytest.mark.usefixtures("_fake_engine")
def test_reports_are_written_and_experiments_are_compared(tmp_path: Path) -> None:
    first = run("--report", "--set", "training.lr=0.1")
    assert "results/tiny/report.html" in first.stdout
    page = (tmp_path / "results" / "tiny" / "report.html").read_text()
    assert "tombola run tiny.toml --set training.lr=0.1" in page
    run("--out", "results/o[red]", *with_settings("training.lr=0.1", "data.fraction=0.5"))
    report = tombola("report", "results/o[red]", "-o", "other.html", "--figures", "figures")
    assert report.exit_code == 0, report.stderr
    assert "tombola run tiny.toml --out" in (tmp_path / "other.html").read_text()
    assert (tmp_path / "figures" / "figure-1-accuracy.svg").exists()
    assert f"figures ({len([*(tmp_path / 'figures').glob('*.svg')])})" in report.stdout
    comparison = tombola("compare", "results/tiny", "results/o[red]")
    assert comparison.exit_code == 0, comparison.stderr
    assert "data.fraction" in comparison.stdout
    assert "o[red]: " in comparison.stdout
    assert "results/comparison.html" in comparison.stdout
    assert "data.fraction" in (tmp_path / "results" / "comparison.html").read_text()
    again = tombola("compare", "results/tiny", "results/o[red]")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    assert again.stdout == ""
    assert tombola("compare", "results/tiny", "results/o[red]", "--force").exit_code == 0
    assert tombola("report", "results/tiny", "-o", "other.html").exit_code == 2
    assert tombola("report", "results/tiny", "--figures", "figures").exit_code == 2
    assert tombola("report", "results/tiny").exit_code == 0  # the folder's own report is renewed
    assert tombola("report", "results/tiny", "-o", "results/tiny/report.html").exit_code == 0
    document = json.loads(tombola("compare", "results/tiny", "results/o[red]", "--json").stdout)
    assert [experiment["label"] for experiment in document["experiments"]] == ["tiny", "o[red]"]


def test_measured_speeds_are_shown() -> None:
    Speeds.default().sparse_is_faster(nn.Linear(30, 20), (5, 30), 0.1)
    shown = tombola("speeds").stdout
    assert "Linear(in_features=30" in shown
    layers = json.loads(tombola("speeds", "--json").stdout)["layers"]
    (speed,) = (layer for layer in layers if "in_features=30," in layer["layer"])
    assert speed["density"] == pytest.approx(0.8**10, abs=1e-4)
    assert speed["sparse"] > 0 < speed["dense"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digit"], 'recipe "digit": did you mean "digits"?'),
        (["run", "none.toml"], "none.toml"),
        (["run", "tiny.toml", "--set", "training.optimiser=sgd"], '"optimizer"?'),
        (["run", "tiny.toml", "--set", "training.lr=-1"], "training.lr"),
        (["run", "tiny.toml", "--set", "search.levels=99"], "levels"),
        (["run", "tiny.toml", "--set", "data.name=mnits"], '"mnits": did you mean "mnist"?'),
        (["run", "tiny.toml", "--set", "data.name=none.npz"], "none.npz"),
        (["run", "tiny.toml", "--set", "data.name=mine.npz"], "y_test"),
        (["run", "tiny.toml", "--set", "model.name=mpl"], '"mpl": did you mean "mlp"?'),
        (["run", "tiny.toml", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["run", "tiny.toml", "--store", "/proc/nowhere"], "store /proc/nowhere"),
        (["run", "tiny.toml", "--out", "thesis"], "thesis"),
        (["show", "thesis"], "thesis"),
        (["report", "nowhere"], "nowhere"),
        (["report", "."], "experiment.toml"),
        (["compare", "nowhere"], "nowhere"),
        (["ticket", "show", "thesis/chapter.tex"], "thesis/chapter.tex"),
        (["ticket", "show", "none"], "no ticket file none"),
    ],
)
def test_invalid_input_has_one_line_and_status_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((5, 2)), y_train=np.zeros(5), x_test=np.zeros((5, 2)))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("Lottery tickets")
    result = tombola(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(("option", "value"), [("--engine", "eagr"), ("--device", "tpu")])
def test_unknown_engines_and_devices_have_status_2(option: str, value: str) -> None:
    result = run(option, value)
    assert result.exit_code == 2
    assert f'"{value}"' in result.stderr


@pytest.mark.usefixtures("_fake_engine")
def test_another_configuration_in_the_same_folder_is_refused() -> None:
    assert run().exit_code == 0
    result = run("--set", "seed=1")
    assert result.exit_code == 2
    assert "seed is 0 there and 1 here" in result.stderr


@pytest.mark.usefixtures("_fake_engine")
def test_an_experiment_is_extended_in_its_folder() -> None:
    first = run(*with_settings(*WINNING))
    assert "Extending" not in first.stderr
    more = run(*with_settings(*WINNING, "replicates=8"))
    assert "Extending results/tiny: replicates from 5 to 8." in more.stderr
    assert "12 runs trained, 20 from the store" in more.stdout
    assert "5 and 8 replicates" in " ".join(more.stdout.split())
    looks = json.loads(tombola("show", "results/tiny", "--json").stdout)["looks"]
    assert (looks["planned"], looks["replicates"]) == (False, [5, 8])
    assert looks["error_rate"] > 0.05
    smaller = run(*with_settings(*WINNING))
    assert smaller.exit_code == 2
    assert "--set replicates=8" in smaller.stderr


@pytest.mark.usefixtures("_fake_engine")
def test_planned_looks_are_reported_and_extended_without_a_warning(tmp_path: Path) -> None:
    planned = with_settings(*WINNING, "verdict.looks=[5, 10]")
    assert run(*planned).exit_code == 0
    shown = run(*planned, *with_settings("replicates=10"))
    assert "planned look" in " ".join(shown.stdout.split())
    assert "extended" not in shown.stdout
    tombola("report", "results/tiny")
    assert "Lan and DeMets" in (tmp_path / "results" / "tiny" / "report.html").read_text()
    assert run(*planned, *with_settings("replicates=7")).exit_code == 2


def test_invalid_options_have_status_2() -> None:
    assert tombola("run").exit_code == 2
    assert tombola("run", "tiny.toml", "--workers", "0").exit_code == 2
    assert tombola("shw", "x").exit_code == 2


@pytest.mark.usefixtures("_fake_engine")
def test_a_failure_has_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(FakeEngine, "train", fail)
    result = run()
    assert result.exit_code == 1
    assert "failed: the disk is full" in result.stderr


@pytest.mark.usefixtures("_fake_engine")
def test_an_interrupt_has_status_130_and_the_same_command_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = FakeEngine.train, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return train(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "train", interrupted)
        result = run()
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert json.loads(tombola("show", "results/tiny", "--json").stdout)["finished"] is False
    assert "13 runs trained, 7 from the store" in run().stdout


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C has Python's default handler, which processes in the background lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible", "_fake_engine")
def test_an_interrupt_that_a_library_turns_into_another_error_has_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr(FakeEngine, "train", interrupted)
    result = run()
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "determine" not in result.stderr
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_fake_engine")
def test_where_there_is_a_gpu_the_choice_of_the_device_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    assert not caplog.messages
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    result = run("--json", "--out", "other")
    (message,) = caplog.messages
    assert message.startswith("device auto: cpu")
    assert json.loads(result.stdout)["finished"] is True
    run("--device", "cpu", "--out", "other")
    assert len(caplog.messages) == 1


def test_a_dry_run_trains_and_writes_nothing(tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = run(*SHORT, "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any(line.split()[:2] == ["ticket", "0–3"] for line in lines)
    assert any(line.split()[:2] == ["reinit", "1–3"] for line in lines)
    assert "20 to train" in result.stdout
    assert [line.partition(":")[0] for line in lines[-3:]] == ["Time", "Disk", "Memory"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_dry_run_says_that_there_is_nothing_to_train(tmp_path: Path) -> None:
    run(*SHORT)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*")}
    result = run(*SHORT, "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("Nothing to train")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*")} == first
    more = run(*with_settings("replicates=3"), *SHORT, "--dry-run")
    assert "20 in the store, 10 to train" in more.stdout
    assert "replicates from 2 to 3" in more.stderr
    other = run(*with_settings("search.rate=0.3"), *SHORT, "--dry-run")
    assert other.exit_code == 2  # the folder has another experiment
    assert other.stdout == ""


def test_a_dry_run_is_one_json_document() -> None:
    result = run(*SHORT, "--dry-run", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert set(document) == {
        *("name", "engine", "device", "workers", "requests", "trainings", "in_store", "to_train", "at_most", "runs"),
        *("time", "disk_bytes", "memory"),
    }
    assert document["to_train"] == 20
    assert set(document["runs"][0]) == {
        *("branch", "level", "network", "iterations", "weights_left", "trainings", "in_store", "seconds"),
    }
    assert set(document["time"]) == {"low", "high", "basis"}


def test_a_dry_run_refuses_what_a_run_refuses() -> None:
    for settings in (["training.optimiser=adam"], ["training.batch_size=5000"]):
        one, other = (run(*with_settings(*settings), *more) for more in ((), ("--dry-run",)))
        assert other.exit_code == one.exit_code == 2
        assert other.stderr == one.stderr


def test_a_part_is_trained_for_the_command_that_writes_the_results(tmp_path: Path) -> None:
    part = run(*SHORT, "--part", "2/2")
    assert part.exit_code == 0, part.stderr
    (line,) = part.stdout.splitlines()
    assert "10 runs trained, 0 from the store" in line
    assert "part 2/2" in line
    assert not (tmp_path / "results" / "tiny").exists()
    planned = [json.loads(run(*SHORT, "--part", part, "--dry-run", "--json").stdout) for part in ("1/2", "2/2")]
    assert [plan["to_train"] for plan in planned] == [10, 0]
    described = json.loads(run(*SHORT, "--part", "2/2", "--json").stdout)
    assert described["runs"]["from_store"] == 10
    assert described["finished"] is False
    assert "10 runs trained, 10 from the store" in run(*SHORT).stdout


@pytest.mark.parametrize("part", ["0/4", "5/4", "a/b", "1/3", ""])
def test_an_invalid_part_is_one_line(part: str, tmp_path: Path) -> None:
    result = run("--part", part)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: part: ")
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("_fake_engine")
def test_the_summary_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    make = summarise._summary
    monkeypatch.setattr(summarise, "_summary", lambda results: made.append(results) or make(results))
    assert tombola("run", "tiny.toml").exit_code == 0
    assert len(made) == 1
