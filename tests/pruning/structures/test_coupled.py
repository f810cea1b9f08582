"""Coupled units: kept and pruned with all that is tied to them, exact numbers of them."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tombola
from tests.support.errors import raises_input_error
from tests.support.prunable_networks import tiny_gpt2
from tests.support.structures import assert_whole, conv1d, network
from tombola.pruning.mask import Mask
from tombola.zoo.models.resnet import resnet
from tombola.zoo.models.vit import vit


def neurons_left(mask: Mask) -> list[int]:
    """Of linear layers in a row: the hidden units left; rows and columns agree."""
    kept = [*mask.values()]
    alive = [assert_whole_where(layer.any(1), reader.any(0)) for layer, reader in pairwise(kept)]
    for index, layer in enumerate(kept):
        rows = alive[index] if index < len(alive) else torch.ones(len(layer), dtype=torch.bool)
        columns = alive[index - 1] if index else torch.ones(layer.shape[1], dtype=torch.bool)
        assert torch.equal(layer, rows[:, None] & columns)
    return [int(each.sum()) for each in alive]


def assert_whole_where(rows: Tensor, columns: Tensor) -> Tensor:
    assert torch.equal(rows, columns)
    return rows


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(2, 9), min_size=3, max_size=5),
    st.lists(st.floats(0.01, 0.9), min_size=1, max_size=3),
    st.sampled_from(["layer", "global"]),
)
def test_a_weight_is_kept_if_all_its_units_are_and_their_number_is_exact(
    widths: list[int], densities: list[float], scope: str
) -> None:
    made = network(*widths)
    had, before = widths[1:-1], Mask.full(made)
    for density in sorted(densities, reverse=True):
        mask = tombola.prune(made, density, structure="neurons", scope=scope, score="random")
        left = neurons_left(mask)
        assert mask <= before
        if scope == "layer":
            assert left == [max(1, n - round((1 - density) * n)) for n in had]
        else:
            total = sum(had)
            assert sum(left) == max(len(had), total - round((1 - density) * total))
            assert min(left) >= 1
        tombola.hold(made, mask)
        before = mask


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(2, 20), min_size=1, max_size=3),
    st.integers(1, 5),
    st.floats(0.05, 1),
    st.sampled_from(["layer", "global"]),
    st.sampled_from(["mean", "sum", "norm"]),
)
def test_what_a_set_keeps_is_a_multiple_and_not_more_than_the_exact_number(
    hidden: list[int], round_to: int, density: float, scope: str, group_score: Any
) -> None:
    made = network(3, *hidden, 2)
    options = {"structure": "neurons", "scope": scope, "group_score": group_score, "round_to": round_to}
    left = neurons_left(tombola.prune(made, density, **options))
    for n, kept in zip(hidden, left, strict=True):
        exact = n - round((1 - density) * n)
        assert kept == n or (kept % round_to == 0 and kept)
        if scope == "layer":
            assert kept == (n if exact == n else max(min(n, round_to), exact - exact % round_to))
    if scope == "global":
        exact = sum(hidden) - round((1 - density) * sum(hidden))
        assert sum(left) <= max(exact, sum(min(n, round_to) for n in hidden))


def test_a_set_becomes_empty_only_if_asked() -> None:
    def pruned(**options: Any) -> Mask:
        return tombola.prune(network(4, 6, 6, 2), 0.05, structure="neurons", **options)

    assert neurons_left(pruned(scope="global")) == neurons_left(pruned()) == [1, 1]
    assert pruned(round_to=0).counts == {"0.weight": 0, "1.weight": 0, "2.weight": 0}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(2, 20), min_size=1, max_size=3),
    st.integers(1, 3),
    st.floats(0.3, 1),
    st.sampled_from(["layer", "global"]),
)
def test_the_weights_left_are_just_below_the_density(
    hidden: list[int], round_to: int, density: float, scope: str
) -> None:
    made, options = network(4, *hidden, 3), {"structure": "neurons", "scope": scope, "round_to": round_to}
    size = sum(p.numel() for name, p in made.named_parameters() if "weight" in name)
    goal = size - round((1 - density) * size)
    least = [4, *(min(round_to, n) for n in hidden), 3]
    if sum(a * b for a, b in pairwise(least)) > density * size:
        with raises_input_error("density", "at least"):
            tombola.prune(made, density, cost="weights", **options)
        return
    mask = tombola.prune(made, density, cost="weights", **options)
    left = neurons_left(mask)
    assert mask.count <= goal
    steps = [[*left[:i], min(n + round_to, hidden[i]), *left[i + 1 :]] for i, n in enumerate(left)]
    larger = [sum(a * b for a, b in zip([4, *each], [*each, 3], strict=True)) for each in steps]
    assert left == hidden or max(larger) > goal  # at least one step back would be too many
    if scope == "layer":
        shares = [n / had for n, had in zip(left, hidden, strict=True)]
        assert max(shares) - min(shares) <= 2 * max(min(round_to, had) / had for had in hidden)


def test_half_the_channels_of_a_resnet_leave_a_quarter_of_its_weights() -> None:
    made = resnet((3, 32, 32), 10, depth=20)
    mask = tombola.prune(made, 0.5, structure="channels")
    assert {int(kept.flatten(1).any(1).sum()) for kept in mask.values() if kept.dim() == 4} == {8, 16, 32}
    assert mask.count == 67_992  # of 270,896


@pytest.mark.parametrize("cost", ["weights", "macs"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_resnet_is_pruned_to_half_its_cost(cost: Any, scope: str) -> None:
    made = resnet((3, 16, 16), 10, depth=8)
    mask = tombola.prune(made, 0.5, structure="channels", cost=cost, scope=scope, example=torch.randn(2, 3, 16, 16))
    if cost == "weights":
        assert 0.45 < mask.density <= 0.5
    assert not mask.empty_layers


@pytest.mark.parametrize(("structure", "shape"), [("neurons", (12,)), ("channels", (2, 8, 8))])
def test_multiply_adds_left_are_half(structure: str, shape: tuple[int, ...]) -> None:
    layers: list[nn.Module] = (
        [nn.Linear(12, 20), nn.Linear(20, 16), nn.Linear(16, 2)]
        if structure == "neurons"
        else [nn.Conv2d(2, 12, 3, padding=1), nn.Conv2d(12, 10, 3, stride=2), nn.Flatten(), nn.Linear(90, 3)]
    )
    made, x = nn.Sequential(*layers), torch.randn(2, *shape)
    uses = {"0.weight": 64, "1.weight": 9, "3.weight": 1} if structure == "channels" else {}
    mask = tombola.prune(made, 0.5, structure=structure, cost="macs", example=x)
    dense = sum(uses.get(name, 1) * size for name, size in mask.sizes.items())
    left = sum(uses.get(name, 1) * count for name, count in mask.counts.items())
    assert 0.4 < left / dense <= 0.5


def test_large_layers_are_not_emptied_by_a_global_scope() -> None:
    torch.manual_seed(0)
    made = network(8, 16, 256, 4)
    made[1].weight.data *= 0.01  # type: ignore[index,operator,union-attr]
    made[2].weight.data *= 0.01  # type: ignore[index,operator,union-attr]
    small, large = neurons_left(tombola.prune(made, 0.5, structure="neurons", scope="global"))
    assert small > 4
    assert large > 64


def test_a_units_score_is_that_of_its_weights_that_are_left() -> None:
    scores = {
        "0.weight": torch.tensor([[1.0, 1.0], [3.0, 0.0], [2.0, 2.0]]),
        "1.weight": torch.tensor([[9.0, 0.0, 0.0]]),
    }

    def kept(group_score: Any) -> list[int]:
        made = network(2, 3, 1)
        mask = tombola.prune(made, 1 / 3, structure="neurons", group_score=group_score, score=lambda _: scores)
        return mask["0.weight"].any(1).nonzero().flatten().tolist()

    assert kept("sum") == kept("mean") == [0]  # 11, 3, 4
    scores["1.weight"][0, 0] = 1.5
    assert kept("sum") == [2]  # 3.5, 3, 4
    assert kept("norm") == [1]  # 2.06, 3, 2.83


def test_sets_that_stay_whole_are_named_with_the_reason_but_outputs_are_not(caplog: pytest.LogCaptureFixture) -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.third(self.second(self.first(x).sort(-1).values).relu())
            return found

    with caplog.at_level(logging.WARNING):
        mask = tombola.prune(Sorted(), 0.5, structure="neurons")
    assert mask.counts == {"first.weight": 20, "second.weight": 15, "third.weight": 6}
    (record,) = caplog.records
    assert "first" in record.message
    assert "one unit" in record.message
    assert "third" not in record.message


def test_a_layer_that_is_left_out_keeps_its_own_units() -> None:
    mask = tombola.prune(network(4, 6, 6, 2), 0.5, structure="neurons", leave_out=["0"])
    assert neurons_left(mask) == [6, 3]
    with raises_input_error("neurons"):
        tombola.prune(network(4, 6, 2), 0.5, structure="neurons", leave_out=["0"])


def test_densities_of_layers_are_those_of_the_units_that_they_compute() -> None:
    mask = tombola.prune(network(4, 6, 8, 2), {"1": 0.25}, structure="neurons")
    assert neurons_left(mask) == [6, 2]

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.head = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.head(self.one(x) + self.other(x))
            return found

    mask = tombola.prune(Sum(), {"other": 0.5}, structure="neurons")
    assert mask.counts == {"one.weight": 12, "other.weight": 12, "head.weight": 8}
    with raises_input_error("density", "one 0.25", "other 0.5"):
        tombola.prune(Sum(), {"one": 0.25, "other": 0.5}, structure="neurons")


def test_neurons_of_conv1d_are_columns() -> None:
    mask = tombola.prune(nn.Sequential(conv1d(5, 8), nn.Linear(8, 2)), 0.25, structure="neurons")
    assert sum(assert_whole([mask["0.weight"].t(), mask["1.weight"].t()])) == 2
    assert mask.counts == {"0.weight": 10, "1.weight": 4}


def test_channels_of_transposed_convolutions_go_with_what_reads_them() -> None:
    made = nn.Sequential(nn.Conv1d(3, 4, 1), nn.ConvTranspose1d(4, 6, 3), nn.Conv1d(6, 1, 1))
    mask = tombola.prune(made, 0.5, structure="channels")
    assert torch.equal(mask["1.weight"].any(2).any(0), mask["2.weight"].flatten())
    assert mask.counts == {"0.weight": 6, "1.weight": 18, "2.weight": 3}


def test_the_width_of_a_transformer_has_embeddings_biases_and_norms() -> None:
    made = vit((1, 8, 8), 3, patch=4, width=12, depth=2, heads=3)
    mask = tombola.prune(made, 0.5, structure="width", example=torch.randn(2, 1, 8, 8))
    assert {mask.counts[f"block1.norm1.{part}"] for part in ("weight", "bias")} == {6}
    assert mask.counts["tokens.position"] == mask.sizes["tokens.position"] // 2
    given: list[Tensor] = []
    made.block2.register_forward_pre_hook(lambda _, x: given.append(x[0]))
    made.eval()(torch.randn(2, 1, 8, 8))
    assert int((given[0] == 0).all((0, 1)).sum()) == 6  # entries of the stream are exactly zero
    gpt = tombola.prune(tiny_gpt2(), 0.5, structure="width")
    assert gpt.counts["transformer.wte.weight"] == gpt.sizes["transformer.wte.weight"] // 2


def test_networks_without_such_units_are_refused() -> None:
    with raises_input_error("structure:", "channels"):
        tombola.prune(network(3, 4, 2), 0.5, structure="channels")
    with raises_input_error("structure:", "neurons"):
        tombola.prune(nn.Linear(3, 2), 0.5, structure="neurons")
    with raises_input_error('scope: "erk"', "neurons"):
        tombola.prune(network(3, 4, 2), 0.5, structure="neurons", scope="erk")


def test_nan_scores_of_units_are_refused() -> None:
    made = network(2, 2, 1)
    scores = {"0.weight": torch.full((2, 2), torch.nan), "1.weight": torch.ones(1, 2)}
    with raises_input_error("0.weight are NaN"):
        tombola.prune(made, 0.5, structure="neurons", score=lambda _: scores)


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"round_to": 8}, ["round_to", "channels"]),
        ({"structure": "2:4", "cost": "weights"}, ["cost", '"2:4"']),
        ({"structure": "neurons", "round_to": -1}, ["round_to", "-1"]),
        ({"structure": "neurons", "cost": "mac"}, ["cost", '"macs"']),
        ({"structure": "neurons", "group_score": "max"}, ["group_score", "norm"]),
        ({"structure": "neurons", "cost": "weights", "density": {"0": 0.5}}, ["density", '"units"']),
        ({"structure": "neurons", "cost": "weights", "density": 0.01}, ["density", "at least"]),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error(*facts):
        tombola.prune(network(4, 4, 2), **({"density": 0.5} | options))


def test_synflow_prunes_units_in_rounds() -> None:
    data = [(torch.randn(4, 6), torch.zeros(4, dtype=torch.int64))]
    mask = tombola.prune(network(6, 10, 16, 3), 0.5, structure="neurons", scope="global", score="synflow", data=data)
    assert sum(neurons_left(mask)) == 13


class Positions(nn.Module):
    """A transformer layer with fixed position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)
        self.register_buffer("position", torch.rand(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.stem(x) + self.position))
        return y


def test_the_width_of_a_buffer_stays_whole() -> None:
    with raises_input_error("width", "position"):
        tombola.prune(Positions(), 0.5, structure="width", example=torch.ones(2, 4, 3))
