"""ImageNet and Tiny ImageNet, in the layouts in which they are distributed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.errors import raises_input_error
from tests.support.image_folders import write_imagenet, write_shards, write_tiny_imagenet
from tombola.zoo.datasets import load
from tombola.zoo.datasets.parquet_columns import Columns

LAYOUTS = {
    "imagenet": ("imagenet", write_imagenet),
    "shards": ("imagenet", write_shards),
    "tiny-imagenet-200": ("tiny-imagenet", write_tiny_imagenet),
    "tiny-imagenet": ("tiny-imagenet", write_imagenet),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_validation_set_is_the_test_set(tmp_path: Path, layout: str, stream: bool) -> None:
    name, write = LAYOUTS[layout]
    write(tmp_path / ("imagenet" if layout == "shards" else layout))
    dataset = load(name, tmp_path, Columns(size=10, stream=stream))
    assert dataset.inputs == (3, 10, 10)
    assert [sorted(y.tolist()) for y in (dataset.y_train, dataset.y_test)] == [
        sorted([0, 1, 2] * 20),
        sorted([0, 1, 2] * 5),
    ]
    assert "3 classes, 60 training and 15 validation images" in dataset.notes[0]  # not the published numbers


def test_a_missing_dataset_is_said_with_the_layout_that_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    for name, url in (("imagenet", "image-net.org"), ("tiny-imagenet", "tiny-imagenet-200.zip")):
        with raises_input_error(name, tmp_path / name, url, "train/CLASS", "validation-*.parquet"):
            load(name, tmp_path)


def test_an_incomplete_folder_is_refused(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path / "tiny-imagenet")
    with raises_input_error("data.label", "Parquet"):
        load("tiny-imagenet", tmp_path, Columns(label="label"))
    annotations = root / "val" / "val_annotations.txt"
    annotations.write_text("\n".join(annotations.read_text().splitlines()[1:]))
    with raises_input_error(annotations, "val_0.JPEG"):
        load("tiny-imagenet", tmp_path)
    write_imagenet(tmp_path / "imagenet")
    flat = tmp_path / "flat" / "imagenet"
    write_imagenet(flat)
    for path in sorted((flat / "val").rglob("*.JPEG")):
        path.rename(flat / "val" / path.name)
    for folder in [each for each in (flat / "val").iterdir() if each.is_dir()]:
        folder.rmdir()
    for stream in (False, True):
        with raises_input_error(flat / "val", "for each class"):
            load("imagenet", flat.parent, Columns(stream=stream))
    (tmp_path / "imagenet" / "val").rename(tmp_path / "elsewhere")
    with raises_input_error(tmp_path / "imagenet", "val"):
        load("imagenet", tmp_path)
