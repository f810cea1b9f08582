from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.exports.helpers import images
from tests.exports.networks import networks, randomise, sparsify
from tests.zoo.models.helpers import CIFAR, SMALL, made
from tombola.exports.compaction import compact
from tombola.exports.resizing import resized
from tombola.utils.errors import InputError
from tombola.zoo.models.resnet import Subsample


@pytest.mark.parametrize("name", [*sorted(SMALL), "resnet, identity shortcuts"])
def test_a_compact_network_is_loaded_from_its_state(name: str) -> None:
    options = SMALL.get(name, {"depth": 14, "width": 4, "shortcut": "identity"})
    fresh = made(name.partition(",")[0], **options)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    network = sparsify(randomise(made(name.partition(",")[0], seed=1, **options)), 0.05, 0)
    smaller = compact(network, images(2, *CIFAR))
    loaded = resized(fresh, smaller.state_dict()).eval()
    assert list(loaded.state_dict()) == list(smaller.state_dict())
    assert torch.equal(loaded(images(3, *CIFAR)), smaller(images(3, *CIFAR)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in fresh.parameters())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(networks(), st.sampled_from([0.02, 0.2]), st.integers(0, 2**16))
def test_any_compact_network_is_loaded_from_its_state(
    drawn: tuple[nn.Module, Tensor], density: float, seed: int
) -> None:
    network, example = drawn
    smaller = compact(sparsify(network, density, seed), example)
    state, sizes = smaller.state_dict(), {name: tensor.shape for name, tensor in network.state_dict().items()}
    if any(isinstance(module, Subsample) for module in network.modules()) and sizes != {
        name: tensor.shape for name, tensor in state.items()
    }:
        with pytest.raises(
            InputError, match=r"^a state does not say how many channels \S+ gives in a smaller network$"
        ):
            resized(network, state)
    else:
        loaded = resized(network, state)
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
        torch.testing.assert_close(loaded(example), smaller(example))  # sums may depend on where in memory it lies


def state_with(**tensors: Any) -> dict[str, Tensor]:
    """The state of a small network, with other tensors of these names; None removes one."""
    state = dict(network().state_dict())
    for name, tensor in tensors.items():
        state[name.replace("_", ".", 1)] = tensor
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def network() -> nn.Sequential:
    depthwise = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), depthwise, nn.Flatten(), nn.Linear(8, 2, bias=False))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"0_weight": None}, r"0.weight is missing in it"),
        ({"9_weight": torch.ones(3)}, r"9.weight is \(3,\) in it, and missing"),
        ({"0_weight": torch.ones(5, 3, 3, 3), "0_bias": torch.ones(5)}, r"0.weight is \(5, 3, 3, 3\)"),
        ({"0_weight": torch.ones(0, 3, 3, 3), "0_bias": torch.ones(0)}, r"0.weight is \(0, 3, 3, 3\)"),
        ({"0_weight": torch.ones(3, 3, 3, 2), "0_bias": torch.ones(3)}, r"0.weight is \(3, 3, 3, 2\)"),
        ({"0_weight": torch.ones(3, 3)}, r"0.weight is \(3, 3\)"),
        ({"0_weight": torch.ones(3, 3, 3, 3)}, r"0.weight is \(3, 3, 3, 3\)"),
        ({"0_weight": torch.tensor(1.0)}, r"0.weight is \(\)"),
        ({"1_weight": torch.ones(3)}, r"1.weight is \(3,\)"),
        ({"1_running_mean": torch.ones(4, 1)}, r"1.running_mean is \(4, 1\)"),
        (
            {"1_num_batches_tracked": torch.tensor(1.0)},
            "1.num_batches_tracked is torch.float32 in it, and torch.int64",
        ),
        (
            {"4_weight": torch.ones(2, 6, dtype=torch.complex64)},
            "4.weight is torch.complex64 in it, and torch.float32",
        ),
        ({"4_weight": torch.ones(2, 6, dtype=torch.int8)}, "4.weight is torch.int8 in it, and torch.float32"),
        ({"1_num_batches_tracked": torch.ones(2, dtype=torch.int64)}, r"1.num_batches_tracked is \(2,\)"),
        ({"2_weight": torch.ones(3, 1, 3, 3)}, r"2.weight is \(3, 1, 3, 3\)"),
        ({"4_bias": torch.ones(2, dtype=torch.complex64)}, "4.bias is torch.complex64 in it, and torch.float32"),
        ({"4_bias": torch.ones(3)}, r"4.bias is \(3,\) in it, and missing"),
        ({"4_bias": torch.ones(2, 1)}, r"4.bias is \(2, 1\) in it, and missing"),
        ({"4_running_mean": torch.ones(2)}, r"4.running_mean is \(2,\) in it, and missing"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        resized(network(), state_with(**wrong))
    assert "\n" not in str(caught.value)


def test_a_subsample_outside_the_zoo_is_refused_only_in_a_smaller_network() -> None:
    whole = nn.Sequential(nn.Conv2d(2, 4, 3), Subsample(6), nn.Conv2d(6, 2, 1)).eval()
    resized(whole, whole.state_dict())
    with torch.no_grad():
        whole[2].weight[:, 1:] = 0
    smaller = compact(whole, images(2, 2, 5, 5))
    assert smaller[1].channels < 6
    with pytest.raises(InputError, match=r"^a state does not say how many channels 1 gives in a smaller network$"):
        resized(whole, smaller.state_dict())


def test_layers_get_the_sizes_that_their_tensors_have() -> None:
    smaller = {
        "0_weight": torch.ones(3, 3, 3, 3), "0_bias": torch.ones(3),
        "1_weight": torch.ones(3), "1_bias": torch.ones(3), "1_running_mean": torch.ones(3),
        "1_running_var": torch.ones(3),
        "2_weight": torch.ones(6, 1, 3, 3), "4_weight": torch.ones(2, 6), "4_bias": torch.ones(2),
    }  # fmt: skip
    loaded = resized(network().requires_grad_(False), state_with(**smaller))
    conv, norm, depthwise, _, linear = loaded
    assert (conv.in_channels, conv.out_channels, norm.num_features) == (3, 3, 3)
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (3, 6, 3)
    assert (linear.in_features, linear.out_features) == (6, 2)
    assert torch.equal(linear.bias, torch.ones(2))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.eval()(torch.zeros(2, 3, 5, 5)).shape == (2, 2)
