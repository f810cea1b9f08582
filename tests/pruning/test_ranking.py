from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Globally, Layerwise, Scope, weights_left
from tombola.utils.errors import InputError


def prune(scores: dict[str, Tensor], mask: Mask, scope: Scope) -> Mask:
    return keep_best(scores, mask, scope.keeps(weights_left(mask, scope.groups)))


def rule(scores: dict[str, Tensor], mask: Mask, scope: Layerwise | Globally) -> dict[str, np.ndarray]:
    """The rule, stated directly: sort what is left by (score, position), drop the first round(rate × left)."""
    kept = {name: tensor.numpy().copy() for name, tensor in mask.items()}
    for layers in scope.groups:
        rate = scope.rate if isinstance(scope, Globally) else scope.rates[layers[0]]
        left = [
            (float(scores[name].numpy()[index]), order, index)
            for order, name in enumerate(layers)
            for index in np.ndindex(*kept[name].shape)
            if kept[name][index]
        ]
        for _, order, index in sorted(left)[: round(rate * len(left))]:
            kept[layers[order]][index] = False
    return kept


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Tensor], Mask, Layerwise | Globally]:
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shapes = {name: tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))) for name in names}
    few_values = draw(st.booleans())  # many ties
    scores = {
        name: torch.from_numpy(
            generator.integers(0, 3, shape).astype(np.float32) if few_values else generator.random(shape)
        )
        for name, shape in shapes.items()
    }
    density = draw(st.floats(0.1, 1))
    mask = Mask({name: torch.from_numpy(generator.random(shape) < density) for name, shape in shapes.items()})
    rate = st.floats(0, 0.99)
    if draw(st.booleans()):
        return scores, mask, Layerwise({name: draw(rate) for name in names if draw(st.booleans())})
    return scores, mask, Globally(tuple(names), draw(rate))


@settings(max_examples=1000, deadline=None)
@given(cases())
def test_pruning_agrees_with_a_direct_statement_of_the_rule(
    case: tuple[dict[str, Tensor], Mask, Layerwise | Globally],
) -> None:
    scores, mask, scope = case
    pruned = prune(scores, mask, scope)
    expected = rule(scores, mask, scope)
    for name in mask:
        np.testing.assert_array_equal(pruned[name].numpy(), expected[name])
    assert pruned <= mask


def test_ties_are_broken_by_index() -> None:
    mask = Mask({"a": torch.ones(2, 2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)})
    scores = {"a": torch.ones(2, 2), "b": torch.ones(2)}
    pruned = prune(scores, mask, Globally(("a", "b"), 0.5))
    assert pruned["a"].tolist() == [[False, False], [False, True]]
    assert pruned["b"].tolist() == [True, True]


def test_negative_weights_are_worth_their_magnitude() -> None:
    weights = {"a": torch.tensor([-3.0, 1.0, -0.5, 2.0])}
    pruned = prune(
        {name: weight.abs() for name, weight in weights.items()},
        Mask({"a": torch.ones(4, dtype=torch.bool)}),
        Layerwise({"a": 0.5}),
    )
    assert pruned["a"].tolist() == [True, False, False, True]


def test_layers_left_out_are_left_alone() -> None:
    mask = Mask({"a": torch.ones(10, dtype=torch.bool), "b": torch.ones(10, dtype=torch.bool)})
    scores = {"a": torch.arange(10.0), "b": torch.arange(10.0) - 100}
    pruned = prune(scores, mask, Globally(("a",), 0.3))
    assert pruned.counts == {"a": 7, "b": 10}


def test_scores_that_are_not_numbers_are_refused() -> None:
    mask = Mask({"a": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(InputError, match="not all numbers"):
        prune({"a": torch.tensor([1.0, float("nan")])}, mask, Layerwise({"a": 0.5}))
