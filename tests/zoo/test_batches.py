from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from tombola.zoo.batches import batches


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 99), st.integers(1, 20))
def test_any_stretch_is_the_same_stream(examples: int, batch_size: int, seed: int, count: int) -> None:
    whole = batches(seed, examples, batch_size, 0, count)
    parts = [batches(seed, examples, batch_size, first, 1) for first in range(count)]
    assert torch.equal(whole, torch.cat(parts))
    assert whole.shape == (count, batch_size)


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 99))
def test_each_epoch_sees_each_example_once(examples: int, batch_size: int, seed: int) -> None:
    stream = batches(seed, examples, batch_size, 0, 3 * examples).flatten()
    for epoch in range(3 * batch_size):
        assert sorted(stream[epoch * examples : (epoch + 1) * examples].tolist()) == list(range(examples))


def test_the_order_differs_by_seed_and_by_epoch() -> None:
    first, second = batches(0, 100, 100, 0, 2)
    assert not torch.equal(first, second)
    assert not torch.equal(first, batches(1, 100, 100, 0, 1)[0])


def test_the_order_never_changes() -> None:
    assert batches(5, 10, 5, 0, 2).tolist() == [[3, 1, 7, 6, 9], [2, 8, 5, 0, 4]]
