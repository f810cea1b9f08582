"""Scores of weights, their changes and their inputs; every score in a search."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.errors import raises_input_error
from tests.support.prunable_networks import Recurrent, Transformer, tiny_gpt2
from tests.support.recipes import tiny
from tests.support.scores import Batch, convolutional, examples, inputs, linear, of_network
from tombola import prunable, prune
from tombola._run_experiment import run_experiment
from tombola.pruning.mask import Mask
from tombola.pruning.scores import ROUNDS, SCORES, Score, change
from tombola.pruning.scores.activations import wanda
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.weights import magnitude, random, small_final


@pytest.mark.parametrize("score", SCORES)
def test_a_search_prunes_by_every_score(score: str, tmp_path: Path) -> None:
    recipe = tiny(replicates=1, search__levels=1, search__score=score, training__length="20it", controls={})
    results = run_experiment(recipe, tmp_path / "results", engine="eager", workers=1)
    left = 1280 - round(0.4 * 1280), 200 - round(0.4 * 200), 100 - round(0.2 * 100)  # 64 - 20 - 10 - 10
    assert [row.weights for row in results.rows] == [1580, sum(left)]


def test_rounds_are_those_of_known_scores() -> None:
    assert set(ROUNDS) <= set(SCORES)


def test_magnitude_is_the_absolute_value_and_small_final_its_opposite() -> None:
    weights = inputs(a=torch.tensor([-2.0, 0.5, 1.0]))
    assert magnitude(weights)["a"].tolist() == [2.0, 0.5, 1.0]
    assert small_final(weights)["a"].tolist() == [-2.0, -0.5, -1.0]


def test_random_scores_come_from_the_seed_and_from_nothing_else() -> None:
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    first = random(inputs(seed=1, **weights))
    torch.manual_seed(99)
    again, other = random(inputs(seed=1, **weights)), random(inputs(seed=2, **weights))
    for name in weights:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].shape == weights[name].shape


WITH_DATA = ["snip", "taylor", "fisher", "grasp", "wanda", "synflow"]
INITIAL = [1.0, -2.0, 3.0, -0.5, 0.0]
FINAL = [-1.5, -1.0, 0.5, -4.0, 2.0]


@pytest.mark.parametrize(
    ("score", "formula"),
    [
        (change.large_init, lambda i, f: abs(i)),  # noqa: ARG005
        (change.small_init, lambda i, f: -abs(i)),  # noqa: ARG005
        (change.magnitude_increase, lambda i, f: abs(f) - abs(i)),
        (change.distance, lambda i, f: abs(f - i)),
        (change.large_final_same_sign, lambda i, f: max(0, math.copysign(1, i) * f if i else 0)),
        (change.large_final_diff_sign, lambda i, f: max(0, -math.copysign(1, i) * f if i else 0)),
        (change.movement, lambda i, f: (f * f - i * i) / 2),
    ],
)
def test_each_criterion_is_its_formula(score: Score, formula: Callable[[float, float], float]) -> None:
    found = score(inputs(start={"a": torch.tensor(INITIAL)}, a=torch.tensor(FINAL)))["a"]
    assert found.tolist() == [formula(initial, final) for initial, final in zip(INITIAL, FINAL, strict=True)]


@pytest.mark.parametrize("score", [change.large_init_large_final, change.small_init_small_final])
def test_both_magnitudes_have_thresholds_at_the_same_quantile(score: Score) -> None:
    """With the scale α that makes the two thresholds the same quantile, the paper's criterion is this quadrant."""
    torch.manual_seed(0)
    initial, final = torch.randn(200), 3 * torch.randn(200)
    found = score(inputs(start={"a": initial}, a=final))["a"]
    sign = 1 if score is change.large_init_large_final else -1
    for quantile in torch.arange(0, 1, 0.02).tolist():
        large = sign * initial.abs() > (sign * initial.abs()).quantile(quantile)
        quadrant = large & (sign * final.abs() > (sign * final.abs()).quantile(quantile))
        count = int(quadrant.sum())
        assert set(found.argsort(descending=True)[:count].tolist()) == set(quadrant.nonzero().flatten().tolist())


def test_ranks_are_among_the_weights_that_are_left() -> None:
    weights, start = {"a": torch.tensor([0.0, 1.0, 2.0, 3.0])}, {"a": torch.tensor([9.0, 8.0, 7.0, 6.0])}
    mask = Mask({"a": torch.tensor([False, True, True, True])})
    found = change.large_init_large_final(ScoreInputs(weights, mask, _start=lambda: start))["a"]
    assert found[1:].tolist() == [0, pytest.approx(1 / 3), 0]


def test_movement_is_the_papers_sum_over_a_training_with_small_steps() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,))
    start = {name: value.clone() for name, value in network.state_dict().items()}
    lr, names = 1e-3, ["0.weight", "2.weight"]
    parameters = dict(network.named_parameters())
    accumulated = {name: torch.zeros_like(parameters[name]) for name in names}
    for _ in range(2000):
        gradients = torch.autograd.grad(functional.cross_entropy(network(x), y), list(parameters.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                if name in accumulated:
                    accumulated[name] -= lr * gradient * weight
                weight -= lr * gradient
    weights = {name: parameters[name].detach() for name in names}
    found = change.movement(inputs(start=start, **weights))
    for name in names:
        torch.testing.assert_close(found[name], accumulated[name], rtol=0, atol=1e-4)
        assert accumulated[name].abs().max() > 0.05  # both are not just zero


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        *((name, ["initial weights", "start=STATE"]) for name in ("large_init", "large_init_large_final")),
        *((name, ["training examples", "data=BATCHES"]) for name in WITH_DATA),
    ],
)
def test_missing_inputs_are_reported(name: str, facts: list[str]) -> None:
    with raises_input_error(*facts):
        SCORES[name](of_network(linear()))


@pytest.mark.parametrize("name", WITH_DATA)
def test_data_without_batches_are_reported(name: str) -> None:
    with raises_input_error("data: has no batches"):
        SCORES[name](of_network(linear(), []))


def total(network: nn.Module, x: Tensor) -> Tensor:
    return network(x).sum()


def test_a_linear_weight_is_multiplied_by_the_norm_of_its_input_feature() -> None:
    network, batches = linear().requires_grad_(False), examples((4,))
    found = wanda(of_network(network, batches))
    x = torch.cat([x for x, _ in batches])
    for name, seen in (("0.weight", x), ("2.weight", network[:2](x))):
        weight = network.get_parameter(name)
        for out, feature in itertools.product(*map(range, weight.shape)):
            norm = sum(float(value) ** 2 for value in seen[:, feature]) ** 0.5
            assert float(found[name][out, feature]) == pytest.approx(abs(float(weight[out, feature])) * norm)


def test_norms_are_over_all_tokens() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 5, 3)
    norms = x.flatten(0, 1).norm(dim=0)
    torch.testing.assert_close(wanda(of_network(layer, [x], total))["weight"], layer.weight.abs() * norms)


def test_a_filter_is_multiplied_by_the_norms_of_the_channels_of_its_group() -> None:
    network, batches = convolutional().requires_grad_(False), examples((2, 4, 4))
    found = wanda(of_network(network, batches))
    x = torch.cat([x for x, _ in batches])
    for name, seen, groups in (("0.weight", x, 1), ("2.weight", network[:2](x), 2)):
        weight = network.get_parameter(name)
        for index in itertools.product(*map(range, weight.shape)):
            out, channel, *_ = index
            group = out // (len(weight) // groups)
            norm = float(seen[:, group * weight.shape[1] + channel].norm())
            assert float(found[name][index]) == pytest.approx(abs(float(weight[index])) * norm)


def test_transposed_convolutions_have_inputs_first() -> None:
    layer, x = nn.ConvTranspose2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5)
    found = wanda(of_network(layer, [x], total))["weight"]
    for channel in range(4):
        torch.testing.assert_close(found[channel], layer.weight[channel].abs() * x[:, channel].norm())


def test_a_shared_weight_uses_the_inputs_of_all_its_layers() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    network[2].weight = network[0].weight
    x = torch.randn(5, 3)
    norms = torch.cat([x, network[:2](x)]).norm(dim=0)
    torch.testing.assert_close(wanda(of_network(network, [x], total))["0.weight"], network[0].weight.abs() * norms)


def test_layers_may_be_called_by_keyword() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor, scale: float) -> Tensor:
            return super().forward(scale * x)

    network, x = nn.ModuleDict({"plain": nn.Linear(3, 3), "scaled": Scaled(3, 2)}), torch.randn(4, 3)
    found = wanda(of_network(network, [x], lambda net, x: net["scaled"](scale=2.0, x=net["plain"](input=x)).sum()))
    for name, seen in (("plain", x), ("scaled", network["plain"](x))):
        weight = network.get_parameter(f"{name}.weight")
        torch.testing.assert_close(found[f"{name}.weight"], weight.abs() * seen.norm(dim=0))


def test_unused_layers_score_zero_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    found = wanda(of_network(network, [torch.ones(1, 3)], lambda net, x: total(net["used"], x)))
    assert found["used.weight"].all()
    assert not found["unused.weight"].any()
    (message,) = caplog.messages
    assert "inputs of unused:" in message


def test_wanda_calls_the_loss_in_evaluation_mode_without_gradients() -> None:
    network, (batch,) = linear(), examples((4,), (5,))

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not network.training
        return total(network, batch[0])

    wanda(of_network(network, [batch], loss))


def test_wanda_reads_the_inputs_of_attention() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(4, 2)
    query, key, value = torch.randn(3, 5, 2, 4)

    def loss(net: nn.Module, batch: Any) -> Tensor:
        return net(batch[0], key=batch[1], value=batch[2])[0].sum()  # type: ignore[no-any-return]

    found = wanda(of_network(attention, [(query, key, value)], loss))
    weights = attention.in_proj_weight.chunk(3)
    for part, x, weight in zip(found["in_proj_weight"].chunk(3), (query, key, value), weights, strict=True):
        torch.testing.assert_close(part, weight.abs() * x.flatten(0, 1).square().sum(0).sqrt())
    whole = copy.deepcopy(attention).eval()
    with torch.no_grad():
        whole.out_proj.weight.copy_(torch.eye(4))
        whole.out_proj.bias.zero_()
        inner = whole(query, key, value)[0]
    norms = inner.flatten(0, 1).square().sum(0).sqrt()
    torch.testing.assert_close(found["out_proj.weight"], attention.out_proj.weight.abs() * norms)


def test_wanda_reads_the_inputs_of_an_encoder_and_of_hugging_faces_layers() -> None:
    tokens = torch.arange(8).view(2, 4)
    for network in (Transformer(), tiny_gpt2()):
        found = wanda(of_network(network, [tokens], lambda net, x: total_of(net(x))))
        assert {*found} == {*prunable(network)}
        assert all(scores.any() for scores in found.values())


def total_of(output: Any) -> Tensor:
    return getattr(output, "logits", output).sum()  # type: ignore[no-any-return]


def test_layers_whose_inputs_wanda_cannot_see_are_refused_unless_left_out() -> None:
    network, data = Recurrent(), [(torch.randn(3, 5, 3), torch.tensor([0, 1, 0]))]
    with raises_input_error("rnn.weight_ih_l0", 'leave_out=["rnn.weight_ih_l0"]'):
        prune(network, 0.5, score="wanda", data=data)
    assert prune(network, 0.5, score="wanda", data=data, leave_out=["rnn"]).counts["head.weight"] == 4
