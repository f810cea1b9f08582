from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.support.datasets import (
    describe_data,
    hub_metadata,
    make_table,
    random_images,
    write_dataset,
    write_parquet,
)
from tests.support.errors import raises_input_error
from tombola.zoo.datasets import image_stack, load, prepare
from tombola.zoo.datasets.cifar import FILES, CifarSource, load_cifar
from tombola.zoo.datasets.dataset import Array, Dataset
from tombola.zoo.datasets.image_decoding import decode
from tombola.zoo.datasets.mnist import IdxFile, IdxSource, load_mnist, read_idx
from tombola.zoo.datasets.parquet_columns import Columns

needs_data = pytest.mark.skipif(not os.environ.get("TOMBOLA_DATA"), reason="TOMBOLA_DATA is not set")


@needs_data
def test_real_mnist_is_read() -> None:
    mnist = load("mnist")
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.x_train.shape == (60000, 28, 28)
    assert mnist.x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    parts = prepare(describe_data(mnist, name="mnist", validation=5000, scale="standard"))
    assert len(parts.train) == 55000
    assert parts.train.x.mean().item() == pytest.approx(0, abs=1e-3)
    assert parts.train.x.std().item() == pytest.approx(1, abs=1e-3)


def idx_bytes(array: Array) -> bytes:
    return struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def make_source(url: str = "http://127.0.0.1:9/") -> tuple[IdxSource, dict[str, bytes]]:
    """A dataset of 20 training and 10 test images, and the content of its files."""
    generator = np.random.default_rng(0)
    arrays = {
        "train-images": generator.integers(0, 256, (20, 3, 3), dtype=np.uint8),
        "train-labels": np.arange(20, dtype=np.uint8) % 10,
        "t10k-images": generator.integers(0, 256, (10, 3, 3), dtype=np.uint8),
        "t10k-labels": np.arange(10, dtype=np.uint8),
    }
    contents = {name: idx_bytes(array) for name, array in arrays.items()}
    files = [
        IdxFile(
            name,
            arrays[name].shape,
            hashlib.md5(gzip.compress(content, mtime=0)).hexdigest(),
            hashlib.md5(content).hexdigest(),
        )
        for name, content in contents.items()
    ]
    return IdxSource("small", url, tuple(files)), contents  # type: ignore[arg-type]


def write(folder: Path, contents: dict[str, bytes], zipped: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("where", ["data_dir", "environment", "cache"])
def test_files_are_found_plain_or_gzipped_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, where: str
) -> None:
    source, contents = make_source()
    folder = tmp_path / "cache" / "tombola" if where == "cache" else tmp_path / where
    write(folder / "small", contents, zipped)
    if where == "environment":
        monkeypatch.setenv("TOMBOLA_DATA", str(folder))
    dataset = load_mnist(source, folder if where == "data_dir" else None)
    assert dataset.x_train.shape == (20, 3, 3)
    assert dataset.y_train.dtype == np.int64
    assert dataset.inputs == (3, 3)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("harm", ["truncated", "altered", "other shape", "empty"])
def test_damaged_files_are_named(tmp_path: Path, harm: str, zipped: bool) -> None:
    source, contents = make_source()
    content = bytearray(contents["t10k-images"])
    if harm == "truncated":
        content = content[:-1]
    elif harm == "altered":
        content[-1] ^= 1
    elif harm == "other shape":
        content[7] = 9
    else:
        content = bytearray()
    write(tmp_path / "small", contents | {"t10k-images": bytes(content)}, zipped)
    with raises_input_error(tmp_path / "small" / "t10k-images"):
        load_mnist(source, tmp_path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    source, contents = make_source()
    write(tmp_path / "small", contents, zipped=True)
    path = tmp_path / "small" / "train-labels.gz"
    for damaged in (path.read_bytes()[:20], b"not gzip at all"):
        path.write_bytes(damaged)
        with raises_input_error(path, "damaged"):
            load_mnist(source, tmp_path)


def test_without_a_published_checksum_classes_must_be_balanced(tmp_path: Path) -> None:
    source, contents = make_source()
    files = tuple(IdxFile(f.name, f.shape, f.archive_md5) for f in source.files)
    balanced = IdxSource("small", source.url, files, balanced=True)  # type: ignore[arg-type]
    write(tmp_path / "small", contents, zipped=False)
    load_mnist(balanced, tmp_path)
    labels = bytearray(contents["train-labels"])
    labels[-1] = 0
    write(tmp_path / "small", contents | {"train-labels": bytes(labels)}, zipped=False)
    with raises_input_error("train-labels", "wrong labels"):
        load_mnist(balanced, tmp_path)


def test_an_idx_file_is_read_exactly(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", IdxFile("a", (2, 3, 4), "")), array)


SMALL = CifarSource("small", "http://127.0.0.1:9/", {"label": 3}, examples=(12, 6), side=4)


@needs_data
def test_cifar10_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decodes only every hundredth image: 60,000 take seconds."""
    blank, numbers = np.zeros((3, 32, 32), np.uint8), itertools.count()
    monkeypatch.setattr(image_stack, "decode", lambda content, _: blank if next(numbers) % 100 else decode(content))
    cifar = load("cifar10")
    assert cifar.y_train[:10].tolist() == [5, 1, 2, 5, 1, 8, 5, 4, 0, 9]
    assert cifar.y_test[:10].tolist() == [3, 8, 1, 0, 4, 0, 9, 3, 4, 9]
    assert (cifar.x_train.shape, cifar.x_test.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    np.testing.assert_allclose(cifar.x_train[::100].mean((0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=2e-2)
    assert len(list((cache / "decoded").iterdir())) == 1


def test_files_are_found_in_a_folder_with_the_name(tmp_path: Path) -> None:
    x_train, _ = write_dataset(tmp_path / "mine" / "small" / "plain_text", 3, 4, 4)
    np.testing.assert_array_equal(load_cifar(SMALL, tmp_path / "mine").x_train, x_train)
    assert load_cifar(SMALL, tmp_path / "mine", Columns(size=2)).inputs == (3, 2, 2)


def test_fine_labels_are_the_default(tmp_path: Path) -> None:
    for name, count in zip(FILES, (12, 6), strict=True):
        metadata = hub_metadata(img="Image", label=6, coarse=2)
        fine = [i % 6 for i in range(count)]
        coarse = pa.array([label // 3 for label in fine])
        rows = make_table(random_images(count, 3, 4, 4), fine, metadata, coarse=coarse)
        write_parquet(tmp_path / "small" / name, rows)
    source = replace(SMALL, classes={"label": 6, "coarse": 2})
    assert load_cifar(source, tmp_path).y_test.tolist() == [0, 1, 2, 3, 4, 5]
    assert load_cifar(source, tmp_path, Columns(label="coarse")).y_test.tolist() == [0, 0, 0, 1, 1, 1]
    for invalid in ("other", "img"):
        with raises_input_error(tmp_path / "small", invalid, "data.label to label or coarse"):
            load_cifar(source, tmp_path, Columns(label=invalid))


def write_with_label_column(folder: Path, label: str, **more: pa.Array) -> None:
    """Write the dataset of `SMALL` with another name for its label column."""
    for name, count in zip(FILES, (12, 6), strict=True):
        rows = make_table(random_images(count, 3, 4, 4), [i % 3 for i in range(count)])
        rows = rows.rename_columns(["img", label])
        for other, values in more.items():
            rows = rows.append_column(other, values[:count])
        write_parquet(folder / name, rows)


def test_the_only_label_column_may_have_another_name(tmp_path: Path) -> None:
    write_with_label_column(tmp_path / "small", "labels")
    for columns in (None, Columns(label="labels")):
        assert load_cifar(SMALL, tmp_path, columns).y_test.tolist() == [0, 1, 2, 0, 1, 2]
    with raises_input_error(tmp_path / "small", "data.label to labels"):
        load_cifar(SMALL, tmp_path, Columns(label="label"))
    with raises_input_error(tmp_path / "small", "4 classes"):
        load_cifar(replace(SMALL, classes={"label": 4}), tmp_path)


def test_coarse_labels_are_never_used_by_default(tmp_path: Path) -> None:
    write_with_label_column(tmp_path / "small", "coarse")
    source = replace(SMALL, classes={"label": 6, "coarse": 3})
    with raises_input_error(tmp_path / "small", "data.label to coarse"):
        load_cifar(source, tmp_path)
    write_with_label_column(tmp_path / "small", "labels", index=pa.array(range(12)))
    with raises_input_error(tmp_path / "small", "no column label or coarse"):
        load_cifar(source, tmp_path)


def test_an_interrupted_download_is_completed(server: tuple[str, Path], cache: Path) -> None:
    url, served = server
    write_dataset(served, 3, 4, 4)
    (cache / "small").mkdir(parents=True)
    (served / FILES[0]).rename(cache / "small" / FILES[0])
    assert load_cifar(replace(SMALL, url=url), None).inputs == (3, 4, 4)


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        (replace(SMALL, side=5), ["(3, 4, 4)"]),
        (replace(SMALL, examples=(15, 6)), ["12 training examples", "5 of each of 3"]),
        (replace(SMALL, examples=(12, 9)), ["6 test examples", "3 of each of 3"]),
        (replace(SMALL, classes={"label": 2}), ["12 training examples", "6 of each of 2"]),
    ],
)
def test_datasets_of_another_size_are_refused(tmp_path: Path, source: CifarSource, facts: list[str]) -> None:
    write_dataset(tmp_path / "small", 3, 4, 4)
    with raises_input_error(tmp_path / "small", *facts):
        load_cifar(source, tmp_path)


def published(kind: str, folder: Path, url: str = SMALL.url) -> tuple[Callable[[Path | None], Dataset], list[str]]:
    """The loader of a small dataset at `url`, and the files there, which are written to `folder`."""
    if kind == "cifar":
        write_dataset(folder, 3, 4, 4)
        return partial(load_cifar, replace(SMALL, url=url)), list(FILES)
    source, contents = make_source(url)
    write(folder, contents, zipped=True)
    return partial(load_mnist, source), [f"{name}.gz" for name in contents]


@pytest.mark.parametrize("kind", ["mnist", "cifar"])
def test_files_are_downloaded_once(kind: str, server: tuple[str, Path], cache: Path) -> None:
    url, served = server
    load_from, files = published(kind, served, url)
    downloaded = load_from(None)
    assert sorted(path.name for path in (cache / "small").iterdir()) == sorted(files)
    for path in served.iterdir():
        path.unlink()
    assert load_from(None).digest == downloaded.digest


@pytest.mark.parametrize("kind", ["mnist", "cifar"])
def test_an_invalid_download_is_not_kept(kind: str, server: tuple[str, Path], cache: Path) -> None:
    url, served = server
    load_from, files = published(kind, served, url)
    for file in files:
        (served / file).write_text("<html>log in to the hotel's network</html>")
    with raises_input_error(url, "downloaded"):
        load_from(None)
    assert not list((cache / "small").iterdir())


@pytest.mark.parametrize("kind", ["mnist", "cifar"])
def test_without_a_network_the_missing_file_and_the_folders_searched_are_named(
    kind: str, tmp_path: Path, cache: Path
) -> None:
    load_from, files = published(kind, tmp_path / "elsewhere")
    with raises_input_error(
        '"small"', files[0], tmp_path / "mine" / "small", cache / "small", SMALL.url, "--data-dir"
    ):
        load_from(tmp_path / "mine")
