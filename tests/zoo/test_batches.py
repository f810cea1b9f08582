"""Batches of examples that are read in blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tombola.zoo.batches import BatchOrder, permute_blocks


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 3), st.integers(0, 9))
def test_an_epoch_has_every_example_and_whole_blocks(blocks: list[int], buffer: int, epoch: int, seed: int) -> None:
    numbers = np.array(blocks)
    order = BatchOrder(seed, len(blocks), len(blocks), numbers, buffer).batches(epoch, 1)[0].numpy()
    assert sorted(order) == list(range(len(blocks)))
    # An example is less than a buffer and a block away from the others of its block.
    largest = np.bincount(numbers).max()
    for block in set(blocks):
        places = np.flatnonzero(numbers[order] == block)
        assert places.max() - places.min() < buffer + largest


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.integers(1, 5), st.integers(0, 12), st.integers(1, 9))
def test_any_range_of_iterations_gives_the_same_batches(blocks: list[int], size: int, first: int, count: int) -> None:
    size = min(size, len(blocks))
    numbers = np.array(blocks)
    whole = BatchOrder(1, len(blocks), size, numbers, 8).batches(0, first + count)
    part = BatchOrder(1, len(blocks), size, numbers, 8).batches(first, count)
    assert (whole[first:] == part).all()


def test_single_examples_are_permuted_as_without_blocks() -> None:
    permuted = permute_blocks(np.random.default_rng(0), np.arange(20))
    assert permuted.tolist() == np.argsort(np.argsort(permuted)).tolist()
    assert permuted.tolist() == np.random.default_rng(0).permutation(20).tolist()
