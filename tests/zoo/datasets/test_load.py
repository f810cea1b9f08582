"""Datasets by name, arrays of the user, and the checks before a run uses them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.datasets import (
    describe_data,
    encode,
    make_table,
    npz_arrays,
    random_images,
    write_dataset,
    write_parquet,
)
from tests.support.errors import raises_input_error
from tombola.utils.errors import InputError
from tombola.zoo.datasets import load, prepare
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.parquet_columns import Columns


def test_unknown_datasets_get_a_suggestion() -> None:
    with raises_input_error("dataset", '"fashion_mnist"', 'did you mean "fashion-mnist"'):
        load("fashion_mnist")


def test_a_run_refuses_a_dataset_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **npz_arrays())
    data = describe_data(load(str(path)), name=str(path))
    np.savez(path, **npz_arrays(x_train=np.ones((30, 4))))
    with raises_input_error(path, "changed"):
        prepare(data)


def test_a_run_reads_the_columns_it_is_described_with(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3, 8, 8)
    data = describe_data(load(str(tmp_path), columns=Columns(size=4)), name=str(tmp_path), size=4)
    assert prepare(data).train.x.shape == (12, 3, 4, 4)
    with raises_input_error("changed"):
        prepare(data.model_copy(update={"size": 5}))


@pytest.mark.parametrize("name", ["digits", "mnist", "mine.npz"])
@pytest.mark.parametrize("option", [{"image": "img"}, {"label": "y"}, {"size": 8}], ids=str)
def test_columns_are_refused_for_datasets_without_parquet_files(name: str, option: dict[str, object]) -> None:
    with raises_input_error(f"data.{next(iter(option))}", f'"{name}"', "Parquet"):
        load(name, columns=Columns(**option))  # type: ignore[arg-type]


def test_folders_are_loaded_by_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "mine" / "flowers", 4, 4)
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    names = (str(tmp_path / "mine" / "flowers"), "mine/flowers", "flowers", "./mine/flowers/")
    assert len({load(name).digest for name in names}) == 1
    assert load("flowers", columns=Columns(size=2)).inputs == (2, 2)
    write_dataset(tmp_path / "mine" / "flowers", 5, 5)
    assert load("flowers").inputs == (5, 5)  # not cached
    with raises_input_error("no/flowers or", tmp_path / "mine/no/flowers", tmp_path / "cache/tombola/no/flowers"):
        load("no/flowers")


def test_a_folder_is_read_by_what_it_holds(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, 4)
    parquet = load(str(tmp_path)).digest
    for name in ("train/cat/1.png", "train/dog/1.png", "train.csv"):  # Parquet files come first, as ever
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode(random_images(1, 4, 4)[0]))
    assert load(str(tmp_path)).digest == parquet


@pytest.mark.parametrize("name", ["mine/train.parquet", "train.parquet", "arrays.npy"])
def test_a_file_is_refused_instead_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / name, make_table(random_images(2, 4, 4), [0, 1]))
    with raises_input_error("data.name", name, "folder"):
        load(name)


@pytest.mark.parametrize("name", ["a" * 300, "./" + "a" * 300, "a" * 300 + ".npz"])
def test_a_name_too_long_for_a_file_is_refused(name: str) -> None:
    with raises_input_error("data.name", Path(name), "File name too long"):
        load(name)


@pytest.mark.parametrize(
    ("name", "serialised"),
    [
        ("mnist", "mnist"),
        ("any/where/mine.npz", "npz"),
        ("any/where/mine.csv", "csv"),
        ("any/where/mine.tsv", "csv"),
        ("any/where/flowers", "parquet"),
        ("C:\\flowers", "parquet"),
        ("./flowers", "parquet"),
        ("flowers", "parquet"),
        ("cifar100", "cifar100"),
        ("hf:someone/flowers", "hf:someone/flowers"),
    ],
)
def test_paths_are_not_part_of_a_description(name: str, serialised: str) -> None:
    assert Data(name=name, digest="", seed=0, validation=1).model_dump(mode="json")["name"] == serialised


def test_arrays_are_found_by_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mine.npz", **npz_arrays())
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.npz").write_bytes((tmp_path / "mine.npz").read_bytes())
    for dataset in (load(str(tmp_path / "mine.npz")), load("mine.npz", tmp_path), load("other.npz")):
        assert dataset.inputs == (4,)
        assert dataset.classes == 3
        assert dataset.y_train.dtype == np.int64


@pytest.mark.parametrize(
    ("dtype", "digest"),
    [
        ("u1", "6b55e50d9ca4375a7920a389e34cc327"),
        ("u2", "2de66e4698387c673971d5bc516fe9a8"),
        ("i8", "d992cb5b5006f3be8b30bbf0737335ba"),
        (">f4", "ef51f96813e4e120321aa57ad4181515"),
        ("f8", "68a75afecb605a8d6a3bcf0ca3e51ca8"),
    ],
)
def test_the_digest_of_arrays_stays_the_same(tmp_path: Path, dtype: str, digest: str) -> None:
    """Golden: it is part of the keys of stored runs."""
    x = np.arange(120).reshape(30, 4).astype(dtype)
    np.savez(tmp_path / "mine.npz", **npz_arrays(x_train=x, x_test=x[:12]))
    assert load(str(tmp_path / "mine.npz")).digest == digest


def test_labels_may_be_whole_floats(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **npz_arrays(y_train=np.arange(30) % 3 * 1.0))
    assert load(str(tmp_path / "mine.npz")).y_train.dtype == np.int64


def with_nan(shape: tuple[int, ...]) -> Array:
    array = np.zeros(shape)
    array.flat[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"y_test": None}, "y_test missing"),
        ({"x_train": None, "y_test": None}, "x_train, y_test missing"),
        ({"y_train": np.arange(29) % 3}, "x_train has 30 examples and y_train has 29 labels"),
        ({"x_train": with_nan((30, 4))}, "x_train has NaN or infinite values"),
        ({"x_test": np.full((12, 4), np.inf)}, "x_test has NaN or infinite values"),
        ({"y_train": np.arange(30) % 3 - 1}, "y_train should be whole numbers from 0"),
        ({"y_train": np.arange(30) % 3 + 0.5}, "y_train should be whole numbers from 0"),
        ({"y_test": np.arange(12) % 4}, "y_test has a label 3"),
        ({"y_train": np.arange(30) * 1000}, "y_train has a label 29000"),
        ({"x_test": np.zeros((12, 5))}, "(4,) and (5,)"),
        ({"x_train": np.zeros(30)}, "x_train should have shape (examples, ...)"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0)}, "x_train should have shape (examples, ...)"),
        ({"y_train": np.zeros((30, 3))}, "y_train should have shape (examples,)"),
        ({"x_train": np.array([["a"] * 4] * 30)}, "x_train should be numbers"),
        ({"y_train": np.array(["cat"] * 30)}, "y_train should be whole numbers"),
        ({"x_train": np.array([[None] * 4] * 30)}, "cannot be read"),
    ],
)
def test_invalid_arrays_are_named(tmp_path: Path, changes: dict[str, Any], fact: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=True, **npz_arrays(**changes))
    with raises_input_error(path, fact):
        load(str(path))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with raises_input_error("none.npz", tmp_path / "none.npz"):
        load("none.npz", tmp_path)
    np.savez(tmp_path / "whole.npz", **npz_arrays())
    content = (tmp_path / "whole.npz").read_bytes()
    for damaged in (b"hello", content[: len(content) // 2]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with raises_input_error(tmp_path / "damaged.npz", "cannot be read"):
            load(str(tmp_path / "damaged.npz"))


def test_an_altered_byte_raises_no_other_error(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", **npz_arrays())
    content = (tmp_path / "whole.npz").read_bytes()
    for position in range(0, len(content), 19):
        altered = bytearray(content)
        altered[position] ^= 0xFF
        (tmp_path / "altered.npz").write_bytes(altered)
        with contextlib.suppress(InputError):
            load(str(tmp_path / "altered.npz"))


def test_digits_are_always_divided_the_same_way_without_overlap() -> None:
    digits = load("digits")
    assert digits.x_train.shape == (1197, 8, 8)
    assert digits.x_test.shape == (600, 8, 8)
    assert (digits.x_train.min(), digits.x_train.max(), digits.classes) == (0, 1, 10)
    assert digits.digest == "d9368b8a55d670342d8eaa381569f158"
    train = {image.tobytes() for image in digits.x_train}
    assert not any(image.tobytes() in train for image in digits.x_test)
