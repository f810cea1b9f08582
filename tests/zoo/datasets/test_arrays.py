from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.zoo.datasets.helpers import arrays
from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array
from tombola.zoo.datasets.registry import load


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
