"""Which files and columns hold the images and labels."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.support.datasets import (
    TEST,
    TRAIN,
    encode,
    hub_metadata,
    make_table,
    random_images,
    write_dataset,
    write_parquet,
)
from tests.support.errors import raises_input_error
from tombola.zoo.datasets.parquet import read_parquet
from tombola.zoo.datasets.parquet_columns import Columns, find_columns
from tombola.zoo.datasets.parquet_files import choose_files


def chosen(*files: str, configuration: str | None = None) -> tuple[list[str], list[str]]:
    found = choose_files("here", map(PurePosixPath, files), configuration)
    return [str(file) for file in found.train], [str(file) for file in found.test]


@pytest.mark.parametrize("folder", ["", "data/", "anything/"])
@pytest.mark.parametrize("test", ["test", "validation", "val"])
@pytest.mark.parametrize(
    "name",
    [
        "{}-00000-of-00001.parquet",
        "{}.parquet",
        "{}-0abc.parquet",
        "{}/0000.parquet",
        "{0}/{0}-00000-of-00001.parquet",
        "{0}/{0}.parquet",
    ],
)
def test_files_are_found_by_their_names(folder: str, test: str, name: str) -> None:
    train, test = folder + name.format("train"), folder + name.format(test)
    assert chosen(train, test, "README.md", f"{folder}extra-00000-of-00001.parquet") == ([train], [test])


def test_test_files_are_preferred_to_validation_files() -> None:
    assert chosen("train-0.parquet", "validation-0.parquet", "test-0.parquet")[1] == ["test-0.parquet"]


def test_the_folder_itself_and_common_sub_folders_are_preferred() -> None:
    files = ["train-0.parquet", "test-0.parquet", "data/train-0.parquet", "zoo/train-0.parquet"]
    assert chosen(*files)[0] == ["train-0.parquet"]
    assert chosen(*files[2:], "data/test-0.parquet")[0] == ["data/train-0.parquet"]


def test_shards_are_in_order() -> None:
    names = [f"train-{i:05d}-of-00003.parquet" for i in range(3)]
    assert chosen(*reversed(names), "test-00000-of-00001.parquet")[0] == names


def test_a_configuration_can_be_chosen() -> None:
    files = ["a/train-0.parquet", "a/test-0.parquet", "b/train-0.parquet", "b/test-0.parquet"]
    assert chosen(*files, configuration="b") == ([files[2]], [files[3]])


@pytest.mark.parametrize(
    ("files", "configuration", "facts"),
    [
        ([], None, ["train-*.parquet", "test-*.parquet"]),
        (["x/y/z/train-0.parquet", "train-0.txt"], None, ["train-*.parquet", "test-*.parquet"]),
        (["a/train-0.parquet"], "b", ["train-*.parquet", "b in here"]),
        (["a/train-0.parquet", "b/train-0.parquet"], None, ["a, b", "data.name", "here/a"]),
        (["train-0.parquet", "data/test-0.parquet"], None, ["train-0.parquet", "test-*.parquet", "val-*.parquet"]),
        (
            ["train-00001-of-00002.parquet", "test-0.parquet"],
            None,
            ["train-00001-of-00002.parquet", "number 0", "missing"],
        ),
        (
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "test-0.parquet"],
            None,
            ["train-00000-of-00001.parquet", "train-00000-of-00002.parquet", "different series"],
        ),
        (
            ["train-00000-of-00001-a.parquet", "train-00000-of-00001-b.parquet", "test-0.parquet"],
            None,
            ["train-00000-of-00001-a.parquet", "train-00000-of-00001-b.parquet", "different series"],
        ),
    ],
)
def test_missing_and_ambiguous_files_are_named(files: list[str], configuration: str | None, facts: list[str]) -> None:
    with raises_input_error("here", *facts):
        chosen(*files, configuration=configuration)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}-00000-of-00001.parquet", "{}.parquet"),
        ("{}-00000-of-00001.parquet", "{}/0000.parquet"),
        ("{}-00000-of-00001.parquet", "{}-0.parquet"),
        ("{}-0.parquet", "{}.parquet"),
        ("{}.parquet", "{}/0000.parquet"),
        ("{}/0000.parquet", "{0}/{0}-00000-of-00001.parquet"),
        ("{}/flowers.parquet", "{}/train-0.parquet"),
    ],
)
def test_files_named_in_two_ways_are_refused(part: str, first: str, second: str) -> None:
    files = sorted(PurePosixPath(name.format(part)) for name in (first, second))
    other = {"train": "test", "test": "train"}[part] + "-0.parquet"
    with raises_input_error("here", files[0], files[1], "keep one"):
        chosen(*map(str, files), other)


def test_files_in_a_train_or_test_folder_may_have_any_name() -> None:
    files = ["train/roses.parquet", "train/tulips-2.parquet", "test/train.parquet"]
    assert chosen(*files) == (files[:2], files[2:])


def test_columns_are_found_by_the_metadata_of_the_file(tmp_path: Path) -> None:
    x = random_images(4, 3, 4, 4)
    mask = pa.array([encode(image) for image in random_images(4, 4, 4, seed=5)], pa.binary())
    metadata = hub_metadata(img="Image", label=2)
    for name in (TRAIN, TEST):
        rows = make_table(x, [0, 1, 0, 1], metadata, mask=mask, index=pa.array([7, 8, 9, 10]))
        write_parquet(tmp_path / name, rows)
    dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.x_train, x)
    assert dataset.y_train.tolist() == [0, 1, 0, 1]
    assert read_parquet(tmp_path, Columns(image="mask")).inputs == (4, 4)


@pytest.mark.parametrize("metadata", [None, {b"huggingface": b"invalid"}, {b"huggingface": b'{"info": 3}'}])
def test_without_metadata_columns_are_found_by_name_and_type(metadata: dict[bytes, bytes] | None) -> None:
    table = make_table(random_images(2, 4, 4), [0, 1], metadata, index=pa.array([7, 8]))
    found = find_columns(Path("any"), table.schema, Columns())
    assert (found.image, found.label, found.classes) == ("img", "label", None)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_images_may_be_in_a_binary_column(tmp_path: Path, kind: pa.DataType) -> None:
    x = random_images(4, 4, 4)
    contents = pa.array([encode(image) for image in x], kind)
    for name in (TRAIN, TEST):
        write_parquet(tmp_path / name, pa.table({"picture": contents, "digit": pa.array([0, 1, 2, 0], pa.uint8())}))
    np.testing.assert_array_equal(read_parquet(tmp_path).x_train, x)


COARSE = pa.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("more", "metadata", "columns", "facts"),
    [
        (
            {"coarse": COARSE},
            hub_metadata(img="Image", label=2, coarse=2),
            Columns(),
            ["data.label", "label, coarse"],
        ),
        ({"other": pa.array([b""] * 4)}, None, Columns(), ["data.image", "img, other"]),
        ({}, None, Columns(image="image"), ["no column image", "data.image to img"]),
        ({}, None, Columns(label="fine"), ["no column fine", "data.label to label"]),
        (
            {"coarse": COARSE, "weight": pa.array([0.5] * 4)},
            None,
            Columns(label="img"),
            ["column img", "integers", "data.label", "label, coarse"],
        ),
        ({}, None, Columns(image="label"), ["column label", "binary", "data.image to img"]),
    ],
)
def test_ambiguous_and_invalid_columns_are_named(
    more: dict[str, Any], metadata: dict[bytes, bytes] | None, columns: Columns, facts: list[str]
) -> None:
    table = make_table(random_images(4, 4, 4), [0, 1, 0, 1], metadata, **more)
    with raises_input_error("any.parquet", *facts):
        find_columns(Path("any.parquet"), table.schema, columns)


@pytest.mark.parametrize(
    ("columns", "chosen", "facts"),
    [
        ({"label": [0]}, Columns(), ["images", "it has label"]),
        ({"img": [b""]}, Columns(), ["labels", "it has img"]),
        ({"img": [b""], "label": ["cat"]}, Columns(), ["labels", "it has img, label"]),
        ({}, Columns(), ["images", "no columns"]),
        ({"img": [b""], "name": ["rose"]}, Columns(label="name"), ["name", "data.label", "img, name"]),
    ],
)
def test_missing_columns_are_named(columns: dict[str, Any], chosen: Columns, facts: list[str]) -> None:
    with raises_input_error("any.parquet", *facts):
        find_columns(Path("any.parquet"), pa.table(columns).schema, chosen)


def test_every_file_needs_the_columns(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, 4)
    write_parquet(tmp_path / TEST, pa.table({"img": [b""], "class": [1]}))
    with raises_input_error(tmp_path / TEST, "no column label", "data.label to class"):
        read_parquet(tmp_path)
