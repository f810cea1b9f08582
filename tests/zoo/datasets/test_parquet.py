"""Datasets of images in Parquet files: what is read, cached, and which errors name the file and the row."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support.datasets import (
    TEST,
    TRAIN,
    hub_metadata,
    make_table,
    random_images,
    write_dataset,
    write_parquet,
)
from tests.support.errors import raises_input_error
from tombola.utils.errors import InputError
from tombola.zoo.datasets import decoded_cache, parquet
from tombola.zoo.datasets.dataset import ARRAYS
from tombola.zoo.datasets.parquet import read_parquet
from tombola.zoo.datasets.parquet_columns import Columns


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_images_and_labels_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x_train, x_test = write_dataset(tmp_path, *shape)
    dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.x_train, x_train)
    np.testing.assert_array_equal(dataset.x_test, x_test)
    np.testing.assert_array_equal(dataset.y_train, np.arange(12) % 3)
    assert dataset.x_train.dtype == np.uint8
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int64
    assert (dataset.inputs, dataset.classes) == (shape, 3)


def test_several_files_are_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 3)
    x = random_images(15, 3, 4, 4)
    for shard in range(3):
        rows = make_table(x[5 * shard : 5 * shard + 5], [shard] * 5)
        write_parquet(tmp_path / "data" / f"train-{shard:05d}-of-00003.parquet", rows)
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", make_table(x[:3], [0, 1, 2]))
    dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.x_train, x)
    assert dataset.y_train.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_grey_images_among_colour_images_get_three_channels(tmp_path: Path) -> None:
    grey, colour = random_images(2, 4, 4), random_images(3, 3, 4, 4)
    write_parquet(tmp_path / TRAIN, make_table([*grey, *colour, grey[0]], [0, 1, 2, 0, 1, 2]))
    write_parquet(tmp_path / TEST, make_table(colour, [0, 1, 2]))
    expected = [*np.repeat(grey[:, None], 3, axis=1), *colour, np.repeat(grey[:1], 3, axis=0)]
    np.testing.assert_array_equal(read_parquet(tmp_path).x_train, np.stack(expected))


@pytest.mark.parametrize("grey", [TRAIN, TEST])
def test_grey_images_get_three_channels_if_the_other_part_has_colours(tmp_path: Path, grey: str) -> None:
    colour_train, colour_test = write_dataset(tmp_path, 3, 4, 4)
    flat = random_images(5, 4, 4)
    write_parquet(tmp_path / grey, make_table(flat, [0, 1, 2, 0, 1]))
    dataset = read_parquet(tmp_path)
    expected = np.repeat(flat[:, None], 3, axis=1)
    np.testing.assert_array_equal(dataset.x_train, expected if grey == TRAIN else colour_train)
    np.testing.assert_array_equal(dataset.x_test, expected if grey == TEST else colour_test)


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    x = [random_images(1, 3, 10 + i, 20 - i)[0] for i in range(4)]
    write_parquet(tmp_path / TRAIN, make_table(x, [0, 1, 0, 1]))
    write_parquet(tmp_path / TEST, make_table(x[:2], [0, 1]))
    with raises_input_error(tmp_path / TRAIN, "row 1", "11 x 19", "10 x 20", "data.size"):
        read_parquet(tmp_path)
    assert read_parquet(tmp_path, Columns(size=8)).inputs == (3, 8, 8)


def test_training_and_test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, 4)
    write_parquet(tmp_path / TEST, make_table(random_images(3, 5, 4), [0, 1, 2]))
    with raises_input_error(tmp_path / TRAIN, "4 x 4", tmp_path / TEST, "5 x 4", "data.size"):
        read_parquet(tmp_path)
    assert read_parquet(tmp_path, Columns(size=4)).inputs == (4, 4)


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (lambda: make_table([*random_images(5, 4, 4), b"no"], [0, 1, 2] * 2), ["row 5", "PNG, JPEG"]),
        (lambda: make_table([*random_images(5, 4, 4), None], [0, 1, 2] * 2), ["row 5", "image is missing"]),
        (lambda: make_table(random_images(6, 4, 4), [0, 1, 2, 0, None, 2]), ["row 4", "label is missing"]),
        (lambda: make_table(random_images(6, 4, 4), [0, 1, 2, 0, -1, 2]), ["row 4", "label is -1"]),
        (
            lambda: make_table(random_images(6, 4, 4), [0, 1, 2, 0, 1, 3], hub_metadata(img="Image", label=3)),
            ["row 5", "label is 3", "0 to 2"],
        ),
        (lambda: make_table([], []), ["no rows"]),
    ],
)
@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_invalid_rows_are_named(
    tmp_path: Path, name: str, rows: Callable[[], pa.Table], facts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 3)
    write_dataset(tmp_path, 4, 4)
    write_parquet(tmp_path / name, rows())
    with raises_input_error(tmp_path / name, *facts):
        read_parquet(tmp_path)


@pytest.mark.parametrize("metadata", [None, hub_metadata(img="Image", label=4)])
def test_test_labels_without_training_examples_are_refused(
    tmp_path: Path, metadata: dict[bytes, bytes] | None
) -> None:
    write_parquet(tmp_path / TRAIN, make_table(random_images(4, 4, 4), [0, 1, 2, 0], metadata))
    write_parquet(tmp_path / TEST, make_table(random_images(2, 4, 4), [0, 3], metadata))
    with raises_input_error(tmp_path / TEST, "label 3", tmp_path / TRAIN, "0 to 2"):
        read_parquet(tmp_path)


def test_labels_may_not_exceed_the_number_of_training_examples(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, 4)
    write_parquet(tmp_path / TRAIN, make_table(random_images(2, 4, 4), [0, 2]))
    with raises_input_error(tmp_path / TRAIN, "label 2", "2 training examples"):
        read_parquet(tmp_path)


@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "altered"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    write_dataset(tmp_path, 3, 8, 8)
    content = bytearray((tmp_path / name).read_bytes())
    if damage == "altered":
        content[4:200] = bytes(196)  # the first page of the first column
    damaged = {"empty": b"", "truncated": content[:-100], "text": b"hello", "altered": content}[damage]
    (tmp_path / name).write_bytes(damaged)
    with raises_input_error(tmp_path / name, "damaged"):
        read_parquet(tmp_path)


def test_an_altered_byte_raises_no_other_error(tmp_path: Path) -> None:
    write_dataset(tmp_path, 4, 4, train=6)
    content = (tmp_path / TRAIN).read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(content), 80):
        altered = bytearray(content)
        altered[position] ^= int(generator.integers(1, 256))
        (tmp_path / TRAIN).write_bytes(altered)
        with contextlib.suppress(InputError):
            read_parquet(tmp_path)


def test_images_that_do_not_fit_into_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path, 4, 4)
    monkeypatch.setattr(parquet, "count_rows", lambda path: 10**17)  # noqa: ARG005
    with raises_input_error(tmp_path / TRAIN, "memory", "data.size"):
        read_parquet(tmp_path)


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with raises_input_error(tmp_path / "none"):
        read_parquet(tmp_path / "none")
    with raises_input_error("train-*.parquet", "test-*.parquet", tmp_path):
        read_parquet(tmp_path)


def cached_files(cache: Path) -> list[Path]:
    return list((cache / "decoded").iterdir())


def test_moved_files_are_not_decoded_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "dataset", 3, 4, 4)
    first = read_parquet(tmp_path / "dataset")
    (tmp_path / "dataset").rename(tmp_path / "moved")
    monkeypatch.setattr(parquet, "_decode_all", None)
    again = read_parquet(tmp_path / "moved")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype
    assert len(cached_files(cache)) == 1


def test_another_size_or_content_is_decoded_separately(tmp_path: Path, cache: Path) -> None:
    write_dataset(tmp_path, 3, 4, 4)
    read_parquet(tmp_path)
    read_parquet(tmp_path, Columns(size=2))
    write_parquet(tmp_path / TEST, make_table(random_images(3, 3, 4, 4), [0, 1, 2]))
    read_parquet(tmp_path)
    assert len(cached_files(cache)) == 3


def test_given_and_found_columns_share_a_file(tmp_path: Path, cache: Path) -> None:
    write_dataset(tmp_path, 3, 4, 4)
    for columns in (None, Columns(label="label"), Columns("img", "label")):
        read_parquet(tmp_path, columns)
    assert len(cached_files(cache)) == 1


@pytest.mark.parametrize("damage", ["truncated", "altered", "another key", "text"])
def test_a_damaged_file_is_replaced(
    tmp_path: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write_dataset(tmp_path / "dataset", 3, 4, 4)
    first = read_parquet(tmp_path / "dataset")
    (path,) = cached_files(cache)
    content = bytearray(path.read_bytes())
    if damage == "another key":
        decoded_cache.write_cache("0" * 64, first)
        content = bytearray(decoded_cache.cache_file("0" * 64).read_bytes())
    content[-1] ^= damage == "altered"
    path.write_bytes({"truncated": content[:-9], "text": b"hello"}.get(damage, bytes(content)))
    assert read_parquet(tmp_path / "dataset").digest == first.digest
    assert str(path) in caplog.text
    caplog.clear()
    assert read_parquet(tmp_path / "dataset").digest == first.digest
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file instead of a folder")
    x_train, _ = write_dataset(tmp_path / "dataset", 4, 4)
    np.testing.assert_array_equal(read_parquet(tmp_path / "dataset").x_train, x_train)
