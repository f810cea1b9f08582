from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.zoo.datasets.pictures import described, pixels, small, table, write
from tombola.utils.errors import InputError
from tombola.zoo.datasets import parquet
from tombola.zoo.datasets.cifar import CIFAR10, CIFAR100, FILES, CifarSource, load_cifar
from tombola.zoo.datasets.columns import Columns
from tombola.zoo.datasets.images import decode
from tombola.zoo.datasets.registry import load

needs_data = pytest.mark.skipif(
    not os.environ.get("TOMBOLA_DATA"), reason="TOMBOLA_DATA is not set: no real CIFAR-10"
)

SMALL = CifarSource("small", "http://127.0.0.1:9/", {"label": 3}, examples=(12, 6), side=4)


@needs_data
def test_cifar10_is_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only every hundredth image is decoded, since 60,000 take seconds."""
    blank, numbers = np.zeros((3, 32, 32), np.uint8), itertools.count()
    monkeypatch.setattr(parquet, "decode", lambda content, _: blank if next(numbers) % 100 else decode(content))
    cifar = load("cifar10")
    assert cifar.y_train[:10].tolist() == [5, 1, 2, 5, 1, 8, 5, 4, 0, 9]
    assert cifar.y_test[:10].tolist() == [3, 8, 1, 0, 4, 0, 9, 3, 4, 9]
    assert (cifar.x_train.shape, cifar.x_test.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    np.testing.assert_allclose(cifar.x_train[::100].mean((0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=2e-2)
    assert len(list((cache / "decoded").iterdir())) == 1


def test_the_published_sources_are_described() -> None:
    assert (CIFAR10.classes, CIFAR100.classes) == ({"label": 10}, {"fine_label": 100, "coarse_label": 20})
    for source in (CIFAR10, CIFAR100):
        assert source.url.startswith(f"https://huggingface.co/datasets/uoft-cs/{source.name}/resolve/")


def test_files_are_found_in_a_folder_of_the_name(tmp_path: Path) -> None:
    x_train, _ = small(tmp_path / "mine" / "small" / "plain_text", 3, 4, 4)
    np.testing.assert_array_equal(load_cifar(SMALL, tmp_path / "mine").x_train, x_train)
    assert load_cifar(SMALL, tmp_path / "mine", Columns(size=2)).inputs == (3, 2, 2)


def test_the_usual_labels_are_the_fine_ones(tmp_path: Path) -> None:
    for name, count in zip(FILES, (12, 6), strict=True):
        about = described(img="Image", label=6, coarse=2)
        fine = [i % 6 for i in range(count)]
        rows = table(pixels(count, 3, 4, 4), fine, about, coarse=pa.array([label // 3 for label in fine]))
        write(tmp_path / "small" / name, rows)
    source = replace(SMALL, classes={"label": 6, "coarse": 2})
    assert load_cifar(source, tmp_path).y_test.tolist() == [0, 1, 2, 3, 4, 5]
    assert load_cifar(source, tmp_path, Columns(label="coarse")).y_test.tolist() == [0, 0, 0, 1, 1, 1]
    for wrong in ("other", "img"):
        with pytest.raises(InputError) as caught:
            load_cifar(source, tmp_path, Columns(label=wrong))
        assert str(caught.value) == (
            f"{tmp_path / 'small'}: no labels {wrong} of small; set data.label to label or coarse"
        )


def renamed(folder: Path, label: str, **more: pa.Array) -> None:
    """Write what `SMALL` describes, its labels in a column of another name."""
    for name, count in zip(FILES, (12, 6), strict=True):
        rows = table(pixels(count, 3, 4, 4), [i % 3 for i in range(count)]).rename_columns(["img", label])
        for other, values in more.items():
            rows = rows.append_column(other, values[:count])
        write(folder / name, rows)


def test_the_only_column_of_labels_may_have_another_name(tmp_path: Path) -> None:
    renamed(tmp_path / "small", "labels")
    for columns in (None, Columns(label="labels")):
        assert load_cifar(SMALL, tmp_path, columns).y_test.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(InputError, match=r"no labels label of small; set data\.label to labels$"):
        load_cifar(SMALL, tmp_path, Columns(label="label"))
    with pytest.raises(InputError, match="are not 3 of each of 4 classes"):
        load_cifar(replace(SMALL, classes={"label": 4}), tmp_path)


def test_only_columns_that_would_do_are_suggested(tmp_path: Path) -> None:
    renamed(tmp_path / "small", "coarse")
    source = replace(SMALL, classes={"label": 6, "coarse": 3})
    with pytest.raises(InputError, match=r"no labels label of small; set data\.label to coarse$"):
        load_cifar(source, tmp_path)  # never the coarse ones without a word
    renamed(tmp_path / "small", "labels", index=pa.array(range(12)))
    with pytest.raises(InputError, match=r"does not hold small: it has no column label or coarse$"):
        load_cifar(source, tmp_path)


def test_files_are_downloaded_once(server: tuple[str, Path], cache: Path) -> None:
    url, served = server
    small(served, 3, 4, 4)
    source = replace(SMALL, url=url)
    first = load_cifar(source, None)
    assert sorted(path.name for path in (cache / "small").iterdir()) == sorted(FILES)
    for path in served.iterdir():
        path.unlink()
    assert load_cifar(source, None).digest == first.digest


def test_an_interrupted_download_is_taken_up(server: tuple[str, Path], cache: Path) -> None:
    url, served = server
    small(served, 3, 4, 4)
    source = replace(SMALL, url=url)
    (cache / "small").mkdir(parents=True)
    (served / FILES[0]).rename(cache / "small" / FILES[0])
    assert load_cifar(source, None).inputs == (3, 4, 4)


def test_a_download_of_something_else_is_refused(server: tuple[str, Path], cache: Path) -> None:
    url, served = server
    (served / FILES[0]).write_text("<html>log in to the hotel's network</html>")
    with pytest.raises(InputError, match=r"could not be downloaded from .*\(what came is not a Parquet file\)"):
        load_cifar(replace(SMALL, url=url), None)
    assert not list((cache / "small").iterdir())


def test_without_a_network_the_error_says_where_it_looked_and_what_it_wants(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_cifar(SMALL, tmp_path / "mine")
    message = str(caught.value)
    looked = f'data set "small": no {FILES[0]} and {FILES[1]} (or the like) in {tmp_path / "mine" / "small"}, '
    assert message.startswith(looked)
    assert f"{cache / 'small'}, and it could not be downloaded from http://127.0.0.1:9/ (" in message
    assert message.endswith("; name the folder above with --data-dir")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (replace(SMALL, side=5), "does not hold small: its images have shape (3, 4, 4)"),
        (
            replace(SMALL, examples=(15, 6)),
            "does not hold small: its 12 training examples are not 5 of each of 3 classes",
        ),
        (replace(SMALL, examples=(12, 9)), "does not hold small: its 6 test examples are not 3 of each of 3 classes"),
        (
            replace(SMALL, classes={"label": 2}),
            "does not hold small: its 12 training examples are not 6 of each of 2 classes",
        ),
    ],
)
def test_other_images_are_refused(tmp_path: Path, source: CifarSource, message: str) -> None:
    small(tmp_path / "small", 3, 4, 4)
    with pytest.raises(InputError) as caught:
        load_cifar(source, tmp_path)
    assert str(caught.value) == f"{tmp_path / 'small'} {message}"
