from __future__ import annotations

import torch

from tombola.utils.calls import layer_input


def test_the_input_of_a_layer_may_have_a_keyword() -> None:
    x, other = torch.ones(1), torch.zeros(1)
    assert layer_input((x, other), {}) is x
    assert layer_input((), {"other": other, "input": x}) is x
    assert layer_input((), {"scale": 2.0, "x": x}) is x
    assert layer_input((3,), {}) is None
