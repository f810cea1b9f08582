"""A test set is held out of data that comes without one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.errors import raises_input_error
from tombola.zoo.datasets.holdout import hold_out


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(bytes([i])).digest() for i in range(count)]


@given(st.lists(st.integers(0, 3), min_size=5, max_size=60), st.randoms(use_true_random=False))
def test_a_fifth_of_each_class_is_held_out_in_any_order(labels: list[int], random: object) -> None:
    if len(set(labels)) > 1 and max(map(labels.count, labels)) < 2:
        return
    content = digests(len(labels))
    test, _ = hold_out("here", np.array(labels), content)
    for label in set(labels):
        count = labels.count(label)
        held_out = sum(test[i] for i in range(len(labels)) if labels[i] == label)
        assert held_out == (0 if count == 1 else max(1, round(count / 5)))
    order = list(range(len(labels)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled, _ = hold_out("here", np.array(labels)[order], [content[i] for i in order])
    np.testing.assert_array_equal(shuffled, test[order])


def test_the_line_has_the_numbers() -> None:
    test, line = hold_out("here", np.arange(40) % 2, digests(40))
    assert test.sum() == 8
    assert "8 of 40" in line


@pytest.mark.parametrize("count", [1, 7])
def test_classes_of_one_example_cannot_be_divided(count: int) -> None:
    with raises_input_error("here", "two examples"):
        hold_out("here", np.arange(count), digests(count))
