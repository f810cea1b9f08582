"""Arrays that cannot be examples and classes are refused, with what would be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.datasets import npz_arrays, random_images
from tests.support.errors import raises_input_error
from tombola.zoo.datasets.checks import check_alike, check_classes, check_inputs, class_numbers
from tombola.zoo.datasets.npz import read_npz

DTYPES = ["u1", "u2", ">u2", "i1", "i2", "u4", "i8", "f2", "f4", ">f4", "f8"]
PIXELS = {"u1": 255, "u2": 65535, ">u2": 65535}


@pytest.mark.parametrize("train", DTYPES)
@pytest.mark.parametrize("test", DTYPES)
def test_types_that_are_scaled_differently_are_refused(train: str, test: str) -> None:
    x_train, x_test = (check_inputs("x", np.ones((2, 3), dtype)) for dtype in (train, test))
    if PIXELS.get(train) == PIXELS.get(test):
        check_alike("x_train", "x_test", x_train, x_test)
    else:
        with raises_input_error("x_train", "x_test", x_train.dtype, x_test.dtype, "one type"):
            check_alike("x_train", "x_test", x_train, x_test)


def test_bytes_beside_words_are_refused(tmp_path: Any) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **npz_arrays(x_train=random_images(30, 4, 4), x_test=random_images(12, 4, 4).astype("u2")))
    with raises_input_error(path, "x_train", "x_test", "uint8", "uint16"):
        read_npz(path)


def test_pixels_of_another_byte_order_are_pixels_and_other_arrays_stay_as_they_are() -> None:
    words = np.arange(600, dtype=">u2").reshape(2, 300)
    assert check_inputs("x", words).dtype == np.uint16
    np.testing.assert_array_equal(check_inputs("x", words), words)
    for dtype in ("u1", "u2", ">u4", "i8", ">f4", "f8"):
        array = np.ones((2, 3), dtype)
        assert check_inputs("x", array) is array


@pytest.mark.parametrize(
    ("array", "facts"),
    [
        (np.array([[1, np.nan], [1, 1]]), ["NaN", "example 0"]),
        (np.array([[1, 1], [1, np.inf]], np.float16), ["infinite", "example 1", "float16", "65,504"]),
        (np.full((2, 3), 1e300), ["1e+300", "float32"]),
        (np.full((2, 3), 1e-300), ["1e-300", "float32"]),
        (np.ones((2, 3), complex), ["complex128"]),
        (np.ones((2, 3), bool), ["bool", "astype"]),
        (np.ones((2, 3), "M8[s]"), ["datetime64"]),
        (np.array([["a"]]), ["numbers"]),
        (np.ones((0, 3)), ["empty", "(0, 3)"]),
        (np.ones(3), ["(3,)"]),
    ],
)
def test_unusable_inputs_are_refused(array: Any, facts: list[str]) -> None:
    with raises_input_error("mine: x", *facts):
        check_inputs("mine: x", array)


@pytest.mark.parametrize(
    ("array", "facts"),
    [
        (np.eye(3)[[0, 1, 2, 0]], ["one-hot", "argmax"]),
        (np.ones((4, 1)), ["(4, 1)", "ravel"]),
        (np.ones((4, 2, 2)), ["(4, 2, 2)"]),
        (np.array(3), ["(examples,)"]),
        (np.zeros(0), ["empty"]),
        (np.array([True, False]), ["bool", "astype(int)"]),
        (np.array(["cat", "dog"]), ["whole numbers", "numpy.unique"]),
        (np.array([-1, 1]), ["from 0", "-1"]),
        (np.array([0.5, 1]), ["whole numbers", "0.5"]),
        (np.array([np.nan, 1]), ["whole numbers", "nan"]),
        (np.array([1e300, 1]), ["1e+300", "out of range"]),
        (np.array([2**63, 1], np.uint64), ["9223372036854775808", "out of range"]),
    ],
)
def test_unusable_labels_are_refused(array: Any, facts: list[str]) -> None:
    with raises_input_error("mine: y", *facts):
        class_numbers("mine: y", array)


@given(st.lists(st.integers(0, 100), min_size=1), st.sampled_from(["i1", ">i4", "u8", "f2", "f8"]))
def test_whole_numbers_of_any_type_are_labels(labels: list[int], dtype: str) -> None:
    found = class_numbers("y", np.array(labels, dtype))
    assert found.dtype == np.int64
    assert found.tolist() == labels


def test_a_single_class_is_refused() -> None:
    with raises_input_error("y_train", "only one class, 2"):
        check_classes("y_train", "y_test", np.full(9, 2), np.full(3, 2))
