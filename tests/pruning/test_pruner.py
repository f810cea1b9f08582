from __future__ import annotations

import copy
import logging
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner, prune
from tombola.pruning.scopes import Globally, Layerwise, scope
from tombola.pruning.scores import SCORES
from tombola.pruning.scores.gradients import snip
from tombola.pruning.scores.inputs import ScoreInputs, cross_entropy
from tombola.pruning.scores.weights import magnitude
from tombola.pruning.structures import Heads
from tombola.utils.errors import InputError


class Residual(nn.Module):
    """A layer with a shortcut around it."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x).relu()


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """Small networks with weights and biases drawn, and the shape of an example."""
    bias, width = draw(st.booleans()), st.integers(1, 6)
    torch.manual_seed(draw(st.integers(0, 1000)))
    layers: list[nn.Module] = []
    if draw(st.booleans()):
        inputs: tuple[int, ...] = (draw(st.integers(1, 3)), 4, 4)
        channels = inputs[0]
        for _ in range(draw(st.integers(1, 3))):
            out = draw(width)
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=bias), nn.ReLU()]
            channels = out
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        before = channels
    else:
        before = draw(width)
        inputs = (before,)
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            layers.append(Residual(before, bias))
        else:
            after = draw(width)
            layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
            before = after
    return nn.Sequential(*layers, nn.Linear(before, 3, bias=bias)), inputs


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def data(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(6, 8, generator=generator), torch.arange(6) % 4) for _ in range(count)]


# Rounds


@settings(deadline=None, max_examples=100)
@given(networks(), st.data(), st.sampled_from([2, 7, 100]))
def test_synflow_leaves_no_layer_empty_as_long_as_there_is_a_weight_for_each(
    case: tuple[nn.Module, tuple[int, ...]], choice: st.DataObject, rounds: int
) -> None:
    network, inputs = case
    full = Mask.full(network)
    count = choice.draw(st.integers(len(full), full.size))
    mask = prune(
        network,
        count / full.size,
        score="synflow",
        scope="global",
        data=[(torch.ones(1, *inputs), None)],
        rounds=rounds,
    )
    assert mask.count == count
    assert mask.empty_layers == []


def test_in_one_round_synflow_does_empty_layers() -> None:
    """What the rounds are for: the layer with the most weights scores lowest, as any score taken once has it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 40, bias=False), nn.Linear(40, 40, bias=False))
    options: dict[str, Any] = {"score": "synflow", "scope": "global", "data": [(torch.ones(1, 3), None)]}
    assert prune(copy.deepcopy(network), 0.003, rounds=1, **options).empty_layers
    mask = prune(network, 0.003, **options)
    assert mask.empty_layers == []
    assert mask.count == 5
    assert network(torch.ones(1, 3)).any()  # and what is left is connected


def test_every_round_scores_what_the_one_before_has_left() -> None:
    densities = []

    def score(grounds: ScoreInputs) -> dict[str, Tensor]:
        densities.append(grounds.mask.count)
        network = grounds.network()
        for name, weight in network.named_parameters():
            if name in grounds.mask:
                assert torch.equal(weight != 0, grounds.mask[name])
                assert torch.equal(weight, grounds.weights[name])
        return magnitude(grounds)

    mask = prune(nn.Linear(100, 10), 0.01, score=score, rounds=4)
    assert densities == [1000, round(1000 * 0.01**0.25), 100, round(1000 * 0.01**0.75)]
    assert mask.count == 10


def test_in_rounds_magnitude_keeps_what_it_keeps_at_once() -> None:
    network = classifier()
    for kind in ("layer", "global", "erk"):
        at_once, in_rounds = (prune(copy.deepcopy(network), 0.3, scope=kind, rounds=rounds) for rounds in (1, 13))
        assert at_once == in_rounds


def test_any_score_can_be_taken_in_rounds() -> None:
    network = classifier()
    once = prune(copy.deepcopy(network), 0.1, score="snip", scope="global", data=data())
    rounds = prune(copy.deepcopy(network), 0.1, score="snip", scope="global", data=data(), rounds=20)
    assert once.count == rounds.count
    assert once != rounds


def test_rounds_reach_counts_that_leave_layers_empty_where_that_is_said() -> None:
    full = Mask({"a": torch.ones(2, 2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)})
    grounds = ScoreInputs({name: torch.rand(kept.shape) for name, kept in full.items()}, full)
    assert Pruner(magnitude, Layerwise({"a": 1.0, "b": 0.5}), rounds=5)(grounds).counts == {"a": 0, "b": 1}
    assert Pruner(magnitude, Globally(("a", "b"), 0.9), rounds=5)(grounds).count == 1


def test_rounds_and_patterns_go_together() -> None:
    mask = prune(classifier(), score="synflow", structure="2:4", data=data())
    assert all((kept.view(-1, 4).sum(1) == 2).all() for kept in mask.values())


@pytest.mark.parametrize("count", [20, 9, 3, 2])
def test_rounds_of_units_are_exact_and_leave_no_layer_empty(count: int) -> None:
    """Down to one neuron in each of two layers."""
    mask = prune(classifier(), count / 20, score="synflow", scope="global", structure="neurons", data=data())
    assert sum(int(mask[f"{layer}.weight"].any(1).sum()) for layer in (0, 2)) == count
    assert mask.empty_layers == []


# prune


@settings(deadline=None, max_examples=300)
@given(networks(), st.floats(1e-3, 1), st.sampled_from(["layer", "global", "erk"]), st.integers(0, 9))
def test_exactly_as_many_weights_are_left_as_was_asked_for(
    case: tuple[nn.Module, tuple[int, ...]], density: float, kind: str, seed: int
) -> None:
    network, _ = case
    sizes = Mask.full(network).sizes
    logging.disable()  # tiny networks do run empty
    mask = prune(network, density, scope=kind, score="random", seed=seed)
    logging.disable(logging.NOTSET)
    if kind == "layer":
        assert mask.counts == {name: size - round((1 - density) * size) for name, size in sizes.items()}
    else:
        assert mask.count == sum(sizes.values()) - round((1 - density) * sum(sizes.values()))
    for name, weight in network.named_parameters():
        if name in mask:
            assert not weight[~mask[name]].any()


@pytest.mark.parametrize(
    ("structure", "units"),
    [("weights", 96 + 96 + 32), ("neurons", 12 + 8), ("blocks:4x4", 6 + 6 + 2), ("blocks:5x5", 6 + 6 + 2)],
)
@pytest.mark.parametrize("density", [0.9, 0.5, 0.3])
def test_of_a_structure_it_is_the_units_that_are_counted(structure: str, units: int, density: float) -> None:
    pruned = prune(classifier(), density, structure=structure, scope="global")
    counted = {
        "weights": lambda mask: mask.count,
        "neurons": lambda mask: sum(int(mask[f"{layer}.weight"].any(1).sum()) for layer in (0, 2)),
        "blocks:4x4": lambda mask: _tiles(mask, 4),
        "blocks:5x5": lambda mask: _tiles(mask, 5),
    }[structure](pruned)
    assert counted == units - round((1 - density) * units)


def _tiles(mask: Mask, side: int) -> int:
    return sum(bool(t.any()) for kept in mask.values() for band in kept.split(side) for t in band.split(side, 1))


def test_a_table_gives_layers_their_own_densities_and_leaves_others_alone() -> None:
    mask = prune(classifier(), {"0": 0.25, "[04]": 0.5})
    assert mask.counts == {"0.weight": 24, "2.weight": 96, "4.weight": 16}
    mask = prune(classifier(), {"*": 0.5}, leave_out=["4"])
    assert mask.counts == {"0.weight": 48, "2.weight": 48, "4.weight": 32}


def test_layers_left_out_do_not_count() -> None:
    assert prune(classifier(), 0.5, scope="global", leave_out=["4"]).counts["4.weight"] == 32
    assert prune(classifier(), 0.5, scope="global", leave_out=["4"]).count == 96 + 32


def test_a_network_can_be_pruned_before_it_is_trained() -> None:
    """SNIP at initialisation, against its formula."""
    network = classifier()
    expected = snip(
        ScoreInputs(
            {n: p.detach() for n, p in network.named_parameters() if n in Mask.full(network)},
            Mask.full(network),
            _network=lambda: copy.deepcopy(network),
            _batches=data,
        )
    )
    worth = torch.cat([expected[name].flatten() for name in expected])
    mask = prune(network, 0.25, score="snip", scope="global", data=data())
    kept = torch.cat([mask[name].flatten() for name in expected])
    assert int(kept.sum()) == 56
    assert worth[kept].min() >= worth[~kept].max()


@pytest.mark.parametrize("score", SCORES)
def test_of_the_network_nothing_changes_but_the_weights_that_go(score: str) -> None:
    network = classifier()
    network.insert(1, nn.BatchNorm1d(12))
    network.insert(2, nn.Dropout(0.5))
    network[0].bias.requires_grad_(False)
    network(data()[0][0]).sum().backward()
    seen: list[None] = []
    network[0].register_forward_pre_hook(lambda *_: seen.append(None))
    network[-1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    gradients = {n: None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}
    modes = [module.training for module in network.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    start = {name: value + 1 for name, value in before.items()}
    torch.manual_seed(5)
    random_state = torch.get_rng_state()

    mask = prune(network, 0.5, score=score, data=data(), start=start, rounds=1)

    assert mask.count == sum(n - round(0.5 * n) for n in mask.sizes.values())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert modes == [module.training for module in network.modules()]
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    assert [p.requires_grad for p in network.parameters()] == [True, False] + [True] * (len(gradients) - 2)
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] * mask[name] if name in mask else before[name])


@pytest.mark.parametrize(
    "score", ["magnitude", "random", "distance", "large_init_large_final", "snip", "wanda", "synflow"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_networks_of_other_precisions_are_pruned(score: str, dtype: torch.dtype) -> None:
    network = classifier().to(dtype)
    start = {name: torch.rand(value.shape) for name, value in network.state_dict().items()}
    batches = [(x.to(dtype), y) for x, y in data()]
    assert prune(network, 0.5, score=score, data=batches, start=start, rounds=2).count == 112
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("score", SCORES)
def test_networks_on_a_gpu_are_pruned_there(score: str) -> None:
    network = classifier().cuda()
    start = {name: value.cpu() + 1 for name, value in network.state_dict().items()}
    batches = [(x.cuda(), y.cuda()) for x, y in data()]
    assert prune(network, 0.5, score=score, data=batches, start=start, rounds=2).count == 112


def test_batches_may_come_from_an_iterator_though_they_are_wanted_often() -> None:
    from_list, from_iterator = (
        prune(classifier(), 0.3, score="grasp", data=batches, rounds=3) for batches in (data(), iter(data()))
    )
    assert from_list == from_iterator


def test_batches_of_any_form_go_with_a_loss_of_ones_own() -> None:
    batches = [{"inputs": x, "wanted": torch.zeros(6, 4)} for x, _ in data()]

    def loss(network: nn.Module, batch: Any) -> Tensor:
        return (network(batch["inputs"]) - batch["wanted"]).square().mean()

    for score in ("snip", "fisher", "wanda"):
        assert prune(classifier(), 0.5, score=score, data=batches, loss=loss).count == 112


def test_a_score_may_be_any_function() -> None:
    mask = prune(nn.Linear(2, 2), 0.5, score=lambda grounds: {"weight": torch.tensor([[4.0, 1.0], [2.0, 3.0]])})  # noqa: ARG005
    assert mask["weight"].tolist() == [[True, False], [False, True]]


def test_heads_can_be_described() -> None:
    network = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("q", "k", "v", "o", "output")})
    mask = prune(network, 1 / 3, structure=Heads(3, query="q", key="k", value="v", output="o"))
    assert mask.counts == {"q.weight": 12, "k.weight": 12, "v.weight": 12, "o.weight": 12, "output.weight": 36}


def test_layers_that_end_up_empty_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    network = classifier()
    with torch.no_grad():
        network[2].weight.mul_(1e-6)
    prune(network, 0.2, scope="global")
    assert caplog.messages == ["no weight is left in 2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "magnitud"}, 'unknown score "magnitud": did you mean "magnitude"?'),
        ({"scope": "globl"}, 'unknown scope "globl": did you mean "global"?'),
        ({"structure": "neuron"}, 'unknown structure "neuron": did you mean "neurons"?'),
        ({"leave_out": ["5"]}, 'leave_out: unknown layer "5"'),
        ({"leave_out": "4"}, 'leave_out: should be a list of names, ["4"]'),
        ({"leave_out": ["*"]}, "leave_out: every layer is left out"),
        ({"density": {"5": 0.5}}, 'density: unknown layer "5"'),
        ({"density": {"4": 2}}, 'density of "4": should be a number greater than 0 and at most 1, not 2'),
        (
            {"density": {"4": 0.5}, "scope": "global"},
            'density: one for each layer goes with scope "layer", not "global"',
        ),
        ({"density": 0}, "density: should be a number greater than 0 and at most 1, not 0"),
        ({"density": 1.01}, "density: should be a number greater than 0 and at most 1, not 1.01"),
        ({"density": math.nan}, "density: should be a number greater than 0 and at most 1, not nan"),
        ({"density": "0.5"}, "density: should be a number greater than 0 and at most 1, not '0.5'"),
        ({"density": True}, "density: should be a number greater than 0 and at most 1, not True"),
        ({"density": None}, "density: how much is kept should be given, a number in (0, 1]"),
        ({"structure": "2:4", "density": 0.4}, 'density: structure "2:4" leaves 0.5 of every layer, not 0.4'),
        ({"structure": "3:7"}, 'density: structure "3:7" leaves 0.428571 of every layer, not 0.5'),
        (
            {"structure": "3:7", "density": None},
            'structure: 3:7 needs a multiple of 7 inputs, 0 has 8; leave_out = ["0"]',
        ),
        ({"structure": "channels"}, "structure: no layer that is pruned has channels"),
        ({"structure": "2:4", "scope": "erk"}, 'scope: "erk" goes with structure "weights", not "2:4"'),
        ({"structure": "neurons", "scope": "erk"}, 'scope: "erk" goes with structure "weights", not "neurons"'),
        (
            {"score": lambda grounds: {}},  # noqa: ARG005
            "score: it gives no tensor for 0.weight, where one of the weight's shape (12, 8) belongs",
        ),
        (
            {"score": lambda grounds: {n: w.abs().flatten() for n, w in grounds.weights.items()}},
            "score: it gives a tensor of (96,) for 0.weight, where one of the weight's shape (12, 8) belongs",
        ),
        (
            {"score": lambda grounds: {n: w * torch.nan for n, w in grounds.weights.items()}, "rounds": 2},
            "the scores of 0.weight are not all numbers",
        ),
        ({"rounds": 0}, "rounds: should be a whole number, at least 1, not 0"),
        (
            {"score": "snip"},
            "this score looks at training examples, and there is nothing to look at: give data=BATCHES",
        ),
        (
            {"score": "distance"},
            "this score looks at the initial weights, and there is nothing to look at: give start=STATE",
        ),
        (
            {"score": "distance", "start": {}},
            "start: should be a state_dict of this network; 0.weight of shape (12, 8)",
        ),
    ],
)
def test_mistakes_are_named_in_one_line_before_anything_is_pruned(options: dict[str, Any], message: str) -> None:
    network = classifier()
    with pytest.raises(InputError) as caught:
        prune(network, **({"density": 0.5} | options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, weight in classifier().named_parameters():
        assert torch.equal(weight, dict(network.named_parameters())[name])


@pytest.mark.parametrize("structure", ["weights", "neurons"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_what_a_hold_has_pruned_is_gone_already(structure: str, rounds: int) -> None:
    network = classifier()
    before = prune(network, 0.5, score="random", structure=structure)
    hold(network, before)
    mask = prune(network, 0.25, score="small_final", structure=structure, rounds=rounds)  # zeros would score highest
    assert mask <= before
    assert mask.counts == prune(classifier(), 0.25, structure=structure).counts
    assert prune(network, 0.5, structure=structure) == before


def test_a_hold_that_leaves_too_little_is_said() -> None:
    network = classifier()
    hold(network, prune(network, {"0": 0.25}))
    with pytest.raises(
        InputError, match=r"^density: 48 are to stay of 0.weight, and the network's hold has left 24$"
    ):
        prune(network, 0.5)
    with pytest.raises(InputError, match=r"^structure: 2:4 is of whole layers; first tombola.pruning.hold.release"):
        prune(network, structure="2:4")


def test_before_training_batch_norm_normalises_batches_by_themselves() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 4))
    modes: list[list[bool]] = []

    def loss(scored: nn.Module, batch: Any) -> Tensor:
        modes.append([layer.training for layer in scored])
        return cross_entropy(scored, batch)

    def prune_by(score: str) -> list[bool]:
        modes.clear()
        prune(copy.deepcopy(network), 0.5, score=score, data=data(), loss=loss)
        assert all(mode == modes[0] for mode in modes)
        return modes[0]

    only_norm, none = [False, True, False, False, False], [False] * 5
    assert {score: prune_by(score) for score in ("snip", "grasp", "taylor", "wanda", "fisher")} == {
        "snip": only_norm,
        "grasp": only_norm,
        "taylor": only_norm,
        "wanda": only_norm,
        "fisher": none,
    }
    network(data()[0][0])  # it sees a batch
    assert prune_by("snip") == none


def test_a_network_with_nothing_to_prune_is_refused() -> None:
    with pytest.raises(InputError, match="no linear or convolutional layer to prune"):
        prune(nn.ReLU(), 0.5)


def test_one_pruning_by_a_pruner_keeps_what_its_scope_says() -> None:
    network = classifier()
    full = Mask.full(network)
    grounds = ScoreInputs({n: p.detach() for n, p in network.named_parameters() if n in full}, full)
    pruner = Pruner(magnitude, scope("layer", full.shapes, 0.2))
    once = pruner(grounds)
    twice = pruner(grounds.masked(once))
    assert twice <= once
    assert twice.counts == {name: left - round(0.2 * left) for name, left in once.counts.items()}
