"""Images in a folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.datasets import encode, random_images
from tests.support.errors import raises_input_error
from tombola.zoo.datasets import load
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.parquet_columns import Columns

FULL = [f"{part}/{name}/{i}.png" for part in ("train", "test") for name in ("dog", "cat") for i in range(3)]
FLAT = [f"{name}/{i}.png" for name in ("dog", "cat") for i in range(10)]


def write_images(folder: Path, names: list[str], *shape: int) -> dict[str, Array]:
    """Write random images; return them by name."""
    images = dict(zip(names, random_images(len(names), *(shape or (4, 4)), seed=len(names)), strict=True))
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {".jpg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}.get(Path(name).suffix.lower(), "PNG")
        (folder / name).write_bytes(encode(image, kind))
    return images


@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val"), ("Training", "Testing"), ("TRAIN", "valid")])
@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 5)])
def test_training_and_test_images_are_read_by_class(
    tmp_path: Path, parts: tuple[str, str], shape: tuple[int, ...]
) -> None:
    names = [name.replace("train", parts[0]).replace("test", parts[1]) for name in FULL]
    images = write_images(tmp_path, names, *shape)
    dataset = load(str(tmp_path))
    for part, x, y in (
        (parts[0], dataset.x_train, dataset.y_train),
        (parts[1], dataset.x_test, dataset.y_test),
    ):
        np.testing.assert_array_equal(x, [images[name] for name in sorted(images) if name.startswith(f"{part}/")])
        assert y.tolist() == [0, 0, 0, 1, 1, 1]  # cat, dog
    assert dataset.notes == ()


def test_every_image_is_in_one_part_if_there_is_no_test_set(tmp_path: Path) -> None:
    images = write_images(tmp_path, FLAT)
    dataset = load(str(tmp_path))
    assert dataset.y_train.tolist() == [0] * 8 + [1] * 8
    assert dataset.y_test.tolist() == [0, 0, 1, 1]
    read = [image.tobytes() for image in (*dataset.x_train, *dataset.x_test)]
    assert sorted(read) == sorted(image.tobytes() for image in images.values())
    assert any("4 of 20" in note for note in dataset.notes)


def test_the_names_of_images_decide_nothing(tmp_path: Path) -> None:
    images = write_images(tmp_path / "a", FLAT)
    for i, (name, image) in enumerate(images.items()):
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).with_name(f"{99 - i}.png").write_bytes(encode(image))
    a, b = load(str(tmp_path / "a")), load(str(tmp_path / "b"))
    for x, y in ((a.x_train, b.x_train), (a.x_test, b.x_test)):
        assert {image.tobytes() for image in x} == {image.tobytes() for image in y}


def test_a_training_folder_without_a_test_folder_is_divided(tmp_path: Path) -> None:
    write_images(tmp_path, [name for name in FULL if name.startswith("train")])
    assert len(load(str(tmp_path)).x_test) == 2


def test_hidden_and_other_files_are_ignored_and_sub_folders_are_read(tmp_path: Path) -> None:
    images = write_images(tmp_path, [*FULL, "train/cat/more/9.png"])
    for name in ("train/.ipynb_checkpoints/1.png", "train/cat/.2.png", "__MACOSX/train/cat/1.png", "train/cat/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not an image")
    dataset = load(str(tmp_path))
    assert dataset.y_train.tolist() == [0] * 4 + [1] * 3
    np.testing.assert_array_equal(dataset.x_train[3], images["train/cat/more/9.png"])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{name}/{i}.png" for name in ("bus", "train") for i in range(5)])
    assert load(str(tmp_path)).y_train.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".webp", ".jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, [str(Path(name).with_suffix(suffix)) for name in FULL], 3, 4, 4)
    assert load(str(tmp_path)).x_train.shape == (6, 3, 4, 4)


def test_grey_and_colour_images_are_mixed_as_colours(tmp_path: Path) -> None:
    grey = write_images(tmp_path, FULL)["train/cat/0.png"]
    write_images(tmp_path, ["test/dog/9.png"], 3, 4, 4)
    dataset = load(str(tmp_path))
    assert (dataset.x_train.shape, dataset.x_test.shape) == ((6, 3, 4, 4), (7, 3, 4, 4))
    np.testing.assert_array_equal(dataset.x_train[0], [grey] * 3)


def test_images_of_different_sizes_need_a_size(tmp_path: Path) -> None:
    write_images(tmp_path, FULL)
    write_images(tmp_path, ["train/dog/9.png"], 5, 7)
    with raises_input_error(tmp_path / "train/dog/9.png", "5 x 7", "4 x 4", "data.size"):
        load(str(tmp_path))
    assert load(str(tmp_path), columns=Columns(size=3)).inputs == (3, 3)


def test_a_changed_image_is_noticed(tmp_path: Path) -> None:
    write_images(tmp_path, FULL)
    before = load(str(tmp_path)).digest
    (tmp_path / "train/cat/0.png").write_bytes(encode(random_images(1, 4, 4, seed=9)[0]))
    assert load(str(tmp_path)).digest != before


def test_images_outside_the_classes_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, [*FULL, "train/x.png", "train/y.png"])
    assert any("2 images" in note and "x.png" in note for note in load(str(tmp_path)).notes)


def test_parts_of_unknown_names_are_pointed_out(tmp_path: Path) -> None:
    write_images(tmp_path, [f"seg_{name}" for name in FULL])
    assert any("seg_test and seg_train" in note for note in load(str(tmp_path)).notes)


def as_text(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not an image")


@pytest.mark.parametrize(
    ("names", "damaged", "facts"),
    [
        (FULL, "train/cat/9.png", ["train/cat/9.png", "not an image"]),
        (FULL, "train/bird/1.txt", ["train/bird", "no images"]),
        ([*FULL, "test/cow/1.png"], None, ["test/cow", "no training images", "cow"]),
        (["test/cat/1.png", "test/dog/1.png"], None, ["no folder train"]),
        (["train/1.png", "train/2.png", "test/1.png"], None, ["train has no folders"]),
        (["cat/1.png", "cat/2.png"], None, ["one folder only", "cat"]),
        (["1.png", "2.png"], None, ["holds no dataset", "train.csv", "*.parquet", "CLASS"]),
        ([], "1.txt", ["holds no dataset"]),
        (FULL, "train.csv", ["both", "train.csv"]),
    ],
)
def test_unusable_folders_are_refused(
    tmp_path: Path, names: list[str], damaged: str | None, facts: list[str]
) -> None:
    write_images(tmp_path, names)
    if damaged:
        as_text(tmp_path / damaged)
    with raises_input_error(tmp_path, *facts):
        load(str(tmp_path))


@pytest.mark.parametrize("option", [{"image": "img"}, {"label": "y"}], ids=str)
def test_options_of_tables_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    write_images(tmp_path, FULL)
    with raises_input_error(f"data.{next(iter(option))}"):
        load(str(tmp_path), columns=Columns(**option))


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "a", FULL)
    first = load(str(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.setattr("tombola.zoo.datasets.image_stack.decode", None)
    assert load(str(tmp_path / "b")).digest == first.digest
