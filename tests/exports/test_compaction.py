from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.export_networks import FunctionNetwork, images
from tests.support.random_networks import Concatenated, Residual, networks, randomise, sparsify
from tests.support.zoo_networks import CIFAR, MNIST, SMALL, build_network
from tombola import hold, prune
from tombola.exports.compaction import compact, shrunk
from tombola.pruning.mask import Mask
from tombola.zoo.models.resnet import Subsample

MODES = ("zeros", "circular", "reflect", "replicate")


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each weight, by its layer's name."""
    named = network.named_parameters()
    return {name.removesuffix(".weight"): tuple(w.shape) for name, w in named if name.endswith("weight")}


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def zero(network: nn.Module, layer: str, rows: Any = slice(None), columns: Any = slice(None)) -> None:
    network.get_parameter(f"{layer}.weight")[rows, columns] = 0


def assert_close(network: nn.Module, smaller: nn.Module, example: Tensor, within: float = 1e-5) -> None:
    with torch.no_grad():
        before, after = network.eval()(example), smaller(example)
    assert (after - before).abs().max() <= within * before.abs().max() + 1e-12


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw its biases and batch norm anew."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return randomise(network).eval()


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks(MODES, torch.float64), st.sampled_from([0.01, 0.1, 0.3, 0.6]), st.integers(0, 2**16))
def test_a_smaller_network_computes_the_same(drawn: tuple[nn.Module, Tensor], density: float, seed: int) -> None:
    network, example = drawn
    sparsify(network, density, seed)
    with torch.no_grad():
        smaller = shrunk(network, example)  # not `compact`, which returns a copy of the network if this fails
    assert_close(network, smaller, example, 1e-9)
    assert_close(network, smaller, images(4, *example.shape[1:]).double(), 1e-9)
    assert count_parameters(compact(network, example)) <= count_parameters(network)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_networks_of_the_zoo_compute_the_same(name: str, scope: str, caplog: pytest.LogCaptureFixture) -> None:
    network = seeded(build_network(name, **SMALL[name]))
    example = images(2, *CIFAR)
    if scope == "layer":
        generator = torch.Generator().manual_seed(0)
        full = Mask.full(network)
        Mask({n: torch.rand(kept.shape, generator=generator) < 0.05 for n, kept in full.items()}).apply_(network)
    else:
        prune(network, 0.05, scope="global")
    caplog.clear()
    smaller = compact(network, example)
    assert not caplog.records
    assert_close(network, smaller, example)
    assert count_parameters(smaller) <= count_parameters(network)
    assert scope == "global" or count_parameters(smaller) < count_parameters(network)
    assert [type(module) for module in smaller.modules()] == [type(module) for module in network.modules()]
    assert set(network.state_dict()) <= set(smaller.state_dict())


def test_dead_units_of_lenet() -> None:
    network = seeded(build_network("lenet-300-100", inputs=MNIST))
    zero(network, "fc1", rows=slice(0, 250))  # these are constants now; 50 units are kept
    zero(network, "fc2", columns=slice(290, 300))  # 10 units without a reader
    zero(network, "fc2", rows=[3, 5])
    zero(network, "output", columns=[7])
    smaller = compact(network, images(2, *MNIST))
    assert shapes(smaller) == {"fc1": (40, 784), "fc2": (97, 40), "output": (10, 97)}
    fc1 = smaller.get_submodule("fc1")
    assert (fc1.in_features, fc1.out_features) == (784, 40)
    assert_close(network, smaller, images(5, *MNIST))
    constant = torch.relu(network.get_parameter("fc1.bias")[:250].double())
    folded = (
        network.get_parameter("fc2.bias").double() + network.get_parameter("fc2.weight")[:, :250].double() @ constant
    )
    kept = [row for row in range(100) if row not in (3, 5, 7)]
    torch.testing.assert_close(smaller.get_parameter("fc2.bias"), folded[kept].float())


def test_all_pixels_of_a_dead_channel_are_removed_behind_flattening() -> None:
    network = build_network("lenet-5", inputs=MNIST)
    zero(network, "conv1", rows=[0, 4])
    zero(network, "conv2", rows=[1, 2, 3])
    smaller = compact(network, images(2, *MNIST))
    expected = {
        "conv1": (4, 1, 5, 5),
        "conv2": (13, 4, 5, 5),
        "fc1": (120, 325),
        "fc2": (84, 120),
        "output": (10, 84),
    }
    assert shapes(smaller) == expected
    assert_close(network, smaller, images(2, *MNIST))


class Norms(nn.Sequential):
    """A convolution without bias, batch norm that puts channel i to i - 1.5, and a padded convolution."""

    def __init__(self, padding: int | str) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, padding=padding, bias=False)
        )
        with torch.no_grad():
            self[1].bias.copy_(torch.arange(4) - 1.5)


@pytest.mark.parametrize("padding", [1, "same"])
def test_one_constant_channel_replaces_the_others_before_a_padded_convolution(padding: int | str) -> None:
    network = Norms(padding).eval()
    zero(network, "0", rows=[0, 1, 2])  # constants -1.5, -0.5 and 0.5
    smaller = compact(network, images(2, 2, 6, 6))
    assert shapes(smaller) == {"0": (2, 2, 3, 3), "1": (2,), "2": (3, 2, 3, 3)}
    before, after = network.get_parameter("2.weight"), smaller.get_parameter("2.weight")
    torch.testing.assert_close(after[:, 0], before[:, 0] + before[:, 1] / 3 - before[:, 2] / 3)
    assert torch.equal(after[:, 1], before[:, 3])
    assert "2.bias" not in smaller.state_dict()
    assert_close(network, smaller, images(3, 2, 6, 6))


def test_a_layer_without_bias_gets_one_for_constants() -> None:
    network = Norms(padding=0).eval().requires_grad_(False)
    zero(network, "0", rows=[0, 1, 2])
    smaller = compact(network, images(2, 2, 6, 6))
    assert shapes(smaller) == {"0": (1, 2, 3, 3), "1": (1,), "2": (3, 1, 3, 3)}
    assert smaller.get_parameter("2.bias").shape == (3,)
    assert not any(parameter.requires_grad for parameter in smaller.parameters())
    assert_close(network, smaller, images(3, 2, 6, 6))


def test_a_channel_that_is_dead_in_a_whole_stage_is_removed() -> None:
    network = seeded(build_network("resnet", depth=14, width=4))
    for layer in ("conv", "stage1.0.conv2", "stage1.1.conv2"):
        zero(network, layer, rows=[1])
    for bn in ("bn", "stage1.0.bn2", "stage1.1.bn2"):
        with torch.no_grad():
            network.get_parameter(f"{bn}.bias")[1] = network.get_submodule(bn).running_mean[1] = 0  # type: ignore[index]
    zero(network, "stage1.1.conv2", rows=[2])  # but alive in the rest of the stage
    smaller = compact(network, images(2, *CIFAR))
    found = shapes(smaller)
    assert found["conv"] == (3, 3, 3, 3)
    assert found["stage1.0.conv1"] == found["stage1.1.conv1"] == (4, 3, 3, 3)
    assert found["stage1.0.conv2"] == found["stage1.1.conv2"] == (3, 4, 3, 3)
    assert found["stage2.0.conv1"] == (8, 3, 3, 3)
    assert found["stage2.0.shortcut.0"] == (8, 3, 1, 1)
    assert found["stage3.1.conv2"] == (16, 16, 3, 3)
    assert_close(network, smaller, images(2, *CIFAR))


def test_a_subsampling_shortcut_has_as_many_channels_as_are_kept() -> None:
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, padding=1, bias=False))
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), Residual(body, Subsample(6)), nn.Conv2d(6, 2, 1)).eval()
    zero(network, "0", rows=[1])
    zero(network, "1.body.0", rows=[1, 4])
    smaller = compact(network, images(2, 1, 6, 6))
    assert shapes(smaller) == {"0": (2, 1, 1, 1), "1.body.0": (4, 2, 3, 3), "2": (2, 4, 1, 1)}
    assert smaller.get_submodule("1.shortcut").channels == 4
    assert_close(network, smaller, images(2, 1, 6, 6))


def test_depthwise_convolutions_and_concatenations_lose_channels_of_their_inputs() -> None:
    branch = nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 1, bias=False), Concatenated(branch, nn.Conv2d(3, 2, 1)), nn.Conv2d(11, 2, 1)
    )
    zero(network, "0", rows=[2])
    zero(network, "1.other", rows=[0])
    smaller = compact(network.eval(), images(2, 1, 6, 6))
    assert shapes(smaller) == {"0": (2, 1, 1, 1), "1.one": (4, 1, 3, 3), "1.other": (1, 2, 1, 1), "2": (2, 7, 1, 1)}
    one = smaller.get_submodule("1.one")
    assert (one.groups, one.in_channels, one.out_channels) == (2, 2, 4)
    assert_close(network, smaller, images(2, 1, 6, 6))


def test_one_unit_of_each_layer_is_kept_before_an_empty_layer() -> None:
    network = seeded(build_network("lenet-300-100", inputs=MNIST))
    zero(network, "fc2")
    smaller = compact(network, images(2, *MNIST))
    assert shapes(smaller) == {"fc1": (1, 784), "fc2": (1, 1), "output": (10, 1)}
    assert_close(network, smaller, images(2, *MNIST))


def test_hidden_units_of_a_transformer_are_removed() -> None:
    network = seeded(build_network("vit", **SMALL["vit"]))
    zero(network, "block1.fc1", rows=[0, 1])
    zero(network, "block2.fc2", columns=[5])
    smaller = compact(network, images(2, *CIFAR))
    found = shapes(smaller)
    assert (found["block1.fc1"], found["block1.fc2"]) == ((46, 12), (12, 46))
    assert (found["block2.fc1"], found["block2.fc2"]) == ((47, 12), (12, 47))
    assert found["block1.attention.qkv"] == (36, 12)
    assert_close(network, smaller, images(2, *CIFAR))


def test_a_dense_network_is_copied_and_not_changed() -> None:
    network = seeded(build_network("vgg-11", width=0.05)).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random = torch.random.get_rng_state()
    example = images(2, *CIFAR)
    before = example.clone()
    smaller = compact(network, example)
    assert network.training
    assert not any(module.training for module in smaller.modules())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.equal(example, before)
    assert list(smaller.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in smaller.state_dict().items())
    assert not {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in smaller.parameters()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinite_weights_are_kept(value: float) -> None:
    network = build_network("mlp", widths=[6, 5], inputs=(8, 8))
    zero(network, "fc1", rows=[0, 1])
    with torch.no_grad():
        network.get_parameter("fc1.weight")[2] = value
        network.get_parameter("fc1.bias")[0] = value
    smaller = compact(network, images(2, 8, 8))
    assert shapes(smaller)["fc1"] == (4 + 1, 64)  # the second is removed; the first is a constant that is not finite
    torch.testing.assert_close(smaller(images(2, 8, 8)), network.eval()(images(2, 8, 8)), equal_nan=True)


def test_the_copy_of_a_held_network_is_not_held() -> None:
    network = build_network("mlp", widths=[20], inputs=(8, 8))
    mask = Mask.full(network)
    kept = mask["fc1.weight"].clone()
    kept[:5] = False
    hold(network, Mask({**mask, "fc1.weight": kept}))
    smaller = compact(network, images(2, 8, 8))
    assert shapes(smaller) == {"fc1": (15, 64), "output": (10, 15)}
    smaller.train()(images(2, 8, 8)).sum().backward()
    assert bool(smaller.get_parameter("fc1.weight").grad.any())  # type: ignore[union-attr]


def test_layers_next_to_literal_sizes_are_not_shrunk() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        y: Tensor = n.b(torch.relu(n.a(x)).view(-1, 64))
        return y

    network = FunctionNetwork(how, a=nn.Conv2d(1, 4, 1, bias=False), b=nn.Linear(64, 5, bias=False)).eval()
    zero(network, "a", rows=[1])
    assert shapes(compact(network, images(2, 1, 4, 4))) == shapes(network)


def test_layers_that_are_called_twice_or_have_hooks_are_shrunk() -> None:
    def how(n: Any, x: Tensor) -> Tensor:
        y: Tensor = n.d(torch.relu(n.c(torch.relu(n.b(n.a(n.a(x)))))))
        return y

    layers = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "c": nn.Linear(6, 6), "d": nn.Linear(6, 3)}
    network = FunctionNetwork(how, **layers).eval()
    layers["b"].register_forward_hook(lambda *_: None)
    for name in "abc":
        zero(network, name, rows=[0])
    smaller = compact(network, images(2, 6))
    assert shapes(smaller) == {"a": (6, 6), "b": (5, 6), "c": (5, 5), "d": (3, 5)}
    assert_close(network, smaller, images(2, 6))


def grows(n: Any, x: Tensor) -> Any:
    return n.b(n.a(x)) if x.sum() > 0 else n.b(n.a(-x))


def counts(n: Any, x: Tensor) -> Any:
    return n.b(n.a(x)) * n.a.out_features


def insists(n: Any, x: Tensor) -> Any:
    if n.a.weight.shape[0] != 6:
        raise ValueError("six units\nare needed")
    return n.b(n.a(x))


def test_a_network_with_conditions_is_compacted() -> None:
    network = FunctionNetwork(grows, a=nn.Linear(5, 6), b=nn.Linear(6, 3)).eval()
    zero(network, "a", rows=[0])
    smaller = compact(network, images(2, 5))
    assert shapes(smaller) == {"a": (5, 5), "b": (3, 5)}
    assert_close(network, smaller, images(2, 5))


@pytest.mark.parametrize(("how", "why"), [(counts, "outputs differ by up to"), (insists, "six units")])
def test_a_network_that_cannot_be_compacted_is_copied_with_a_warning(
    how: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = FunctionNetwork(how, a=nn.Linear(5, 6), b=nn.Linear(6, 3))
    zero(network, "a", rows=[0])
    with caplog.at_level(logging.WARNING):
        same = compact(network, images(2, 5))
    (record,) = caplog.records
    assert why in record.getMessage()
    assert "\n" not in record.getMessage()
    assert same is not network
    assert not same.training
    assert shapes(same) == shapes(network)
    assert_close(network, same, images(2, 5), 0)
