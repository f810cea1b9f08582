"""Scopes, and the ranking of weights within their groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.errors import raises_input_error
from tombola.pruning import scopes
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import ErdosRenyi, Globally, Group, Layerwise, check_levels, removed_count
from tombola.pruning.scores.weights import uniform
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start

Shape = tuple[int, ...]

layer_shapes = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3)),
)
networks = st.lists(layer_shapes, min_size=1, max_size=6).map(lambda s: {f"l{i}": shape for i, shape in enumerate(s)})


def sizes(shapes: dict[str, Shape]) -> dict[Group, int]:
    return {(name,): math.prod(shape) for name, shape in shapes.items()}


def densities(shapes: dict[str, Shape], total: float) -> dict[str, float]:
    """The paper's rule, implemented directly: density ε Σ dims / Π dims, dense where that is above 1, and ε found by
    bisection such that the densities add up to `total` weights (Evci et al. 2020, section 3 (1) and appendix)."""

    def at(epsilon: float) -> dict[str, float]:
        return {name: min(1.0, epsilon * sum(shape) / math.prod(shape)) for name, shape in shapes.items()}

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        count = sum(density * math.prod(shapes[name]) for name, density in at(middle).items())
        low, high = (middle, high) if count < total else (low, middle)
    return at(high)


def prune(scores: dict[str, Tensor], mask: Mask, scope: scopes.Scope) -> Mask:
    return keep_best(scores, mask, scope.keeps(scopes.weights_left(mask, scope.groups)))


@settings(deadline=None, max_examples=100)
@given(networks, st.floats(0, 0.99))
def test_erk_has_the_papers_densities_and_an_exact_total(shapes: dict[str, Shape], rate: float) -> None:
    dense = sizes(shapes)
    total = sum(dense.values()) - removed_count(rate, sum(dense.values()))
    keeps = ErdosRenyi(shapes, rate).keeps(dense)
    assert sum(keeps.values()) == total
    for name, density in densities(shapes, total).items():
        assert abs(keeps[name,] - density * dense[name,]) < 1 + 1e-6 * dense[name,]
        assert keeps[name,] <= dense[name,]


def test_erk_of_lenet_300_100() -> None:
    """By hand: 26,620 weights are shared out as 1,084 : 400 : 110, which makes 1,837 of 1,000 in the output layer.
    So that is dense, and the other two share 25,620."""
    shapes = {"fc1": (300, 784), "fc2": (100, 300), "output": (10, 100)}
    keeps = ErdosRenyi(shapes, 0.9).keeps(sizes(shapes))
    assert keeps == {("fc1",): 18_714, ("fc2",): 6_906, ("output",): 1_000}


@settings(deadline=None)
@given(networks, st.floats(0.05, 0.8), st.integers(1, 6))
def test_erk_levels_are_nested_and_exact(shapes: dict[str, Shape], rate: float, levels: int) -> None:
    """A layer never gets more than it has left, and every level has its exact count."""
    erk, left = ErdosRenyi(shapes, rate), sizes(shapes)
    for _ in range(levels):
        keeps = erk.keeps(left)
        assert all(keeps[group] <= left[group] for group in left)
        assert sum(keeps.values()) == sum(left.values()) - removed_count(rate, sum(left.values()))
        left = keeps


def test_erk_keeps_all_of_a_layer_with_less_than_its_share() -> None:
    shapes = {"a": (10, 10), "b": (10, 10)}
    assert ErdosRenyi(shapes, 0.5).keeps({("a",): 4, ("b",): 60}) == {("a",): 4, ("b",): 28}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 100)), min_size=1, max_size=7), st.floats(0, 1))
def test_allocation_is_exact_proportional_and_within_limits(parts: list[tuple[int, float]], part: float) -> None:
    most = {(str(i),): n for i, (n, _) in enumerate(parts)}
    shares = {(str(i),): share for i, (_, share) in enumerate(parts)}
    total = round(part * sum(most.values()))
    given_out = scopes.allocate(total, shares, most)
    assert sum(given_out.values()) == total
    assert all(0 <= given_out[group] <= most[group] for group in most)
    open_ = [group for group in most if given_out[group] < most[group] - 1]
    assume(len(open_) > 1)
    units = [given_out[group] / shares[group] for group in open_]
    assert max(units) - min(units) <= max(2 / shares[group] for group in open_)  # in proportion, up to rounding


def test_the_levels_of_the_paper() -> None:
    """LeNet-300-100 loses 20, 20 and 10% a level (Frankle & Carbin 2019, figure 2)."""
    lenet = build(Start(network=Network(name="lenet-300-100", inputs=(28, 28), classes=10), seed=0))
    mask = Mask.full(lenet)
    assert mask.counts == {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
    groups = Layerwise({"fc1.weight": 0.2, "fc2.weight": 0.2, "output.weight": 0.1})
    check_levels(groups, scopes.weights_left(mask, groups.groups), 21)
    for level in range(1, 22):
        before, mask = mask, prune(uniform(mask, level), mask, groups)
        for (name, left), rate in zip(mask.counts.items(), (0.2, 0.2, 0.1), strict=True):
            assert left == before.counts[name] - round(rate * before.counts[name])
        ideal = (265_200 * 0.8**level + 1_000 * 0.9**level) / 266_200
        assert mask.density == pytest.approx(ideal, abs=2e-5)
    assert mask.counts == {"fc1.weight": 2170, "fc2.weight": 277, "output.weight": 109}


def test_levels_that_would_empty_a_layer_are_refused() -> None:
    left = {("a",): 1000, ("output",): 10}
    groups = Layerwise({"a": 0.2, "output": 0.6})  # 10 -> 4 -> 2 -> 1 -> 0
    check_levels(groups, left, 3)
    with raises_input_error("output (10 weights)", "at level 4", "at most 3"):
        check_levels(groups, left, 4)


def test_levels_that_would_remove_nothing_are_refused() -> None:
    # 10 -> 8 -> 6 -> 5 -> 4 -> 3 -> 2 -> 2
    check_levels(Layerwise({"a": 0.2}), {("a",): 10}, 6)
    with raises_input_error("at level 7", "nothing", "at most 6"):
        check_levels(Layerwise({"a": 0.2}), {("a",): 10}, 7)


def rule(scores: dict[str, Tensor], mask: Mask, scope: Layerwise | Globally) -> dict[str, np.ndarray]:
    """The rule, directly: sort the weights left by (score, position), and remove the first round(rate × left)."""
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
    values = draw(st.sampled_from([3, 10**6]))  # with 3, there are many ties
    scores = {n: torch.tensor(generator.integers(-values, values, s), dtype=torch.float) for n, s in shapes.items()}
    density = draw(st.floats(0.1, 1))
    mask = Mask({name: torch.from_numpy(generator.random(shape) < density) for name, shape in shapes.items()})
    rate = st.floats(0, 0.99)
    if draw(st.booleans()):
        return scores, mask, Layerwise({name: draw(rate) for name in names if draw(st.booleans())})
    return scores, mask, Globally(tuple(names), draw(rate))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_pruning_agrees_with_a_direct_implementation_of_the_rule(
    case: tuple[dict[str, Tensor], Mask, Layerwise | Globally],
) -> None:
    pruned, expected = prune(*case), rule(*case)
    for name, kept in pruned.items():
        np.testing.assert_array_equal(kept.numpy(), expected[name])


def test_ties_are_broken_by_index() -> None:
    mask = Mask({"a": torch.ones(2, 2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)})
    scores = {"a": torch.ones(2, 2), "b": torch.ones(2)}
    pruned = prune(scores, mask, Globally(("a", "b"), 0.5))
    assert pruned["a"].tolist() == [[False, False], [False, True]]
    assert pruned["b"].tolist() == [True, True]


def test_nan_scores_are_refused() -> None:
    mask = Mask({"a": torch.ones(2, dtype=torch.bool)})
    with raises_input_error("a are NaN"):
        prune({"a": torch.tensor([1.0, float("nan")])}, mask, Layerwise({"a": 0.5}))
