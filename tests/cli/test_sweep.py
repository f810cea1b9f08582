"""`tombola sweep`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import tombola
from tests.support.fake_engine import FakeEngine
from tests.support.stores import keys_of
from tombola.experiments.results import read_results
from tombola.runs.store import Store

GRID = ["--grid", "training.lr=0.005,0.01", "--grid", "controls.reinit=0,1"]
NAMES = ["lr=0.005,reinit=0", "lr=0.005,reinit=1", "lr=0.01,reinit=0", "lr=0.01,reinit=1"]
FOLDER = Path("results/tiny-sweep")


def sweep(*arguments: str) -> str:
    result = tombola("sweep", "tiny.toml", "--workers", "1", "--no-report", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.usefixtures("_fake_engine")
def test_every_combination_is_an_experiment_and_they_are_compared() -> None:
    shown = sweep(*GRID)
    assert "28 runs trained" in shown
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) == [".tombola", *NAMES]
    found = [read_results(FOLDER / name) for name in NAMES]
    assert all(each.finished for each in found)
    assert [(each.config.resolved()["training"]["lr"], len(each.rows)) for each in found] == [
        (0.005, 8),
        (0.005, 14),
        (0.01, 8),
        (0.01, 14),
    ]
    assert len(keys_of(Store(FOLDER / ".tombola"))) == 28
    page = (FOLDER / "comparison.html").read_text()
    assert all(name in page for name in NAMES)
    assert "training.lr" in shown
    assert [each.tally.trained + each.tally.from_store for each in found] == [8, 14, 8, 14]
    out = "--out results/tiny-sweep/lr=0.005,reinit=1"
    assert found[1].command == f"tombola run tiny.toml {out} --set training.lr=0.005 --set controls.reinit=1"


@pytest.mark.usefixtures("_fake_engine")
def test_the_results_are_those_of_single_experiments() -> None:
    sweep(*GRID)
    for name, lr, draws in zip(NAMES, ("0.005", "0.005", "0.01", "0.01"), ("0", "1", "0", "1"), strict=True):
        settings = ["--set", f"training.lr={lr}", "--set", f"controls.reinit={draws}"]
        result = tombola("run", "tiny.toml", "--out", f"single/{name}", "--workers", "1", "--no-report", *settings)
        assert result.exit_code == 0, result.stderr
        for file in ("experiment.toml", "levels.parquet", "layers.parquet", "curves.parquet", "runs.txt"):
            assert (Path("single") / name / file).read_bytes() == (FOLDER / name / file).read_bytes(), (name, file)


@pytest.mark.usefixtures("_fake_engine")
def test_more_values_train_only_what_is_new() -> None:
    sweep("--grid", "training.lr=0.005", "--set", "controls.reinit=0")
    assert "8 runs trained" in sweep("--grid", "training.lr=0.01,0.005", "--set", "controls.reinit=0")
    assert "0 runs trained" in sweep("--grid", "training.lr=0.01,0.005", "--set", "controls.reinit=0")
    result = tombola("sweep", "tiny.toml", "--workers", "1", "--no-report", *GRID[:2], "--set", "controls.reinit=1")
    assert "Extending" in result.stderr
    assert "12 runs trained" in result.stdout


@pytest.mark.usefixtures("_fake_engine")
def test_an_interrupted_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = FakeEngine.train, []

    def interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return train(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(FakeEngine, "train", interrupted)
        assert tombola("sweep", "tiny.toml", "--workers", "1", *GRID).exit_code == 130
    states = {read_results(FOLDER / name).finished for name in NAMES}
    assert False in states
    assert "9 runs trained" in sweep(*GRID)
    assert all(read_results(FOLDER / name).finished for name in NAMES)


@pytest.mark.usefixtures("_fake_engine")
def test_an_experiment_is_finished_before_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    train = FakeEngine.train

    def interrupted(engine: FakeEngine, runs: object, *rest: object) -> object:
        if all(read_results(FOLDER / name, lenient=True).finished for name in NAMES[::2]):
            raise KeyboardInterrupt
        return train(engine, runs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeEngine, "train", interrupted)
    assert tombola("sweep", "tiny.toml", "--workers", "1", *GRID).exit_code == 130
    assert [read_results(FOLDER / name).finished for name in NAMES] == [True, False, True, False]


@pytest.mark.usefixtures("_fake_engine")
def test_the_comparison_is_printed_as_json() -> None:
    document = json.loads(sweep("--grid", "search.rate=0.2,0.4", "--set", "controls.reinit=0", "--json"))
    assert [each["label"] for each in document["experiments"]] == ["rate=0.2", "rate=0.4"]
    assert list(document["differences"]) == ["search.rate"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--grid"),
        (["--grid", "training.lr"], "key=value"),
        (["--grid", "training.lr=0.1,0.1"], "twice"),
        (["--grid", "training.lr=0.1,-1"], "lr=-1"),
        (["--grid", "data.name=digits,none.npz"], "name=none.npz"),
        (["--grid", "search.levels=3,99"], "levels=99"),
        (["--grid", "seed=0,1"], "seed is 7 there and 1 here"),
        (["--grid", "seed=0,1", "--out", "results/tiny-sweep/seed=1"], "--out"),
    ],
)
def test_an_invalid_sweep_trains_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    folder = tmp_path / FOLDER / "seed=1"
    folder.mkdir(parents=True)
    (folder / "experiment.toml").write_text((tmp_path / "tiny.toml").read_text().replace("seed = 0", "seed = 7"))
    result = tombola("sweep", "tiny.toml", "--workers", "1", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / FOLDER / ".tombola").exists()
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["seed=1"]
