from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tombola.errors import InputError
from tombola.mask import Mask
from tombola.pruning import keep_best
from tombola.run import Network, Start
from tombola.scopes import Globally, Layerwise, Scope, check_rounds, weights_left
from tombola.scores.weights import uniform
from tombola.zoo.networks import build


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
    with pytest.raises(ValueError, match="not all numbers"):
        prune({"a": torch.tensor([1.0, float("nan")])}, mask, Layerwise({"a": 0.5}))


def test_the_ladder_of_the_paper() -> None:
    """LeNet-300-100 loses 20, 20 and 10% a level (Frankle & Carbin 2019, figure 2)."""
    lenet = build(Start(network=Network(name="lenet-300-100", inputs=(28, 28), classes=10), seed=0))
    mask = Mask.full(lenet)
    assert mask.counts == {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
    groups = Layerwise({"fc1.weight": 0.2, "fc2.weight": 0.2, "output.weight": 0.1})
    check_rounds(mask, groups, 21)
    for level in range(1, 22):
        before, mask = mask, prune(uniform(mask, level), mask, groups)
        for (name, left), rate in zip(mask.counts.items(), (0.2, 0.2, 0.1), strict=True):
            assert left == before.counts[name] - round(rate * before.counts[name])
        ideal = (265_200 * 0.8**level + 1_000 * 0.9**level) / 266_200
        assert mask.density == pytest.approx(ideal, abs=2e-5)
    assert mask.counts == {"fc1.weight": 2170, "fc2.weight": 277, "output.weight": 109}


@pytest.mark.parametrize(("rounds", "fine"), [(3, True), (4, False)])
def test_a_schedule_that_empties_a_layer_is_refused(rounds: int, fine: bool) -> None:
    mask = Mask({"a": torch.ones(1000, dtype=torch.bool), "output": torch.ones(10, dtype=torch.bool)})
    groups = Layerwise({"a": 0.2, "output": 0.6})  # 10 -> 4 -> 2 -> 1 -> 0
    if fine:
        check_rounds(mask, groups, rounds)
    else:
        with pytest.raises(InputError, match=r"layer output \(10 weights\) empty at level 4.*at most 3"):
            check_rounds(mask, groups, rounds)


def test_a_schedule_that_goes_on_when_nothing_is_removed_is_refused() -> None:
    mask = Mask({"a": torch.ones(10, dtype=torch.bool)})  # 10 -> 8 -> 6 -> 5 -> 4 -> 3 -> 2 -> 2
    check_rounds(mask, Layerwise({"a": 0.2}), 6)
    with pytest.raises(InputError, match=r"level 7 pruning would remove nothing; .* at most 6"):
        check_rounds(mask, Layerwise({"a": 0.2}), 7)
