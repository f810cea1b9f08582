from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.zoo.datasets.pictures import described, encoded, pixels, small, table, write
from tombola.utils.errors import InputError
from tombola.zoo.datasets import decoded, parquet
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.parquet import read_parquet
from tombola.zoo.datasets.registry import load

TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


def refused(folder: Path, columns: Columns | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_parquet(folder, columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7)])
def test_images_and_labels_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x_train, x_test = small(tmp_path, *shape)
    dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.x_train, x_train)
    np.testing.assert_array_equal(dataset.x_test, x_test)
    np.testing.assert_array_equal(dataset.y_train, np.arange(12) % 3)
    assert dataset.x_train.dtype == np.uint8
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int64
    assert (dataset.inputs, dataset.classes) == (shape, 3)


def test_a_part_may_be_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 3)
    x = pixels(15, 3, 4, 4)
    for part in range(3):
        rows = table(x[5 * part : 5 * part + 5], [part] * 5)
        write(tmp_path / "data" / f"train-{part:05d}-of-00003.parquet", rows)
    write(tmp_path / "data" / "validation-00000-of-00001.parquet", table(x[:3], [0, 1, 2]))
    dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.x_train, x)
    assert dataset.y_train.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_grey_images_among_colours_get_their_channels(tmp_path: Path) -> None:
    grey, colour = pixels(2, 4, 4), pixels(3, 3, 4, 4)
    write(tmp_path / TRAIN, table([*grey, *colour, grey[0]], [0, 1, 2, 0, 1, 2]))
    write(tmp_path / TEST, table(colour, [0, 1, 2]))
    expected = [*np.repeat(grey[:, None], 3, axis=1), *colour, np.repeat(grey[:1], 3, axis=0)]
    np.testing.assert_array_equal(read_parquet(tmp_path).x_train, np.stack(expected))


def test_images_are_brought_to_one_size(tmp_path: Path) -> None:
    x = [pixels(1, 3, 10 + i, 20 - i)[0] for i in range(4)]
    write(tmp_path / TRAIN, table(x, [0, 1, 0, 1]))
    write(tmp_path / TEST, table(x[:2], [0, 1]))
    assert refused(tmp_path) == (
        f"{tmp_path / TRAIN}, row 1: the image is of 11 x 19 pixels, colour, and those before are of 10 x 20 pixels, "
        "colour; set data.size to bring all to one size"
    )
    assert read_parquet(tmp_path, Columns(size=8)).inputs == (3, 8, 8)
    small(tmp_path / "alike", 6, 6)
    assert read_parquet(tmp_path / "alike", Columns(size=4)).inputs == (4, 4)


# Which columns


def test_columns_are_found_by_what_the_file_says_of_them(tmp_path: Path) -> None:
    x = pixels(4, 3, 4, 4)
    mask = pa.array([encoded(image) for image in pixels(4, 4, 4, seed=5)], pa.binary())
    about = described(img="Image", label=2)
    for name in (TRAIN, TEST):
        rows = table(x, [0, 1, 0, 1], about, mask=mask, index=pa.array([7, 8, 9, 10]))
        write(tmp_path / name, rows)
    dataset = read_parquet(tmp_path)
    np.testing.assert_array_equal(dataset.x_train, x)
    assert dataset.y_train.tolist() == [0, 1, 0, 1]
    assert read_parquet(tmp_path, Columns(image="mask")).inputs == (4, 4)


@pytest.mark.parametrize("about", [None, {b"huggingface": b"spoilt"}, {b"huggingface": b'{"info": 3}'}])
def test_columns_are_found_by_type_otherwise(tmp_path: Path, about: dict[bytes, bytes] | None) -> None:
    x = pixels(4, 4, 4)
    for name in (TRAIN, TEST):
        write(tmp_path / name, table(x, [0, 1, 0, 1], about, index=pa.array([7, 8, 9, 10])))
    assert read_parquet(tmp_path).y_train.tolist() == [0, 1, 0, 1]
    for kind in (pa.binary(), pa.large_binary()):
        contents = pa.array([encoded(image) for image in x], kind)
        for name in (TRAIN, TEST):
            write(tmp_path / name, pa.table({"picture": contents, "digit": pa.array([0, 1, 2, 0], pa.uint8())}))
        np.testing.assert_array_equal(read_parquet(tmp_path).x_train, x)


COARSE = pa.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("more", "about", "columns", "message"),
    [
        (
            {"coarse": COARSE},
            described(img="Image", label=2, coarse=2),
            Columns(),
            "several columns of labels; set data.label to one of label, coarse",
        ),
        (
            {"other": pa.array([b""] * 4)},
            None,
            Columns(),
            "several columns of images; set data.image to one of img, other",
        ),
        (
            {},
            None,
            Columns(image="image"),
            "there is no column image; set data.image to img",
        ),
        (
            {},
            None,
            Columns(label="fine"),
            "there is no column fine; set data.label to label",
        ),
        (
            {"coarse": COARSE, "weight": pa.array([0.5] * 4)},
            None,
            Columns(label="img"),
            "column img does not hold labels (integers); set data.label to one of its columns label, coarse",
        ),
        (
            {},
            None,
            Columns(image="label"),
            "column label does not hold images (binary, or a struct with `bytes`); set data.image to img",
        ),
    ],
)
def test_columns_that_are_not_clear_are_named(
    tmp_path: Path, more: dict[str, Any], about: dict[bytes, bytes] | None, columns: Columns, message: str
) -> None:
    small(tmp_path, 4, 4)
    write(tmp_path / TRAIN, table(pixels(4, 4, 4), [0, 1, 0, 1], about, **more))
    assert refused(tmp_path, columns) == f"{tmp_path / TRAIN}: {message}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0]}, "no column of images (binary, or a struct with `bytes`); it has label"),
        ({"img": [b""]}, "no column of labels (integers); it has img"),
        ({"img": [b""], "label": ["cat"]}, "no column of labels (integers); it has img, label"),
        ({}, "no column of images (binary, or a struct with `bytes`); it has no columns"),
    ],
)
def test_missing_columns_are_named(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    small(tmp_path, 4, 4)
    write(tmp_path / TRAIN, pa.table(columns))
    assert refused(tmp_path) == f"{tmp_path / TRAIN}: {message}"


def test_where_no_column_fits_all_are_listed(tmp_path: Path) -> None:
    small(tmp_path, 4, 4)
    write(tmp_path / TRAIN, pa.table({"img": [b""], "name": ["rose"]}))
    assert refused(tmp_path, Columns(label="name")) == (
        f"{tmp_path / TRAIN}: column name does not hold labels (integers); set data.label to one of its columns img, "
        "name"
    )


def test_every_file_needs_the_columns(tmp_path: Path) -> None:
    small(tmp_path, 4, 4)
    write(tmp_path / TEST, pa.table({"img": [b""], "class": [1]}))
    assert refused(tmp_path) == f"{tmp_path / TEST}: there is no column label; set data.label to class"


# What is wrong with rows and files


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            lambda: table([*pixels(5, 4, 4), b"no"], [0, 1, 2] * 2),
            ", row 5: not an image of the formats PNG, JPEG, BMP, GIF, PPM, TIFF, WEBP",
        ),
        (
            lambda: table([*pixels(5, 4, 4), None], [0, 1, 2] * 2),
            ", row 5: there is no image; its bytes should be in the file",
        ),
        (
            lambda: table(pixels(6, 4, 4), [0, 1, 2, 0, None, 2]),
            ", row 4: there is no label; every image should have a label",
        ),
        (
            lambda: table(pixels(6, 4, 4), [0, 1, 2, 0, -1, 2]),
            ", row 4: label is -1; it should be the number of the class, from 0 (images need labels)",
        ),
        (
            lambda: table(pixels(6, 4, 4), [0, 1, 2, 0, 1, 3], described(img="Image", label=3)),
            ", row 5: label is 3; it should be from 0 to 2",
        ),
        (lambda: table([], []), " has no rows: there are no {} examples"),
    ],
)
@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_what_is_wrong_is_said_with_file_and_row(
    tmp_path: Path, name: str, rows: Callable[[], pa.Table], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 3)
    small(tmp_path, 4, 4)
    write(tmp_path / name, rows())
    assert refused(tmp_path) == f"{tmp_path / name}{message}".format(name.partition("-")[0])


def test_labels_without_names_are_held_to_those_of_training(tmp_path: Path) -> None:
    small(tmp_path, 4, 4)
    write(tmp_path / TEST, table(pixels(2, 4, 4), [0, 3]))
    message = (
        f"{tmp_path / TEST}: a label 3 is out of range: no training example has it, those in {tmp_path / TRAIN} have "
        "0 to 2"
    )
    assert refused(tmp_path) == message
    small(tmp_path / "named", 4, 4)
    for name in (TRAIN, TEST):
        rows = table(pixels(4, 4, 4), [0, 1, 2, 3 if name == TEST else 0], described(img="Image", label=4))
        write(tmp_path / name, rows)
    assert refused(tmp_path) == message
    write(tmp_path / TRAIN, table(pixels(2, 4, 4), [0, 2]))
    assert refused(tmp_path) == f"{tmp_path / TRAIN}: a label 2 is out of range for 2 training examples"


def test_training_and_test_images_are_alike(tmp_path: Path) -> None:
    small(tmp_path, 4, 4)
    write(tmp_path / TEST, table(pixels(3, 5, 4), [0, 1, 2]))
    assert refused(tmp_path) == (
        f"{tmp_path / TRAIN} has images of 4 x 4 pixels, grey and {tmp_path / TEST} of 5 x 4 pixels, grey; they "
        "should be alike: set data.size"
    )


@pytest.mark.parametrize("grey", [TRAIN, TEST])
def test_grey_images_of_one_part_get_the_channels_of_the_other(tmp_path: Path, grey: str) -> None:
    x, other = small(tmp_path, 3, 4, 4)
    flat = pixels(5, 4, 4)
    write(tmp_path / grey, table(flat, [0, 1, 2, 0, 1]))
    dataset = read_parquet(tmp_path)
    wide = np.repeat(flat[:, None], 3, axis=1)
    np.testing.assert_array_equal(dataset.x_train, wide if grey == TRAIN else x)
    np.testing.assert_array_equal(dataset.x_test, wide if grey == TEST else other)


@pytest.mark.parametrize("name", [TRAIN, TEST])
@pytest.mark.parametrize("harm", ["empty", "truncated", "text", "altered"])
def test_damaged_files_are_named(tmp_path: Path, name: str, harm: str) -> None:
    small(tmp_path, 3, 8, 8)
    content = bytearray((tmp_path / name).read_bytes())
    if harm == "altered":
        content[4:200] = bytes(196)  # the first page of the first column
    (tmp_path / name).write_bytes(
        {"empty": b"", "truncated": content[:-100], "text": b"hello", "altered": content}[harm]
    )
    assert refused(tmp_path).startswith(f"{tmp_path / name} is damaged or not a Parquet file: ")


def test_no_byte_of_a_file_can_raise_anything_else(tmp_path: Path) -> None:
    small(tmp_path, 4, 4, train=6)
    whole = (tmp_path / TRAIN).read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(whole), 150):
        altered = bytearray(whole)
        altered[position] ^= int(generator.integers(1, 256))
        (tmp_path / TRAIN).write_bytes(altered)
        with contextlib.suppress(InputError):
            read_parquet(tmp_path)


def test_images_that_fit_into_no_memory_are_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path, 4, 4)
    monkeypatch.setattr(parquet, "_rows", lambda path: 10**17)  # noqa: ARG005
    assert "do not fit into memory" in refused(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == f"there is no folder {tmp_path / 'none'}"
    assert refused(tmp_path) == f"there is no train-*.parquet and test-*.parquet in {tmp_path}"


# The cache


def test_what_was_decoded_is_not_decoded_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "set", 3, 4, 4)
    first = read_parquet(tmp_path / "set")
    (kept,) = (cache / "decoded").iterdir()
    (tmp_path / "set").rename(tmp_path / "moved")
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "_decoded", None)
        again = read_parquet(tmp_path / "moved")
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype
    for changed in (lambda: read_parquet(tmp_path / "moved", Columns(size=2)), small_other(tmp_path / "moved")):
        changed()
    assert len(list((cache / "decoded").iterdir())) == 3
    assert kept.is_file()


def test_columns_that_are_named_or_found_are_kept_once(tmp_path: Path, cache: Path) -> None:
    small(tmp_path / "set", 3, 4, 4)
    for columns in (None, Columns(label="label"), Columns("img", "label")):
        read_parquet(tmp_path / "set", columns)
    assert len(list((cache / "decoded").iterdir())) == 1


def small_other(folder: Path) -> Callable[[], object]:
    def make() -> object:
        write(folder / TEST, table(pixels(3, 3, 4, 4), [0, 1, 2]))
        return read_parquet(folder)

    return make


@pytest.mark.parametrize("harm", ["truncated", "altered", "another", "text"])
def test_a_damaged_cache_is_decoded_again(
    tmp_path: Path, cache: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    small(tmp_path / "set", 3, 4, 4)
    first = read_parquet(tmp_path / "set")
    (kept,) = (cache / "decoded").iterdir()
    content = bytearray(kept.read_bytes())
    if harm == "another":
        decoded.write("0" * 64, first)
        content = bytearray(decoded.place("0" * 64).read_bytes())
    content[-1] ^= harm == "altered"
    kept.write_bytes({"truncated": content[:-9], "text": b"hello"}.get(harm, bytes(content)))
    with caplog.at_level(logging.INFO):
        assert read_parquet(tmp_path / "set").digest == first.digest
    assert "decoding again" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert read_parquet(tmp_path / "set").digest == first.digest
    assert not caplog.text


def test_where_nothing_can_be_kept_things_go_on(tmp_path: Path, cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where a folder should be")
    x_train, _ = small(tmp_path / "set", 4, 4)
    np.testing.assert_array_equal(read_parquet(tmp_path / "set").x_train, x_train)


# By name


def test_folders_are_loaded_by_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path / "mine" / "flowers", 4, 4)
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "mine"))
    monkeypatch.chdir(tmp_path)
    by_path = load(str(tmp_path / "mine" / "flowers"))
    names = ("mine/flowers", "flowers", "./mine/flowers/")
    assert len({load(name).digest for name in names} | {by_path.digest}) == 1
    assert load("flowers", columns=Columns(size=2)).inputs == (2, 2)
    small(tmp_path / "mine" / "flowers", 5, 5)
    assert load("flowers").inputs == (5, 5)  # not what was read before
    places = " or ".join(
        map(str, ["no/flowers", tmp_path / "mine/no/flowers", tmp_path / "cache/tombola/no/flowers"])
    )
    with pytest.raises(InputError) as caught:
        load("no/flowers")
    assert str(caught.value) == f"there is no data folder {places}"


@pytest.mark.parametrize("name", ["mine/train.parquet", "train.parquet"])
def test_a_file_is_not_taken_for_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, table(pixels(2, 4, 4), [0, 1]))
    with pytest.raises(InputError) as caught:
        load(name)
    assert str(caught.value) == f"data.name: {name} is a file; it should be the data set's folder"


@pytest.mark.parametrize("name", ["a" * 300, "./" + "a" * 300, "a" * 300 + ".npz"])
def test_a_name_too_long_for_a_file_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load(name)
    assert str(caught.value) == f"data.name: {Path(name)} cannot be looked at: File name too long"
