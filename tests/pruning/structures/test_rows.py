"""Comparison within output rows."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tombola.experiments.recipe import load_recipe
from tombola.pruning.hold import hold
from tombola.pruning.layers import Layer, outputs_first
from tombola.pruning.mask import Mask
from tombola.pruning.prunable_layers import find_layers
from tombola.pruning.prune_model import prune
from tombola.pruning.scopes import Rowwise
from tombola.pruning.structures.rows import Rows


def rows(network: nn.Module, mask: Mask) -> list[Tensor]:
    """By layer: the number of weights that each output keeps."""
    return [outputs_first(mask.layers[la.name], la).flatten(1).sum(1) for la in find_layers(network)]


@pytest.mark.parametrize("score", ["magnitude", "random"])
@pytest.mark.parametrize("density", [0.8, 0.5, 0.3])
def test_each_row_keeps_its_best_weights_an_exact_number_of_them(density: float, score: str) -> None:
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(4, 6, 2, groups=2))
    network = nn.ModuleList([nn.Linear(10, 4), *convolutions, nn.MultiheadAttention(8, 2), nn.LSTM(5, 3)])
    dense = copy.deepcopy(network)
    mask = prune(network, density, scope="row", score=score)
    for layer, kept in zip(find_layers(network), rows(network, mask), strict=True):
        before = outputs_first(dict(dense.named_parameters())[layer.parameter].detach(), layer)
        if layer.name == layer.parameter:
            size = before[0].numel()
            assert kept.tolist() == [size - round((1 - density) * size)] * len(before)
            if score == "magnitude":
                weights, chosen = before.flatten(1).abs(), outputs_first(mask[layer.name], layer).flatten(1)
                for row, is_kept in zip(weights, chosen, strict=True):
                    assert row[is_kept].min() >= row[~is_kept].max()
        else:  # the query, key and value of attention
            assert kept.unique().tolist() == [8 - round((1 - density) * 8)]


def test_the_first_of_equal_weights_is_pruned_first() -> None:
    layer = Layer("a", "a", (2, 4), "linear", nn.Linear(4, 2), "weight")
    scores = torch.tensor([[1.0, 1, 1, 1], [2, 1, 2, -torch.inf]])
    dense = Mask({"a": torch.ones(2, 4, dtype=torch.bool)})
    mask = Rows({"a": layer}).keep_best({"a": scores}, dense, {("a",): 5})
    assert mask["a"].int().tolist() == [[0, 1, 1, 1], [1, 0, 1, 0]]


def test_what_a_row_has_lost_already_the_others_keep() -> None:
    network = nn.Linear(4, 3)
    before = Mask({"weight": torch.tensor([[True, False, False, False], [True] * 4, [True] * 4])})
    hold(network, before)
    mask = prune(network, 0.5, scope="row")
    assert mask <= before
    assert mask["weight"].sum(1).tolist() == [1, 3, 2]


def test_the_counts_of_levels_are_rounded_by_row() -> None:
    scope = Rowwise({"a": 0.2}, {"a": 3})
    assert scope.keeps({("a",): 30}) == {("a",): 24}
    assert scope.keeps({("a",): 24}) == {("a",): 18}
    assert scope.keeps({("a",): 25}) == {("a",): 2 * (8 - 2) + (9 - 2)}


def test_layers_may_have_densities_of_their_own() -> None:
    network = nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 5), nn.Linear(5, 2))
    mask = prune(network, {"0": 0.3, "1": 0.5}, scope="row")
    assert [kept.unique().tolist() for kept in rows(network, mask)] == [[3], [2], [5]]


def test_a_pattern_has_equal_rows_already() -> None:
    torch.manual_seed(0)
    network = nn.Linear(8, 4)
    by_row = prune(copy.deepcopy(network), structure="2:4", scope="row")
    assert by_row == prune(network, structure="2:4")


def test_where_there_are_no_rows_an_error_says_so() -> None:
    with raises_input_error("scope:", '"row"', '"neurons"'):
        prune(nn.Linear(4, 4), 0.5, scope="row", structure="neurons")
    with raises_input_error("scope:", '"row"', "0", "embedding", '"layer"'):
        prune(nn.Sequential(nn.Embedding(4, 4)), 0.5, scope="row", include=["0"])


def test_recipes_compare_rows_too() -> None:
    recipe = load_recipe("digits", ["search.scope=row"])
    assert recipe.search.scope == "row"
    with raises_input_error("search.scope", '"rigl"', "row"):
        load_recipe("digits", ["search.scope=row", "search.method=rigl", "search.levels=1"])
