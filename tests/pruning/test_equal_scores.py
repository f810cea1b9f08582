"""Scores that are all equal give no choice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.classifier import classifier
from tests.support.errors import raises_input_error
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import Globally
from tombola.pruning.scores.inputs import ScoreInputs


def zeros_in(network: nn.Module, *layers: int) -> nn.Module:
    with torch.no_grad():
        for layer in layers:
            network[layer].weight.zero_()  # type: ignore[index]
    return network


@pytest.mark.parametrize("structure", ["weights", "blocks:2x2", "2:4"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_equal_scores_are_refused_where_a_choice_is_to_be_made(structure: str, rounds: int) -> None:
    options: dict[str, Any] = {"structure": structure, "rounds": rounds}
    with raises_input_error("score:", "of 2 ", "equal", "(0)", "leave_out"):
        prune(zeros_in(classifier(), 2), 0.5, **options)
    left_out = prune(zeros_in(classifier(), 2), 0.5, leave_out=["2"], **options)
    assert left_out["2.weight"].all()


def test_equal_scores_of_all_layers_are_refused() -> None:
    ones = {name: torch.ones(shape) for name, shape in Mask.full(classifier()).shapes.items()}
    with raises_input_error("score:", "equal", "(1)"):
        prune(classifier(), 0.5, structure="neurons", score=lambda _: ones)
    with raises_input_error("score:", "0, 2, 4", "equal", "(1)"):
        prune(classifier(), 0.5, scope="global", score=lambda _: ones)


def test_equal_scores_do_no_harm_where_there_is_no_choice() -> None:
    network = zeros_in(classifier(), 0, 2, 4)
    assert prune(network, 1.0).density == 1
    assert prune(network, {"0": 0.001}).counts["0.weight"] == 0
    assert prune(zeros_in(classifier(), 2), 0.5, scope="global").counts["2.weight"] == 0
    hold(network, Mask({"2.weight": torch.eye(8, 12) > 0}))
    assert prune(network, {"2": 8 / 96}).counts["2.weight"] == 8


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(0, 40), st.floats(-1e9, 1e9), st.integers(0, 2))
def test_equal_scores_are_refused_for_every_value_and_count(size: int, kept: int, value: float, others: int) -> None:
    scores = torch.full((1, size), value, dtype=torch.float64)
    scores[0, :others] = torch.inf
    full = Mask({"weight": torch.ones(1, size, dtype=torch.bool)})
    inputs = ScoreInputs({"weight": scores}, full)
    pruner, goal = Pruner(lambda _: {"weight": scores}, Globally(("weight",), 0.5)), {("weight",): min(kept, size)}
    equal = others in (0, size)
    if equal and 0 < kept < size:
        with raises_input_error("score:", "weight", "equal"):
            pruner.prune_to(inputs, goal)
    else:
        assert pruner.prune_to(inputs, goal).count == min(kept, size)
