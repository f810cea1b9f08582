from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tombola.utils.errors import InputError
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.idx import FASHION_MNIST, MNIST, IdxFile, IdxSource, load_idx, read_idx
from tombola.zoo.datasets.registry import load

needs_data = pytest.mark.skipif(not os.environ.get("TOMBOLA_DATA"), reason="TOMBOLA_DATA is not set: no real MNIST")


@needs_data
def test_mnist_is_the_published_one() -> None:
    mnist = load("mnist")
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.x_train.shape == (60000, 28, 28)
    assert mnist.x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    data = Data(name="mnist", digest=mnist.digest, seed=0, validation=5000, scale="standard")
    parts = prepare(data)
    assert len(parts.train) == 55000
    assert parts.train.x.mean().item() == pytest.approx(0, abs=1e-3)
    assert parts.train.x.std().item() == pytest.approx(1, abs=1e-3)


# IDX files, small enough to make here


def idx_bytes(array: Array) -> bytes:
    return struct.pack(f">{1 + array.ndim}i", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def make_source(url: str = "http://127.0.0.1:9/") -> tuple[IdxSource, dict[str, bytes]]:
    """A data set of 20 training and 10 test images, and the content of its files."""
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
def test_idx_files_are_found_plain_or_gzipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, where: str
) -> None:
    source, contents = make_source()
    folder = tmp_path / "cache" / "tombola" if where == "cache" else tmp_path / where
    write(folder / "small", contents, zipped)
    if where == "environment":
        monkeypatch.setenv("TOMBOLA_DATA", str(folder))
    dataset = load_idx(source, folder if where == "data_dir" else None)
    assert dataset.x_train.shape == (20, 3, 3)
    assert dataset.y_train.dtype == np.int64
    assert dataset.inputs == (3, 3)


def test_files_are_downloaded_once_and_their_checksums_verified(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, served = server
    source, contents = make_source(url)
    write(served, contents, zipped=True)
    first = load_idx(source, None)
    assert sorted(p.name for p in (tmp_path / "cache" / "tombola" / "small").iterdir()) == sorted(
        f"{name}.gz" for name in contents
    )
    for path in served.iterdir():
        path.unlink()
    assert load_idx(source, None).digest == first.digest


def test_a_download_of_something_else_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    url, served = server
    source, contents = make_source(url)
    write(served, dict.fromkeys(contents, b"<html>log in to the hotel's network</html>"), zipped=True)
    with pytest.raises(InputError, match="could not be downloaded") as caught:
        load_idx(source, None)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "tombola" / "small").iterdir())


def test_without_a_network_the_error_says_where_it_looked_and_what_it_wants(tmp_path: Path) -> None:
    source, _ = make_source()
    with pytest.raises(InputError) as caught:
        load_idx(source, tmp_path / "mine")
    for part in ("no train-images or train-images.gz", str(tmp_path / "mine" / "small"), str(tmp_path / "cache")):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


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
    with pytest.raises(InputError, match="t10k-images"):
        load_idx(source, tmp_path)


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    source, contents = make_source()
    write(tmp_path / "small", contents, zipped=True)
    path = tmp_path / "small" / "train-labels.gz"
    for harmed in (path.read_bytes()[:20], b"not gzip at all"):
        path.write_bytes(harmed)
        with pytest.raises(InputError, match=r"train-labels\.gz is damaged"):
            load_idx(source, tmp_path)


def test_labels_stand_in_for_an_unpublished_checksum(tmp_path: Path) -> None:
    source, contents = make_source()
    files = tuple(IdxFile(f.name, f.shape, f.archive_md5) for f in source.files)
    balanced = IdxSource("small", source.url, files, per_class=True)  # type: ignore[arg-type]
    write(tmp_path / "small", contents, zipped=False)
    load_idx(balanced, tmp_path)
    labels = bytearray(contents["train-labels"])
    labels[-1] = 0
    write(tmp_path / "small", contents | {"train-labels": bytes(labels)}, zipped=False)
    with pytest.raises(InputError, match="train-labels is not the published file"):
        load_idx(balanced, tmp_path)


def test_the_published_sources_are_complete() -> None:
    for source in (MNIST, FASHION_MNIST):
        assert [file.shape for file in source.files] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
        assert len({file.archive_md5 for file in source.files}) == 4


def test_an_idx_file_is_read_as_it_is(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a", IdxFile("a", (2, 3, 4), "")), array)
