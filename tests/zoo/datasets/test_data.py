from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.zoo.datasets.helpers import arrays, described
from tests.zoo.datasets.pictures import small
from tombola.utils.errors import InputError
from tombola.zoo.datasets import Columns, prepare
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.registry import load


def test_unknown_data_sets_get_the_nearest_name() -> None:
    with pytest.raises(InputError, match='unknown data set "fashion_mnist": did you mean "fashion-mnist"'):
        load("fashion_mnist")


def test_a_run_is_not_trained_on_data_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    data = described(load(str(path)), name=str(path))
    np.savez(path, **arrays(x_train=np.ones((30, 4))))
    with pytest.raises(InputError, match="has changed"):
        prepare(data)


@pytest.mark.parametrize("name", ["digits", "mnist", "mine.npz"])
def test_choices_are_for_parquet_files_alone(name: str) -> None:
    for option, columns in [
        ("image", Columns(image="img")),
        ("label", Columns(label="y")),
        ("size", Columns(size=8)),
    ]:
        with pytest.raises(InputError) as caught:
            load(name, columns=columns)
        assert str(caught.value) == f'data.{option}: "{name}" has no such choice; only data in Parquet files has'


def test_a_run_reads_the_columns_that_it_is_described_with(tmp_path: Path) -> None:
    small(tmp_path, 3, 8, 8)
    data = described(load(str(tmp_path), columns=Columns(size=4)), name=str(tmp_path), size=4)
    assert prepare(data).train.x.shape == (12, 3, 4, 4)
    with pytest.raises(InputError, match="has changed"):
        prepare(data.model_copy(update={"size": 5}))


@pytest.mark.parametrize(
    ("name", "stands"),
    [
        ("mnist", "mnist"),
        ("cifar10", "cifar10"),
        ("any/where/mine.npz", "npz"),
        ("any/where/flowers", "parquet"),
        ("C:\\flowers", "parquet"),
        ("./flowers", "parquet"),
        ("flowers", "parquet"),
        ("cifar100", "cifar100"),
        ("fashion-mnist", "fashion-mnist"),
        ("digits", "digits"),
        ("hf:someone/flowers", "hf:someone/flowers"),
    ],
)
def test_where_files_lie_is_no_part_of_a_description(name: str, stands: str) -> None:
    assert Data(name=name, digest="", seed=0, validation=1).model_dump(mode="json")["name"] == stands
