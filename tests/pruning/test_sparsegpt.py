"""SparseGPT, held to slow solutions of the same problem."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.pruning.sparsegpt import DAMPENING, solve

Data = list[tuple[Tensor, Tensor]]


def problem(mask_first: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """A weight [4, 10], correlated inputs [60, 10], and a mask."""
    torch.manual_seed(1)
    inputs = torch.randn(60, 10, dtype=torch.float64) @ torch.randn(10, 10, dtype=torch.float64)
    kept = torch.rand(4, 10) < 0.5
    if mask_first:  # the pruned weights of a row come before those it keeps
        kept = kept.sort(dim=1).values
    return torch.randn(4, 10, dtype=torch.float64), inputs, kept


def damped(inputs: Tensor) -> Tensor:
    hessian = inputs.t() @ inputs
    return hessian + DAMPENING * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)


def update(weight: Tensor, inputs: Tensor, kept: Tensor, block: int) -> Tensor:
    hessian = inputs.t() @ inputs
    return solve(weight, hessian, lambda part, begin: kept[:, begin : begin + part.shape[1]], block)[0]


def cost(weight: Tensor, updated: Tensor, inputs: Tensor) -> float:
    """The squared change of the outputs, with the dampening."""
    change = weight - updated
    return float((change @ damped(inputs) * change).sum())


def least_squares(weight: Tensor, inputs: Tensor, kept: Tensor) -> Tensor:
    """The best values of the weights that each row keeps."""
    hessian, best = damped(inputs), torch.zeros_like(weight)
    for row, chosen in enumerate(kept):
        best[row, chosen] = torch.linalg.solve(hessian[chosen][:, chosen], hessian[chosen] @ weight[row])
    return best


def column_by_column(weight: Tensor, inputs: Tensor, kept: Tensor) -> Tensor:
    """Remove a weight, and make up for it by the columns behind it, with an inverse of its own each time (Optimal
    Brain Surgeon, Hassibi & Stork 1992)."""
    hessian, found = damped(inputs), weight.clone()
    for row in range(len(weight)):
        for j in range(weight.shape[1]):
            if not kept[row, j]:
                inverse = torch.linalg.inv(hessian[j:, j:])
                found[row, j:] -= found[row, j] / inverse[0, 0] * inverse[0]
    return found


@pytest.mark.parametrize("block", [1, 3, 4, 128])
def test_the_update_is_that_of_optimal_brain_surgeon_in_any_blocks(block: int) -> None:
    weight, inputs, kept = problem()
    torch.testing.assert_close(update(weight, inputs, kept, block), column_by_column(weight, inputs, kept))


def test_where_the_pruned_columns_come_first_it_is_the_least_squares_solution() -> None:
    weight, inputs, kept = problem(mask_first=True)
    torch.testing.assert_close(update(weight, inputs, kept, 128), least_squares(weight, inputs, kept))


def test_its_error_lies_between_the_best_and_that_of_masking() -> None:
    weight, inputs, kept = problem()
    best, found, masked = (
        cost(weight, updated, inputs)
        for updated in (least_squares(weight, inputs, kept), update(weight, inputs, kept, 4), weight * kept)
    )
    assert best < found < masked


def test_weights_of_inputs_that_are_always_zero_are_pruned_first_and_do_no_harm() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(10, 4), torch.randn(30, 10)
    x[:, 2] = 0
    before = layer(x)
    mask = prune(layer, 0.9, score="sparsegpt", data=[(x, torch.zeros(30, dtype=torch.long))])
    assert torch.equal(mask["weight"], (torch.arange(10) != 2).expand(4, -1))
    torch.testing.assert_close(layer(x), before)


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding="valid"))
    return network.extend([nn.ReLU(), nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 4)])


def data() -> Data:
    torch.manual_seed(2)
    return [(torch.randn(16, 4, 8, 8), torch.randint(4, (16,))) for _ in range(2)]


@pytest.mark.parametrize(
    "options",
    [{"density": 0.37}, {"density": 0.37, "scope": "row"}, {"density": 0.37, "scope": "erk"}, {"structure": "2:4"}],
)
def test_counts_are_exact_and_outputs_closer_than_with_masking(options: dict[str, Any]) -> None:
    dense, updated, masked = classifier(), classifier(), classifier()
    mask = prune(updated, score="sparsegpt", data=data(), **options)
    assert mask.counts == prune(masked, score="wanda", data=data(), **options).counts
    for name, kept in mask.items():
        assert torch.equal(updated.get_parameter(name) != 0, kept)
        if options.get("scope") == "row":
            assert len(kept.flatten(1).sum(1).unique()) == 1
        if "structure" in options:
            assert (kept.movedim(1, -1).reshape(-1, 4).sum(1) == 2).all()
    masked.load_state_dict(classifier().state_dict())
    mask.apply_(masked)
    x = torch.cat([x for x, _ in data()])
    assert (updated(x) - dense(x)).norm() < (masked(x) - dense(x)).norm()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_attention_is_pruned_by_its_projections() -> None:
    torch.manual_seed(0)
    network, batches = Attention(), [(torch.randn(8, 5, 8), torch.zeros(8, dtype=torch.long))]
    dense, x = copy.deepcopy(network), batches[0][0]
    mask = prune(network, 0.5, score="sparsegpt", data=batches)
    masked = copy.deepcopy(dense)
    mask.apply_(masked)
    assert mask.count == mask.size // 2
    assert (network(x) - dense(x)).norm() < (masked(x) - dense(x)).norm()


def test_a_conv1d_is_pruned_as_the_linear_layer_of_its_transpose() -> None:
    pytest.importorskip("transformers")
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    linear, conv1d = nn.Linear(12, 6), Conv1D(6, 12)
    with torch.no_grad():
        conv1d.weight.copy_(linear.weight.t())
        conv1d.bias.copy_(linear.bias)
    batches = [(torch.randn(20, 12), torch.zeros(20, dtype=torch.long))]
    masks = [prune(network, 0.5, scope="row", score="sparsegpt", data=batches) for network in (linear, conv1d)]
    assert torch.equal(masks[0]["weight"], masks[1]["weight"].t())
    torch.testing.assert_close(linear.weight, conv1d.weight.t())


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"scope": "global"}, ["scope:", "sparsegpt", '"row"']),
        ({"structure": "channels"}, ["score:", "sparsegpt", "units"]),
        ({"rounds": 3}, ["rounds:", "sparsegpt"]),
        ({"data": None}, ["data=BATCHES"]),
        ({"data": [(torch.full((2, 4, 8, 8), torch.nan), torch.zeros(2, dtype=torch.long))]}, ["data:", "0"]),
    ],
)
def test_what_it_cannot_do_is_said_before_anything_changes(options: dict[str, Any], facts: list[str]) -> None:
    network = classifier()
    with raises_input_error(*facts):
        prune(network, **({"density": 0.5, "score": "sparsegpt", "data": data()} | options))
    for one, other in zip(network.parameters(), classifier().parameters(), strict=True):
        assert torch.equal(one, other)


def test_layers_that_it_does_not_know_or_reach_are_named() -> None:
    network = nn.Sequential(nn.Linear(4, 4))
    network.append(nn.Sequential(nn.Linear(4, 4)))
    network[1].forward = lambda x: x  # type: ignore[method-assign]
    batches = [(torch.randn(3, 4), torch.zeros(3, dtype=torch.long))]
    with raises_input_error("data:", "1.0", "leave_out"):
        prune(network, 0.5, score="sparsegpt", data=batches)
    with raises_input_error("score:", "0", "bilinear"):
        prune(nn.Sequential(nn.Bilinear(2, 2, 2)), 0.5, score="sparsegpt", data=batches)
    layer = nn.Linear(4, 4)
    hold(layer, Mask({"weight": torch.eye(4) == 1}))
    with raises_input_error("score:", "release"):
        prune(layer, 0.2, score="sparsegpt", data=batches)
