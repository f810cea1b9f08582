from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.classifier import classifier, data
from tests.support.errors import raises_input_error
from tombola.pruning.hold import hold
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import Globally, Layerwise
from tombola.pruning.scores import SCORES
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
    before = draw(width)
    inputs: tuple[int, ...] = (before,)
    if draw(st.booleans()):
        inputs = (before, 4, 4)
        for _ in range(draw(st.integers(1, 3))):
            after = draw(width)
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=bias), nn.ReLU()]
            before = after
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            layers.append(Residual(before, bias))
        else:
            after = draw(width)
            layers += [nn.Linear(before, after, bias=bias), nn.ReLU()]
            before = after
    return nn.Sequential(*layers, nn.Linear(before, 3, bias=bias)), inputs


@settings(deadline=None, max_examples=60)
@given(networks(), st.floats(1e-3, 1), st.sampled_from(["layer", "global", "erk"]), st.integers(0, 9))
def test_the_density_is_exact(case: tuple[nn.Module, tuple[int, ...]], density: float, kind: str, seed: int) -> None:
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


def neurons_left(mask: Mask) -> int:
    return sum(int(mask[f"{layer}.weight"].any(1).sum()) for layer in (0, 2))


def tiles_left(mask: Mask) -> int:
    return sum(bool(tile.any()) for kept in mask.values() for band in kept.split(5) for tile in band.split(5, 1))


@pytest.mark.parametrize("density", [0.9, 0.5, 0.3])
def test_a_structure_has_an_exact_density_of_units(density: float) -> None:
    for structure, units, count in (("neurons", 12 + 8, neurons_left), ("blocks:5x5", 6 + 6 + 2, tiles_left)):
        mask = prune(classifier(), density, structure=structure, scope="global")
        assert count(mask) == units - round((1 - density) * units)


def test_a_table_gives_densities_by_layer_and_other_layers_stay_dense() -> None:
    assert [*prune(classifier(), {"0": 0.25, "[04]": 0.5}).counts.values()] == [24, 96, 16]
    assert [*prune(classifier(), {"*": 0.5}, leave_out=["4"]).counts.values()] == [48, 48, 32]


def all_but_the_weights(network: nn.Module) -> list[Any]:
    modules = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    gradients = [None if p.grad is None else p.grad.tolist() for p in network.parameters()]
    return [*modules, *gradients, *(p.requires_grad for p in network.parameters())]


@pytest.mark.parametrize("score", SCORES)
def test_nothing_of_the_network_changes_but_the_pruned_weights(score: str) -> None:
    network = classifier()
    network.insert(1, nn.BatchNorm1d(12))
    network.insert(2, nn.Dropout(0.5))
    network[0].bias.requires_grad_(False)
    network(data()[0][0]).sum().backward()
    network[0].register_forward_pre_hook(lambda *_: None)
    network[-1].eval()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    start = {name: value + 1 for name, value in state.items()}
    others, random_state = all_but_the_weights(network), torch.get_rng_state()

    mask = prune(network, 0.5, score=score, data=data(), start=start, rounds=1)

    assert mask.count == sum(n - round(0.5 * n) for n in mask.sizes.values())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all_but_the_weights(network) == others
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name] * mask.get(name, 1))


@pytest.mark.parametrize(
    "score", ["magnitude", "random", "distance", "large_init_large_final", "snip", "wanda", "synflow"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_are_pruned(score: str, dtype: torch.dtype) -> None:
    network = classifier().to(dtype)
    start = {name: torch.rand(value.shape) for name, value in network.state_dict().items()}
    batches = [(x.to(dtype), y) for x, y in data()]
    assert prune(network, 0.5, score=score, data=batches, start=start, rounds=2).count == 112
    assert {parameter.dtype for parameter in network.parameters()} == {dtype}


def test_batches_may_come_from_an_iterator() -> None:
    from_list, from_iterator = (
        prune(classifier(), 0.3, score="grasp", data=batches, rounds=3) for batches in (data(), iter(data()))
    )
    assert from_list == from_iterator


def test_batches_of_any_form_work_with_a_custom_loss() -> None:
    batches = [{"inputs": x, "wanted": torch.zeros(6, 4)} for x, _ in data()]

    def loss(network: nn.Module, batch: Any) -> Tensor:
        return (network(batch["inputs"]) - batch["wanted"]).square().mean()

    for score in ("snip", "fisher", "wanda"):
        assert prune(classifier(), 0.5, score=score, data=batches, loss=loss).count == 112


def test_a_score_may_be_a_function() -> None:
    mask = prune(nn.Linear(2, 2), 0.5, score=lambda inputs: {"weight": torch.tensor([[4.0, 1.0], [2.0, 3.0]])})  # noqa: ARG005
    assert mask["weight"].tolist() == [[True, False], [False, True]]


def test_heads_can_be_described() -> None:
    network = nn.ModuleDict({name: nn.Linear(6, 6) for name in ("q", "k", "v", "o", "output")})
    mask = prune(network, 1 / 3, structure=Heads(3, query="q", key="k", value="v", output="o"))
    assert mask.counts == {"q.weight": 12, "k.weight": 12, "v.weight": 12, "o.weight": 12, "output.weight": 36}


def test_a_warning_names_empty_layers(caplog: pytest.LogCaptureFixture) -> None:
    network = classifier()
    with torch.no_grad():
        network[2].weight.mul_(1e-6)
    prune(network, 0.2, scope="global")
    (message,) = caplog.messages
    assert message.endswith(" in 2")


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"density": {"5": 0.5}}, ["density:", '"5"']),
        ({"density": None}, ["density:", "(0, 1]"]),
        ({"structure": "3:7", "density": None}, ["structure: 3:7", "multiple of 7 inputs", "0 has 8", '["0"]']),
        ({"structure": "channels"}, ["structure:", "channels"]),
        ({"score": lambda inputs: {}}, ["score:", "no tensor", "0.weight", "(12, 8)"]),  # noqa: ARG005
        (
            {"score": lambda inputs: {n: w.flatten() for n, w in inputs.weights.items()}},
            ["(96,)", "0.weight", "(12, 8)"],
        ),
        (
            {"score": lambda inputs: {n: w * torch.nan for n, w in inputs.weights.items()}, "rounds": 2},
            ["0.weight", "NaN"],
        ),
        ({"score": "snip"}, ["score:", "training examples", "data=BATCHES"]),
        ({"score": "distance"}, ["score:", "initial weights", "start=STATE"]),
        ({"score": "distance", "start": {}}, ["start:", "0.weight", "(12, 8)"]),
    ],
)
def test_invalid_arguments_are_named_before_anything_is_pruned(options: dict[str, Any], facts: list[str]) -> None:
    network = classifier()
    with raises_input_error(*facts):
        prune(network, **({"density": 0.5} | options))
    for name, weight in classifier().named_parameters():
        assert torch.equal(weight, dict(network.named_parameters())[name])


@pytest.mark.parametrize("structure", ["weights", "neurons"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_weights_pruned_by_a_hold_stay_pruned(structure: str, rounds: int) -> None:
    network = classifier()
    before = prune(network, 0.5, score="random", structure=structure)
    hold(network, before)
    mask = prune(network, 0.25, score="small_final", structure=structure, rounds=rounds)  # zeros would score highest
    assert mask <= before
    assert mask.counts == prune(classifier(), 0.25, structure=structure).counts
    assert prune(network, 0.5, structure=structure) == before


def test_a_density_above_that_of_the_hold_is_refused() -> None:
    network = classifier()
    hold(network, prune(network, {"0": 0.25}))
    with raises_input_error("density:", "48 of 0.weight", "only 24"):
        prune(network, 0.5)
    with raises_input_error("structure: 2:4", "tombola.pruning.hold.release"):
        prune(network, structure="2:4")


def test_batch_norm_that_has_not_seen_a_batch_is_in_training_mode() -> None:
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
    for score in ("snip", "grasp", "taylor", "wanda"):
        assert prune_by(score) == only_norm
    assert prune_by("fisher") == none
    network(data()[0][0])  # it sees a batch
    assert prune_by("snip") == none


def test_a_network_without_prunable_layers_is_refused() -> None:
    with raises_input_error("no layer to prune"):
        prune(nn.ReLU(), 0.5)


@settings(deadline=None, max_examples=30)
@given(networks(), st.data(), st.sampled_from([2, 7, 100]))
def test_synflow_empties_no_layer_if_there_is_a_weight_for_each(
    case: tuple[nn.Module, tuple[int, ...]], choice: st.DataObject, rounds: int
) -> None:
    network, inputs = case
    full = Mask.full(network)
    count = choice.draw(st.integers(len(full), full.size))
    examples = [(torch.ones(1, *inputs), None)]
    try:
        mask = prune(network, count / full.size, score="synflow", scope="global", data=examples, rounds=rounds)
    except InputError as error:
        if "all scores" not in str(error):
            raise
        reject()  # nearly a weight a layer, in two rounds: the first left no path
    assert mask.count == count
    assert mask.empty_layers == []


def test_synflow_in_one_round_empties_layers() -> None:
    """The reason for the rounds: the layer with the most weights has the lowest scores."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 40, bias=False), nn.Linear(40, 40, bias=False))
    options: dict[str, Any] = {"score": "synflow", "scope": "global", "data": [(torch.ones(1, 3), None)]}
    assert prune(copy.deepcopy(network), 0.003, rounds=1, **options).empty_layers
    mask = prune(network, 0.003, **options)
    assert mask.empty_layers == []
    assert mask.count == 5
    assert network(torch.ones(1, 3)).any()  # and what is left is connected


def test_every_round_scores_the_network_pruned_by_the_one_before() -> None:
    densities = []

    def score(inputs: ScoreInputs) -> dict[str, Tensor]:
        densities.append(inputs.mask.count)
        network = inputs.network()
        for name, weight in network.named_parameters():
            if name in inputs.mask:
                assert torch.equal(weight != 0, inputs.mask[name])
                assert torch.equal(weight, inputs.weights[name])
        return magnitude(inputs)

    mask = prune(nn.Linear(100, 10), 0.01, score=score, rounds=4)
    assert densities == [1000, round(1000 * 0.01**0.25), 100, round(1000 * 0.01**0.75)]
    assert mask.count == 10


def test_magnitude_keeps_the_same_weights_in_any_number_of_rounds() -> None:
    for kind in ("layer", "global", "erk"):
        assert prune(classifier(), 0.3, scope=kind) == prune(classifier(), 0.3, scope=kind, rounds=13)


def test_any_score_can_be_computed_in_rounds() -> None:
    once, rounds = (
        prune(classifier(), 0.1, score="snip", scope="global", data=data(), rounds=rounds) for rounds in (1, 20)
    )
    assert once.count == rounds.count
    assert once != rounds


def test_rounds_empty_layers_if_the_scope_asks_for_it() -> None:
    full = Mask({"a": torch.ones(2, 2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)})
    inputs = ScoreInputs({name: torch.rand(kept.shape) for name, kept in full.items()}, full)
    assert Pruner(magnitude, Layerwise({"a": 1.0, "b": 0.5}), rounds=5)(inputs).counts == {"a": 0, "b": 1}
    assert Pruner(magnitude, Globally(("a", "b"), 0.9), rounds=5)(inputs).count == 1


def test_n_m_patterns_can_be_pruned_in_rounds() -> None:
    mask = prune(classifier(), score="synflow", structure="2:4", data=data())
    assert all((kept.view(-1, 4).sum(1) == 2).all() for kept in mask.values())


@pytest.mark.parametrize("count", [20, 9, 3, 2])
def test_rounds_of_units_are_exact_and_leave_no_layer_empty(count: int) -> None:
    """Down to one neuron in each of two layers."""
    mask = prune(classifier(), count / 20, score="synflow", scope="global", structure="neurons", data=data())
    assert neurons_left(mask) == count
    assert mask.empty_layers == []
