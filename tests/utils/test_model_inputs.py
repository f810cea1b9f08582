from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.errors import raises_input_error
from tombola.utils.model_inputs import (
    arguments,
    batch_size,
    batches_like,
    call,
    call_checked,
    check_batch,
    describe,
    rows,
    scores_index,
    tensors,
)

X, IDS = torch.randn(5, 3), torch.arange(5)
Scores = namedtuple("Scores", ["hidden", "logits"])


@dataclass
class Output:
    loss: Tensor
    logits: Tensor


def test_a_tensor_and_a_tuple_are_positional_and_a_dict_is_by_keyword() -> None:
    assert arguments(X)[0][0] is X
    assert arguments((X, None, True)) == ((X, None, True), {})
    assert arguments({"x": X}) == arguments(UserDict({"x": X})) == ((), {"x": X})
    assert call(lambda *a, **k: (len(a), sorted(k)), {"x": X, "y": 1}) == (0, ["x", "y"])


@pytest.mark.parametrize("inputs", [[X, X], 5, None, "x"])
def test_other_inputs_are_an_error(inputs: Any) -> None:
    with raises_input_error("example", type(inputs).__name__):
        arguments(inputs)


@pytest.mark.parametrize("inputs", [(), {}, (None, 3), torch.tensor(5.0)])
def test_inputs_without_a_batch_are_an_error(inputs: Any) -> None:
    with raises_input_error("example", "batch"):
        batch_size(inputs)


def test_tensors_are_found_in_any_output() -> None:
    nested = {"a": X, "b": [None, (IDS, 3)], "c": Output(X, IDS), "d": Scores(X, X), "e": UserDict({"x": IDS})}
    assert [tensor.dim() for tensor in tensors(nested)] == [2, 1, 2, 1, 2, 2, 1]


def test_rows_are_of_all_batched_tensors() -> None:
    weights = torch.ones(3)
    x, ids, constant, flag = rows((X, [IDS], weights, True), [4, 0])
    assert torch.equal(x, X[[4, 0]])
    assert ids[0].tolist() == [4, 0]
    assert (constant is weights, flag) == (True, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.complex64])
def test_batches_like_an_example_are_always_the_same(dtype: torch.dtype) -> None:
    example = {"x": X.to(dtype), "ids": IDS + 7, "mask": IDS > 10, "flag": True}
    torch.manual_seed(0)
    first = list(batches_like(example))
    torch.manual_seed(1)
    for one, again, size in zip(first, batches_like(example), (1, 2, 5), strict=True):
        assert torch.equal(one["x"], again["x"])
        assert (one["x"].dtype, one["x"].shape) == (dtype, (size, 3))
        assert set(one["ids"].tolist()) <= set(range(7, 12))
        assert not one["mask"].any()
        assert one["flag"] is True


def test_scores_are_the_logits_or_the_first_output_with_a_row_for_each_example() -> None:
    loss = torch.tensor(1.0)
    assert scores_index(X, 5) == 0
    assert scores_index((loss, X), 5) == 1
    assert scores_index({"hidden": X, "logits": X + 1}, 5) == 1
    assert scores_index(Scores(X, X + 1), 5) == scores_index(Output(loss, X), 5) == 1
    assert scores_index({"logits": loss, "x": X}, 5) == 1
    assert scores_index((loss, None), 5) is None


@pytest.mark.parametrize(
    ("inputs", "facts"),
    [
        ((X, IDS[:3]), ("5", "3")),
        ({"x": X.double()}, ("torch.float32", "torch.float64")),
        ((IDS, X.half()), ("torch.float16",)),
        ((torch.zeros(0, 2),), ("(0, 2)",)),
        ((X, torch.tensor(1)), ("()",)),
        (X[:, 0], ("(5,)",)),
        (torch.zeros(5, 2, device="meta"), ("meta",)),
    ],
)
def test_invalid_batches_are_an_error(inputs: Any, facts: tuple[str, ...]) -> None:
    with raises_input_error("examples: x", *facts):
        check_batch(inputs, "examples: x")


@pytest.mark.parametrize("inputs", [X, IDS, (X, IDS, None), {"a": IDS > 2, "b": [X, X]}])
def test_batches_of_any_form_are_valid(inputs: Any) -> None:
    check_batch(inputs, "x")


def test_batches_are_described() -> None:
    assert describe(X) == "float32 (N, 3)"
    assert describe(IDS) == "int64 (N)"
    assert describe({"ids": IDS, "none": None, "x": [X, X > 0]}) == "ids: int64 (N); x: float32 (N, 3), bool (N, 3)"


def test_an_example_that_a_network_does_not_take_is_described() -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("too\nmany")

    for inputs, shapes in ((X, "(5, 3)"), ((X, IDS), "((5, 3), (5,))"), ({"x": X}, "{'x': (5, 3)}")):
        with raises_input_error("does not take", shapes, "too"):
            call_checked(refuse, inputs)


def test_a_checked_call_leaves_random_states() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(call_checked(torch.rand_like, X), call_checked(torch.rand_like, X))
    assert torch.equal(torch.random.get_rng_state(), before)
