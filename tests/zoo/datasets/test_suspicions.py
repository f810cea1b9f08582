"""What is probably wrong with a dataset is said in a warning when an experiment is set up."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.datasets import npz_arrays, random_images
from tests.support.recipes import tiny
from tombola.experiments.recipe_workload import set_up
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.suspicions import suspicions


def dataset(x_train: Array, x_test: Array | None = None, **labels: Any) -> Dataset:
    """With three classes, and as many test as training inputs of the same distribution by default."""
    x_test = x_train[::-1] * 0.99 if x_test is None else x_test
    y = {"y_train": np.arange(len(x_train)) % 3, "y_test": np.arange(len(x_test)) % 3} | labels
    return Dataset(x_train, y["y_train"], x_test.astype(x_train.dtype), y["y_test"])


def uniform(*shape: int, high: float = 1, dtype: str = "f4") -> Array:
    return (np.random.default_rng(0).random((60, *shape)) * high).astype(dtype)


SUSPICIOUS = [
    pytest.param(dataset(uniform(9, 9, 3)), ["(9, 9, 3)", "9 channels", "transpose(0, 3, 1, 2)"], id="channels last"),
    pytest.param(dataset(uniform(9, 9, 1)), ["9 channels"], id="one channel last"),
    pytest.param(dataset(uniform(4, 4, high=4096, dtype="u2")), ["of 65,535", "uint16"], id="12 bits in 16"),
    pytest.param(dataset(uniform(4, 4, high=2, dtype="u1")), ["at most 1 of 255"], id="masks as bytes"),
    pytest.param(dataset(uniform(4, 4, high=256, dtype="i8")), ["int64", "data.scale", "uint8"], id="wide integers"),
    pytest.param(dataset(uniform(4, 4, high=255)), ["float32", "data.scale"], id="pixels as floats"),
    pytest.param(dataset(uniform(4) * [1, 1e-4, 5, 9]), ["data.scale"], id="features of different range"),
    pytest.param(
        dataset(uniform(4, 4), uniform(4, 4, high=255)), ["test inputs", "training inputs"], id="one scaled"
    ),
    pytest.param(
        dataset(uniform(4, 4) * 2 - 1, uniform(4, 4)), ["test inputs", "training inputs"], id="one normalised"
    ),
    pytest.param(dataset(uniform(4, 4), uniform(4, 4) * 2 - 1), ["test inputs"], id="the other normalised"),
    pytest.param(dataset(np.ones((60, 4))), ["all training inputs are 1"], id="constant"),
    pytest.param(dataset(uniform(4), uniform(4)), ["60 of 60 test examples"], id="test set is the training set"),
    pytest.param(
        dataset(uniform(4), y_train=np.arange(60) % 3 * 10 + 10, y_test=np.arange(60) % 3 * 10 + 10),
        ["0 to 30", "31 classes", "label 0 or 27 others;", "without gaps"],
        id="labels with gaps",
    ),
    pytest.param(
        dataset(uniform(4), y_train=np.arange(60) % 2 * 2), ["label 1,", "20 test examples"], id="class only tested"
    ),
    pytest.param(dataset(uniform(4), y_train=np.arange(60) % 2 * 3), ["label 1 or 1 other"], id="two unused"),
    pytest.param(dataset(uniform(4), y_train=np.arange(60)), ["60 classes"], id="a class for each example"),
]


@pytest.mark.parametrize(("suspicious", "facts"), SUSPICIOUS)
def test_suspicious_datasets_are_described(suspicious: Dataset, facts: list[str]) -> None:
    line = next(line for line in suspicions(suspicious, "range") if facts[0] in line)
    assert all(fact in line for fact in facts)
    assert "\n" not in line


@pytest.mark.parametrize(
    "usual",
    [
        dataset(uniform(4)),
        dataset(uniform(4) * 2 - 1),
        dataset(uniform(8, 8, high=17, dtype="u2") * 3855),
        dataset(uniform(8, 8, high=256, dtype="u1")),
        dataset(uniform(3, 8, 8, high=256, dtype="u1")),
        dataset(uniform(1, 8, 8, high=256, dtype="u1")),
        dataset(uniform(8, 8, 8)),
        dataset(uniform(8, 8, high=17)),
    ],
)
def test_usual_datasets_are_not_suspicious(usual: Dataset) -> None:
    assert suspicions(usual, "range") == []


@pytest.mark.parametrize(
    "x", [uniform(4, 4, high=4096, dtype="u2"), uniform(4, high=255), uniform(4) * [1, 9, 99, 999]]
)
def test_the_range_does_not_matter_if_inputs_are_standardised(x: Array) -> None:
    assert suspicions(dataset(x), "range")
    assert suspicions(dataset(x), "standard") == []


@given(st.sampled_from(["u1", "u2", "i2", "f4"]), st.integers(0, 59))
def test_shared_examples_are_counted(dtype: str, shared: int) -> None:
    x = np.arange(60 * 4, dtype=dtype).reshape(60, 4)
    x_test = np.concatenate([x[:shared], x[shared:] + np.array(1, dtype)])
    found = [line for line in suspicions(dataset(x, x_test), "standard") if "same inputs" in line]
    assert (f"{shared} of 60" in found[0]) if shared else not found


def test_notes_of_the_reader_come_first() -> None:
    x = uniform(4)
    noted = Dataset(x, np.arange(60) % 3, x, np.arange(60) % 3, ("a note",))
    assert suspicions(noted, "range")[0] == "a note"


def test_an_experiment_warns_once_and_trains_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mine.npz"
    images = random_images(42, 8, 8) // 16
    np.savez(path, **npz_arrays(x_train=images[:30], x_test=images[30:]))
    recipe = tiny(data__name=str(path), data__validation=6, training__batch_size=8)
    with caplog.at_level(logging.WARNING):
        assert set_up(recipe).template.start.network.inputs == (8, 8)
    (warning,) = caplog.messages
    assert str(path) in warning
    assert "15 of 255" in warning


def test_published_datasets_are_not_checked(caplog: pytest.LogCaptureFixture) -> None:
    set_up(tiny())
    assert not caplog.messages
