"""Training on streamed images: the same bits as from memory, in every engine, and after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.image_folders import write_class_folders, write_shards
from tests.support.recipes import tiny
from tests.support.training import (
    ENGINES,
    SGD,
    Interrupted,
    InterruptingCheckpoint,
    assert_close,
    pruned_run,
    same_bits,
    train_alone,
)
from tombola.engines.eager import Eager
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.run import Run
from tombola.zoo.datasets import prepare

STANDARD = {"scale": "standard", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
CONV = {"name": "conv-2", "width": 0.05}
TRAINING = SGD | {"batch_size": 8, "length": "9it", "evaluate_every": "3it"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_class_folders(root, "train", 12, height=13)
    write_class_folders(root, "test", 4, height=13)
    return root


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_shards(tmp_path_factory.mktemp("shards"), train=60) / "data"
    (root / "test-00000-of-00001.parquet").unlink()  # its labels are hidden
    return root


def a_run(folder: Path, **data: Any) -> Run:
    options = {"name": str(folder), "validation": 6, "size": 12, **STANDARD, **data}
    return pruned_run(data=options, model=CONV, training=TRAINING, search__output_rate=None)


@pytest.mark.parametrize("options", [{}, {"flip": True, "crop": 2}, {"flip": True, "resized_crop": 8}])
def test_image_files_give_the_same_bits_streamed_and_in_memory(folders: Path, options: dict[str, Any]) -> None:
    memory, stream = (a_run(folders, stream=stream, **options) for stream in (False, True))
    assert memory.key != stream.key
    assert same_bits(train_alone(memory), train_alone(stream))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_trains_on_row_groups_and_resumes_to_the_bit(shards: Path, engine: Any, tmp_path: Path) -> None:
    run = a_run(shards, stream=True, shuffle_buffer=12, resized_crop=8)
    whole = train_alone(run, engine=engine)
    with pytest.raises(Interrupted):
        engine().train([run], InterruptingCheckpoint(tmp_path / "checkpoint", saves=2))
    assert same_bits(train_alone(run, tmp_path / "checkpoint", engine), whole)
    assert_close(whole.final, train_alone(run).final)


def test_scores_are_computed_on_the_batches_that_are_trained(shards: Path) -> None:
    data = {
        "name": str(shards),
        "validation": 6,
        "size": 12,
        "stream": True,
        "shuffle_buffer": 12,
        "resized_crop": 12,
    }
    experiment = RecipeExperiment(tiny(data=data, model=CONV, training=TRAINING, search__output_rate=None))
    run = experiment.dense(0)
    found = list(experiment.workload.training_batches(run, 2, 3))
    train = prepare(run.data).train
    for (x, y), batch in zip(found, train.order(run.seed, 8).batches(2, 3), strict=True):
        expected, labels = train[batch]
        assert torch.equal(x, expected)
        assert torch.equal(y, labels)


def test_the_size_of_the_shuffle_buffer_changes_the_run(shards: Path) -> None:
    one, other = (a_run(shards, stream=True, shuffle_buffer=size) for size in (4, 60))
    assert one.key != other.key
    assert not same_bits(train_alone(one), train_alone(other))


def test_networks_see_crops_in_training_and_the_centre_in_evaluation(folders: Path) -> None:
    run = a_run(folders, stream=True, resized_crop=8)
    assert run.start.network.inputs == (3, 8, 8)
    outcome = train_alone(run, engine=Eager)
    assert not outcome.measures.diverged
    assert torch.isfinite(outcome.curves["validation_loss"]).all()
