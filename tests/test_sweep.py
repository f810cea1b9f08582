"""Several experiments performed at the same time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.errors import raises_input_error
from tests.support.executors import RecordingExecutor
from tests.support.experiments import Recorder
from tests.support.fake_engine import FakeEngine
from tests.support.recipes import tiny
from tests.support.stores import keys_of
from tombola._run_experiment import run_experiment
from tombola._sweep import sweep
from tombola.experiments.experiment import count_runs
from tombola.experiments.results import read_results
from tombola.report.progress import ProgressDisplay
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.utils.errors import TrainingsFailed

TABLES = ("levels.parquet", "layers.parquet", "curves.parquet", "runs.txt")


class Unlucky(FakeEngine):
    """Cannot train with one learning rate."""

    def train(self, runs: Sequence[Run], checkpoint: object, load_state: Any) -> list[Outcome]:
        if any(run.training.lr == 0.01 and run.mask.count < run.mask.size for run in runs):
            raise RuntimeError("no luck")
        return super().train(runs, checkpoint, load_state)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engine of all experiments, which a test may exchange."""
    engines = [FakeEngine()]
    monkeypatch.setattr("tombola._trainers.named_engine", lambda *_, **__: engines[0])
    return engines


@pytest.mark.usefixtures("engine")
def test_results_are_those_of_single_experiments_and_shared_runs_are_trained_once(tmp_path: Path) -> None:
    recipes = {tmp_path / "a": tiny(), tmp_path / "b": tiny(controls={"random": 1}), tmp_path / "c": tiny(seed=3)}
    recorder = Recorder()
    results = sweep(recipes, tmp_path / "store", workers=1, listeners=[recorder])
    assert [len(each.rows) for each in results] == [20, 14, 20]
    assert len(recorder.trained) == len({run.key for run in recorder.trained}) == 46
    assert {study for study, _ in recorder.answers} == {*range(6)}
    assert len(recorder.answers) == 54
    for folder, recipe in recipes.items():
        alone = tmp_path / "alone" / folder.name
        run_experiment(recipe, alone, workers=1, progress=False)
        assert all((alone / name).read_bytes() == (folder / name).read_bytes() for name in TABLES)


def test_an_experiment_whose_trainings_fail_does_not_end_the_others(tmp_path: Path, engine: list[FakeEngine]) -> None:
    recipes = {tmp_path / "bad": tiny(training__lr=0.01), tmp_path / "good": tiny()}
    engine[0] = Unlucky()
    with pytest.raises(TrainingsFailed, match="no luck"):
        sweep(recipes, tmp_path / "store", executor=RecordingExecutor())
    assert [read_results(folder).finished for folder in recipes] == [False, True]
    known = len(keys_of(Store(tmp_path / "store")))
    engine[0] = FakeEngine()
    recorder = Recorder()
    sweep(recipes, tmp_path / "store", executor=RecordingExecutor(), listeners=[recorder])
    assert all(read_results(folder).finished for folder in recipes)
    assert len(recorder.trained) == 40 - known


@pytest.mark.usefixtures("engine")
def test_nothing_is_trained_or_written_if_a_recipe_is_invalid(tmp_path: Path) -> None:
    with raises_input_error(tmp_path / "b", "none.npz"):
        sweep({tmp_path / "a": tiny(), tmp_path / "b": tiny(data__name="none.npz")}, tmp_path / "store")
    assert not [*tmp_path.iterdir()]


def test_workers_may_be_processes(tmp_path: Path) -> None:
    recipes = {tmp_path / f"{lr}": tiny(training__lr=lr, controls={}, search__levels=1) for lr in (0.005, 0.01)}
    results = sweep(recipes, tmp_path / "store", workers=2, engine="eager")
    assert [each.tally.trained for each in results] == [4, 4]


@pytest.mark.usefixtures("engine")
def test_the_time_left_is_that_of_all_experiments(tmp_path: Path) -> None:
    recipes = {tmp_path / name: tiny(replicates=2, training__lr=lr) for name, lr in (("a", 0.1), ("b", 0.2))}
    with ProgressDisplay(Console(file=io.StringIO()), sum(map(count_runs, recipes.values()))) as progress:
        sweep(recipes, tmp_path / "store", engine="eager", workers=1, listeners=[progress])
    assert progress._time_left is not None
    assert not +progress._time_left._left
