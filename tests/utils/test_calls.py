from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tombola.utils.calls import call, layer_input


class Scaled(nn.Module):
    def forward(self, x: Tensor, scale: float = 1.0, parts: Any = ()) -> Tensor:
        x.mul_(scale)
        return x + sum(parts)


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        (torch.ones(2), 1.0),
        ((torch.ones(2),), 1.0),
        ((torch.ones(2), 3.0), 3.0),
        ((torch.ones(2), 3.0, [torch.ones(2)]), 4.0),
        ({"scale": 2.0, "x": torch.ones(2)}, 2.0),
    ],
)
def test_a_tuple_has_positional_and_a_dict_keyword_arguments(example: Any, expected: float) -> None:
    assert call(Scaled(), example).tolist() == [expected, expected]
    assert call(Scaled(), example).tolist() == [expected, expected]  # the example is not changed in place


def test_the_input_of_a_layer_may_have_a_keyword() -> None:
    x, other = torch.ones(1), torch.zeros(1)
    assert layer_input((x, other), {}) is x
    assert layer_input((), {"other": other, "input": x}) is x
    assert layer_input((), {"scale": 2.0, "x": x}) is x
    assert layer_input((3,), {}) is None
