"""What workers are handed, and what they make of it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.conducting import RecordingEngine
from tests.support.errors import raises_input_error
from tests.support.executors import RecordingExecutor, SharingExecutor
from tests.support.recipes import tiny
from tombola.engines.eager import Eager
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.remote_training import RemoteTraining
from tombola.studies.training_task import train_task
from tombola.utils import libraries
from tombola.utils.workers import InlineExecutor
from tombola.zoo import datasets


@pytest.fixture
def store(store_folder: Path) -> Store:
    Store(store_folder).check_writable()
    return Store(store_folder)


def test_workers_need_not_have_the_data(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    experiment, executor = RecipeExperiment(tiny(search__levels=0, controls={})), SharingExecutor()
    training = RemoteTraining(store, Eager(), executor)
    task = training._task([experiment.dense(0)])
    training.close()
    datasets.prepare.cache_clear()
    monkeypatch.setattr(datasets, "load", None)
    assert len(train_task(task)) == 1


def test_classes_keep_their_methods_where_they_were_pickled(dense: Run, store: Store) -> None:
    training, train = RemoteTraining(store, RecordingEngine(), InlineExecutor()), RecordingEngine.train
    train_task(training._task([dense]))
    training.close()
    assert RecordingEngine.train is train


def test_other_versions_are_refused(dense: Run, store: Store) -> None:
    training = RemoteTraining(store, RecordingEngine(), InlineExecutor())
    task = replace(training._task([dense]), versions=libraries.versions() | {"torch": "1.0"})
    training.close()
    with raises_input_error("torch", "1.0"):
        train_task(task)


def test_tasks_are_never_equal(dense: Run, store: Store) -> None:
    """Dask remembers what it answered, also an error."""
    training = RemoteTraining(store, RecordingEngine(), InlineExecutor())
    one, other = training._task([dense]), training._task([dense])
    training.close()
    assert pickle.dumps(one) != pickle.dumps(other)


def test_builds_of_one_version_are_alike(dense: Run, store: Store) -> None:
    training = RemoteTraining(store, RecordingEngine(), InlineExecutor())
    task = training._task([dense])
    training.close()
    elsewhere = {name: f"{version.partition('+')[0]}+cu130" for name, version in task.versions.items()}
    assert train_task(replace(task, versions=elsewhere))


def test_small_data_travels_where_it_cannot_be_shared(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    experiment = RecipeExperiment(tiny(search__levels=0, controls={}))
    training = RemoteTraining(store, Eager(), RecordingExecutor())
    task = training._task([experiment.dense(0)])
    training.close()
    datasets.prepare.cache_clear()
    monkeypatch.setattr(datasets, "load", None)
    assert len(train_task(pickle.loads(pickle.dumps(task)))) == 1


def test_workers_with_another_working_directory_find_the_store(
    dense: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    place = Store(Path("store"))
    place.check_writable()
    training = RemoteTraining(place, RecordingEngine(), InlineExecutor())
    task = training._task([dense])
    training.close()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert task.store.store_id == task.store_id is not None
