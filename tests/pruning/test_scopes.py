from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import (
    ErdosRenyi,
    Group,
    Layerwise,
    by_name,
    check_rounds,
    removed,
    scope,
    share_out,
    weights_left,
)
from tombola.pruning.scores.weights import uniform
from tombola.utils.errors import InputError
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
    """The paper's rule, stated by itself: density ε Σ dims / Π dims, dense where that is above 1, and ε found by
    bisection such that the densities add up to `total` weights (Evci et al. 2020, section 3 (1) and appendix)."""

    def at(epsilon: float) -> dict[str, float]:
        return {name: min(1.0, epsilon * sum(shape) / math.prod(shape)) for name, shape in shapes.items()}

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        count = sum(density * math.prod(shapes[name]) for name, density in at(middle).items())
        low, high = (middle, high) if count < total else (low, middle)
    return at(high)


@settings(deadline=None, max_examples=300)
@given(networks, st.floats(0, 0.99))
def test_erk_gives_layers_the_densities_of_the_paper_and_the_network_its_exact_count(
    shapes: dict[str, Shape], rate: float
) -> None:
    dense = sizes(shapes)
    total = sum(dense.values()) - removed(rate, sum(dense.values()))
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
    assert sum(keeps.values()) == 26_620
    assert keeps["fc1",] / keeps["fc2",] == pytest.approx((300 + 784) / (100 + 300), rel=1e-3)


def test_kernels_count_as_dimensions() -> None:
    shapes = {"conv": (64, 64, 3, 3), "fc": (64, 576)}  # as many weights, but 64 + 64 + 3 + 3 against 64 + 576
    keeps = ErdosRenyi(shapes, 0.8).keeps(sizes(shapes))
    assert keeps["conv",] / keeps["fc",] == pytest.approx(134 / 640, rel=1e-3)


@settings(deadline=None)
@given(networks, st.floats(0.05, 0.8), st.integers(1, 6))
def test_levels_of_erk_lie_within_each_other(shapes: dict[str, Shape], rate: float, levels: int) -> None:
    """A layer never gets more than it has left, and every level has its exact count."""
    erk, left = ErdosRenyi(shapes, rate), sizes(shapes)
    for _ in range(levels):
        keeps = erk.keeps(left)
        assert all(keeps[group] <= left[group] for group in left)
        assert sum(keeps.values()) == sum(left.values()) - removed(rate, sum(left.values()))
        left = keeps


def test_a_layer_with_less_left_than_its_share_keeps_all_of_it() -> None:
    shapes = {"a": (10, 10), "b": (10, 10)}
    assert ErdosRenyi(shapes, 0.5).keeps({("a",): 4, ("b",): 60}) == {("a",): 4, ("b",): 28}


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 100)), min_size=1, max_size=7), st.floats(0, 1))
def test_shares_are_exact_and_nobody_gets_more_than_there_is(parts: list[tuple[int, float]], part: float) -> None:
    most = {(str(i),): n for i, (n, _) in enumerate(parts)}
    shares = {(str(i),): share for i, (_, share) in enumerate(parts)}
    total = round(part * sum(most.values()))
    given_out = share_out(total, shares, most)
    assert sum(given_out.values()) == total
    assert all(0 <= given_out[group] <= most[group] for group in most)
    open_ = [group for group in most if given_out[group] < most[group] - 1]
    assume(len(open_) > 1)
    units = [given_out[group] / shares[group] for group in open_]
    assert max(units) - min(units) <= max(2 / shares[group] for group in open_)  # in proportion, up to rounding


@pytest.mark.parametrize("name", ["layer", "global", "erk"])
def test_every_scope_keeps_what_is_said(name: str) -> None:
    mask = Mask.full(nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10)))
    chosen = scope(name, mask.shapes, 0.35)
    keeps = chosen.keeps(weights_left(mask, chosen.groups))
    assert sum(keeps.values()) == 900 - round(0.35 * 900)


def test_values_by_name_go_to_the_first_pattern_that_matches() -> None:
    layers = ["fc1.weight", "fc2.weight", "output.weight"]
    assert by_name({"fc2": 1, "fc*": 2}, layers, "rates") == {"fc1.weight": 2, "fc2.weight": 1}
    with pytest.raises(InputError, match='rates: unknown layer "fc3": did you mean "fc2"'):
        by_name({"fc3": 1}, layers, "rates")


def test_the_ladder_of_the_paper() -> None:
    """LeNet-300-100 loses 20, 20 and 10% a level (Frankle & Carbin 2019, figure 2)."""
    lenet = build(Start(network=Network(name="lenet-300-100", inputs=(28, 28), classes=10), seed=0))
    mask = Mask.full(lenet)
    assert mask.counts == {"fc1.weight": 235_200, "fc2.weight": 30_000, "output.weight": 1_000}
    groups = Layerwise({"fc1.weight": 0.2, "fc2.weight": 0.2, "output.weight": 0.1})
    check_rounds(mask, groups, 21)
    for level in range(1, 22):
        before, mask = mask, keep_best(uniform(mask, level), mask, groups.keeps(weights_left(mask, groups.groups)))
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
