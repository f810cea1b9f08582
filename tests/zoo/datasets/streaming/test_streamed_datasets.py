"""Streamed datasets: the same examples as in memory, whatever the files, and the same errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.support.datasets import (
    TEST,
    TRAIN,
    encode,
    make_table,
    npz_arrays,
    random_images,
    write_dataset,
    write_parquet,
)
from tests.support.errors import raises_input_error
from tests.support.image_folders import write_class_folders, write_shards
from tombola.experiments.sections import DataSection
from tombola.zoo.datasets import load, prepare
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.split import Split
from tombola.zoo.datasets.streaming import image_index
from tombola.zoo.datasets.streaming.streamed_dataset import StreamedDataset

STANDARD = {"scale": "standard", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


def streamed(folder: Path, **columns: Any) -> StreamedDataset:
    dataset = load(str(folder), None, Columns(stream=True, **columns))
    assert isinstance(dataset, StreamedDataset)
    return dataset


def split_of(folder: Path, **changes: Any) -> Split:
    options: dict[str, Any] = {"name": str(folder), "seed": 0, "validation": 6, **changes}
    columns = Columns(size=options.get("size"), stream=options.get("stream", False))
    return prepare(Data(**options, digest=load(str(folder), None, columns).digest))


def write(folder: Path, layout: str) -> Path:
    if layout == "parquet":
        write_dataset(folder, 3, 4, 5, train=30)
    elif layout == "grey":
        write_dataset(folder, 4, 5, train=30)
    else:
        write_class_folders(folder, "train", 10, kind="PNG")
        write_class_folders(folder, "test", 3, kind="PNG")
    return folder


@pytest.mark.parametrize("layout", ["folders", "parquet", "grey"])
@pytest.mark.parametrize("options", [{}, {"size": 3}, {"label_noise": 0.5, "fraction": 0.5}])
def test_streamed_examples_are_those_in_memory(tmp_path: Path, layout: str, options: dict[str, Any]) -> None:
    folder = write(tmp_path, layout)
    scaling = {} if layout == "grey" else STANDARD
    memory, stream = (split_of(folder, stream=stream, **scaling, **options) for stream in (False, True))
    assert stream.scaling == memory.scaling
    torch.testing.assert_close(stream.black, memory.black, rtol=0, atol=0)
    for name in ("train", "validation", "test"):
        one, other = getattr(memory, name), getattr(stream, name)
        assert len(one) == len(other)
        assert other.shape == one.shape
        if layout == "folders" or name == "test":  # otherwise whole row groups are held out
            everything = torch.arange(len(one))
            for mine, expected in zip(other[everything], one[everything], strict=True):
                assert torch.equal(mine, expected)
            in_order = [torch.cat(parts) for parts in zip(*other.in_order(4), strict=True)]
            for mine, expected in zip(in_order, one[everything], strict=True):
                assert torch.equal(mine, expected)


def test_the_order_of_image_files_is_that_in_memory(tmp_path: Path) -> None:
    folder = write(tmp_path, "folders")
    memory, stream = (split_of(folder, stream=stream).train.order(3, 7) for stream in (False, True))
    assert torch.equal(memory.batches(2, 5), stream.batches(2, 5))


def test_row_groups_are_held_out_and_shuffled_as_blocks(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", train=60) / "data"
    (folder / "test-00000-of-00001.parquet").unlink()  # its labels are hidden
    dataset = streamed(folder, size=8)
    assert dataset.train.blocks is not None
    assert np.bincount(dataset.train.blocks).tolist() == [4, 4, 4, 4, 4, 4, 4, 2] * 2  # two files
    options = {"size": 8, "stream": True, "validation": 10, "shuffle_buffer": 12}
    split = split_of(folder, **options)
    rows: Any = split.train.rows  # type: ignore[attr-defined]
    held_out: Any = split.validation.rows  # type: ignore[attr-defined]
    assert sorted([*rows, *held_out]) == list(range(60))
    blocks = dataset.train.blocks
    assert len(set(blocks[held_out])) <= 4
    assert len(set(blocks[held_out]) & set(blocks[rows])) <= 1
    epoch = rows[split.train.order(0, 50).batches(1, 1)[0].numpy()]
    assert sorted(epoch) == sorted(rows)
    assert len(set(blocks[epoch[:12]])) <= 5  # of 13 or 14
    assert (np.diff(epoch[:12]) != 1).any()


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_files_are_described_once_and_again_when_they_change(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "data", layout)
    first = streamed(folder).digest
    with monkeypatch.context() as patch:
        patch.setattr(image_index, "_describe_all", None)
        patch.setattr("tombola.zoo.datasets._load", lambda read, *arguments, **_: read(*arguments))
        assert streamed(folder).digest == first
    if layout == "folders":
        (path := sorted((folder / "train").rglob("*.PNG"))[0]).write_bytes(encode(random_images(1, 3, 12, 12)[0]))
        assert path.stat().st_size
    else:
        images = random_images(30, 3, 4, 5, seed=9)
        write_parquet(folder / TRAIN, make_table(list(images), (np.arange(30) % 3).tolist()))
    assert streamed(folder).digest != first


def test_a_damaged_index_is_made_again(tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "data", "parquet")
    first = streamed(folder).digest
    for path in (cache / "image-index").iterdir():
        path.write_bytes(b"damaged")
    (folder / "other.txt").write_text("so that the dataset is not cached")
    assert streamed(folder).digest == first


def test_a_part_of_the_images_is_held_out_if_there_is_no_test_set(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "data", "", 10)
    memory, stream = load(str(tmp_path / "data")), streamed(tmp_path / "data")
    assert len(stream.y_test) == len(memory.y_test) == 6
    assert stream.notes == memory.notes
    split = split_of(tmp_path / "data", stream=True, scale="range")
    assert torch.equal(split.test[torch.arange(6)][0], split_of(tmp_path / "data").test[torch.arange(6)][0])


def test_labels_and_images_are_checked_before_any_training(tmp_path: Path) -> None:
    images: list[Any] = [*random_images(5, 3, 4, 4), encode(random_images(1, 3, 5, 4)[0])]
    cases: dict[str, tuple[list[Any], list[Any], list[object]]] = {
        "size": (images, [0, 1] * 3, ["row 5", "5 x 4", "4 x 4", "data.size"]),
        "bytes": ([None, *images[1:5]], [0, 1, 0, 1, 0], ["row 0", "missing"]),
        "damaged": ([*images[:4], b"no image"], [0, 1, 0, 1, 0], ["row 4", "not an image"]),
        "label": (images[:5], [0, 1, 0, -1, 0], ["row 3", "-1"]),
        "classes": (images[:5], [0] * 5, ["label 1", "out of range"]),
    }
    for name, (contents, labels, facts) in cases.items():
        write_dataset(tmp_path / name, 3, 4, 4, classes=2)
        write_parquet(tmp_path / name / TRAIN, make_table(contents, labels))
        with raises_input_error(name, *facts):
            streamed(tmp_path / name)


def test_an_image_whose_pixels_are_damaged_is_found_before_any_training(tmp_path: Path) -> None:
    write_class_folders(tmp_path, "train", 4, kind="JPEG", height=60, width=60)
    write_class_folders(tmp_path, "test", 2, kind="JPEG", height=60, width=60)
    path = sorted((tmp_path / "train").rglob("*.JPEG"))[5]
    whole = path.read_bytes()
    path.write_bytes(whole[:700])  # its header is whole
    with raises_input_error(path, "decoded"):
        streamed(tmp_path)
    path.write_bytes(whole)
    split = split_of(tmp_path, stream=True, validation=1)
    path.write_bytes(whole[:700])
    with raises_input_error(path, "decoded"):
        for _ in split.train.in_order(3):
            pass


def test_a_link_to_a_missing_file_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, "folders")
    link = folder / "train" / "n01440764" / "a.png"
    link.symlink_to(tmp_path / "nowhere")
    with raises_input_error(link):
        streamed(folder)


def test_columns_of_one_file_have_their_own_index(tmp_path: Path) -> None:
    for name, count in ((TRAIN, 8), (TEST, 4)):
        images, masks = random_images(count, 3, 4, 4), random_images(count, 3, 6, 6, seed=1)
        more = pa.array([encode(mask) for mask in masks], pa.binary())
        write_parquet(tmp_path / name, make_table(list(images), [i % 2 for i in range(count)], mask=more))
    image, mask = (streamed(tmp_path, image=column) for column in ("img", "mask"))
    assert (image.inputs, mask.inputs) == ((3, 4, 4), (3, 6, 6))
    assert image.digest != mask.digest


def test_examples_are_held_out_at_random_within_a_row_group(tmp_path: Path) -> None:
    images = random_images(40, 3, 4, 4)
    for name, count in ((TRAIN, 40), (TEST, 4)):
        table = make_table(list(images[:count]), [i * 2 // count for i in range(count)])
        pq.write_table(table, tmp_path / name)
    held_out = []
    for seed in (0, 1):
        split: Any = split_of(tmp_path, stream=True, seed=seed, validation=10)
        held_out.append(set(split.validation.rows))
    assert held_out[0] != held_out[1]
    assert {int(label) for label in split.validation.y} == {0, 1}


def test_blocks_are_read_ahead_in_every_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, "parquet")
    split: Any = split_of(folder, stream=True, validation=2, shuffle_buffer=6)
    source = split.train.reader.source
    source._kept = 3
    requested: list[int] = []
    monkeypatch.setattr(source._readers, "submit", lambda call, block: requested.append(block) or call(block))
    order = split.train.order(0, 4)
    for epoch in range(3):
        requested.clear()
        for first in range(7 * epoch, 7 * epoch + 7):
            split.train.read_ahead(order, first, 1, 100)
            for x, _ in split.train.batches(order.batches(first, 1)):
                assert len(x) == 4
        assert len(requested) >= 4  # of 8 blocks, of which 3 stay in memory
    assert not source._requested


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", **npz_arrays())
    with raises_input_error("data.stream", "arrays.npz"):
        load(str(tmp_path / "arrays.npz"), None, Columns(stream=True))
    for scale in ("standard", "unit-norm"):
        with pytest.raises(ValueError, match="mean and std"):
            DataSection(name="any", validation=1, stream=True, scale=scale)
    with pytest.raises(ValueError, match="stream = true"):
        DataSection(name="any", validation=1, shuffle_buffer=5)
