from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import os
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tombola.errors import InputError
from tombola.run import Data
from tombola.zoo import data as zoo
from tombola.zoo.data import load, prepare
from tombola.zoo.data.dataset import Array, Dataset
from tombola.zoo.data.idx import FASHION_MNIST, MNIST, IdxFile, IdxSource, load_idx, read_idx
from tombola.zoo.data.split import scale, split

DATA = os.environ.get("TOMBOLA_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="TOMBOLA_DATA is not set: no real MNIST")


@pytest.fixture(autouse=True)
def _nothing_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    zoo._named.cache_clear()
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache" / name))


def test_digits_are_real_and_always_divided_alike() -> None:
    digits = load("digits")
    assert digits.x_train.shape == (1197, 8, 8)
    assert digits.x_test.shape == (600, 8, 8)
    assert (digits.x_train.min(), digits.x_train.max(), digits.classes) == (0, 1, 10)
    assert digits.digest == load("digits").digest == "d9368b8a55d670342d8eaa381569f158"
    images = {image.tobytes() for image in digits.x_train}
    shared = sum(image.tobytes() in images for image in digits.x_test)
    assert shared == 0  # no test image was trained on


def test_unknown_data_sets_get_the_nearest_name() -> None:
    with pytest.raises(InputError, match='unknown data set "fashion_mnist": did you mean "fashion-mnist"'):
        load("fashion_mnist")


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


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


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


# The user's own arrays


def arrays(**changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    good: dict[str, Any] = {
        "x_train": generator.random((30, 4)),
        "y_train": np.arange(30) % 3,
        "x_test": generator.random((12, 4)),
        "y_test": np.arange(12) % 3,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def test_ones_own_arrays_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.npz").write_bytes((tmp_path / "mine.npz").read_bytes())
    for dataset in (load(str(tmp_path / "mine.npz")), load("mine.npz", tmp_path), load("other.npz")):
        assert dataset.inputs == (4,)
        assert dataset.classes == 3
        assert dataset.y_train.dtype == np.int64


def test_labels_may_be_floats_that_are_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(y_train=np.arange(30) % 3 * 1.0))
    assert load(str(tmp_path / "mine.npz")).y_train.dtype == np.int64


def with_nan(shape: tuple[int, ...]) -> Array:
    array = np.zeros(shape)
    array.flat[3] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "y_test missing; it should have x_train, y_train, x_test, y_test"),
        ({"x_train": None, "y_test": None}, "x_train, y_test missing"),
        ({"y_train": np.arange(29) % 3}, "x_train has 30 examples and y_train has 29 labels"),
        ({"x_train": with_nan((30, 4))}, "x_train has NaN or infinite values"),
        ({"x_test": np.full((12, 4), np.inf)}, "x_test has NaN or infinite values"),
        ({"y_train": np.arange(30) % 3 - 1}, "y_train should be whole numbers from 0"),
        ({"y_train": np.arange(30) % 3 + 0.5}, "y_train should be whole numbers from 0"),
        ({"y_test": np.arange(12) % 4}, "y_test has a label 3, out of range: y_train has 0 to 2"),
        ({"y_train": np.arange(30) * 1000}, "y_train has a label 29000, out of range"),
        ({"x_test": np.zeros((12, 5))}, "should have one shape, not (4,) and (5,)"),
        ({"x_train": np.zeros(30)}, "x_train should have shape (examples, ...)"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0)}, "x_train should have shape (examples, ...)"),
        ({"y_train": np.zeros((30, 3))}, "y_train should have shape (examples,)"),
        ({"x_train": np.array([["a"] * 4] * 30)}, "x_train should be numbers"),
        ({"y_train": np.array(["cat"] * 30)}, "y_train should be whole numbers"),
        ({"x_train": np.array([[None] * 4] * 30)}, "cannot be read as an .npz file of plain arrays"),
    ],
)
def test_unfit_arrays_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, allow_pickle=True, **arrays(**changes))
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_npz_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data file .*none\.npz or .*none\.npz"):
        load("none.npz", tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"text\.npz cannot be read"):
        load(str(tmp_path / "text.npz"))
    np.savez(tmp_path / "cut.npz", **arrays())
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.npz cannot be read"):
        load(str(tmp_path / "cut.npz"))
    np.savez_compressed(tmp_path / "zip.npz", **arrays())
    content = bytearray((tmp_path / "zip.npz").read_bytes())
    for position in range(0, len(content), 7):
        altered = bytearray(content)
        altered[position] ^= 0xFF
        (tmp_path / "altered.npz").write_bytes(altered)
        with contextlib.suppress(InputError):  # and nothing else is raised
            load(str(tmp_path / "altered.npz"))


# Dividing and scaling


def dataset(x: Array) -> Dataset:
    labels = np.arange(len(x)) % 3
    return Dataset(x, labels, x[:5] if len(x) > 5 else x, labels[:5])


def described(whole: Dataset, **changes: Any) -> Data:
    return Data(**{"name": "any", "digest": whole.digest, "seed": 0, "validation": 6, **changes})


def test_validation_examples_are_held_out_of_training() -> None:
    whole = dataset(np.arange(20, dtype=np.float32).reshape(20, 1))
    parts = split(whole, described(whole))
    everything = (part[torch.arange(len(part))][0] for part in (parts.train, parts.validation))
    train, validation = (set(x.flatten().tolist()) for x in everything)
    assert (len(train), len(validation)) == (14, 6)
    assert train | validation == set(range(20))
    for x, y in zip(parts.train.x.flatten().tolist(), parts.train.y.tolist(), strict=True):
        assert y == int(x) % 3
    other = split(whole, described(whole, seed=1))
    assert set(other.validation.x.flatten().tolist()) != validation


@pytest.mark.parametrize("validation", [0, 20, 21])
def test_something_must_be_left_to_train_and_to_validate_on(validation: int) -> None:
    whole = dataset(np.zeros((20, 1), dtype=np.float32))
    with pytest.raises(InputError, match=r"data\.validation: should be from 1 to 19"):
        split(whole, described(whole, validation=validation))


def test_a_fraction_of_the_training_examples_lies_within_a_larger_one() -> None:
    digits = load("digits")
    whole, half, tenth = (
        split(digits, described(digits, validation=200, fraction=fraction)) for fraction in (1.0, 0.5, 0.1)
    )
    assert [len(part.train) for part in (whole, half, tenth)] == [997, 498, 100]
    rows = [set(part.train.places(torch.arange(len(part.train))).tolist()) for part in (whole, half, tenth)]
    assert rows[2] < rows[1] < rows[0]
    assert torch.equal(half.validation.x, whole.validation.x)
    assert len(split(digits, described(digits, validation=200, fraction=1e-9)).train) == 1


def test_exactly_so_many_labels_are_drawn_anew_and_none_to_validate_or_test_by() -> None:
    digits = load("digits")
    before = digits.y_train.copy()
    clean, noisy = (split(digits, described(digits, validation=200, label_noise=noise)) for noise in (0.0, 0.4))
    everything = torch.arange(len(clean.train))
    (_, right), (_, drawn) = clean.train[everything], noisy.train[everything]
    wrong = int((right != drawn).sum())
    assert 0.8 * 0.4 * 997 < wrong <= round(0.4 * 997)  # one in ten is drawn as it was
    assert torch.equal(noisy.validation.y, clean.validation.y)
    assert torch.equal(noisy.test.y, clean.test.y)
    assert torch.equal(split(digits, described(digits, label_noise=0.4, validation=200)).train[everything][1], drawn)
    assert not torch.equal(
        split(digits, described(digits, label_noise=0.4, validation=200, seed=4)).train.y, noisy.train.y
    )
    assert (digits.y_train == before).all()
    all_random = split(digits, described(digits, label_noise=1.0, validation=200)).train[everything][1]
    assert 0.03 < (all_random == right).float().mean() < 0.2


def test_pixels_are_scaled_to_at_most_one_and_floats_left_alone() -> None:
    (pixels,) = scale("range", np.array([[0, 51, 255]], dtype=np.uint8))
    np.testing.assert_allclose(pixels, [[0, 0.2, 1]])
    (floats,) = scale("range", np.array([[0.5, -3.0]]))
    np.testing.assert_array_equal(floats, np.array([[0.5, -3.0]], dtype=np.float32))
    (integers,) = scale("range", np.array([[0, 51, 255]]))  # int64 are numbers, not pixels
    np.testing.assert_array_equal(integers, [[0, 51, 255]])
    assert pixels.dtype == floats.dtype == integers.dtype == np.float32


def test_unit_norm_makes_every_example_of_length_one() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((10, 3, 4))
    x[0] = 0
    (scaled,) = scale("unit-norm", x)
    np.testing.assert_allclose(np.linalg.norm(scaled.reshape(10, -1), axis=1), [0] + [1] * 9, rtol=1e-6)


@pytest.mark.parametrize("shape", [(50, 6), (50, 6, 7), (50, 3, 6, 7)])
def test_standard_is_by_feature_or_channel_and_by_training_examples_alone(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    train, other = generator.normal(3, 5, shape), generator.normal(100, 1, shape)
    scaled, scaled_other = scale("standard", train, other)
    axes = {2: (0,), 3: (0, 1, 2), 4: (0, 2, 3)}[len(shape)]
    np.testing.assert_allclose(scaled.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=axes), 1, rtol=1e-4)
    assert scaled_other.mean() > 10


def test_a_constant_feature_stays_finite() -> None:
    (scaled,) = scale("standard", np.ones((10, 2)))
    assert not scaled.any()


def test_a_run_is_not_trained_on_data_that_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    data = described(load(str(path)), name=str(path))
    np.savez(path, **arrays(x_train=np.ones((30, 4))))
    with pytest.raises(InputError, match="has changed"):
        prepare(data)
