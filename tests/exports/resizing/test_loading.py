from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.digits_tickets import context_of, digits_context, digits_ticket
from tests.support.export_networks import images
from tests.support.random_networks import networks, randomise, sparsify
from tests.support.zoo_networks import CIFAR, SMALL, build_network
from tombola.exports.artefacts import ARTEFACTS, dense, load_compact
from tombola.exports.compaction import compact
from tombola.exports.resizing import load_resized
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError
from tombola.utils.files import write_tensors
from tombola.zoo.models.resnet import Subsample


@pytest.mark.parametrize("name", [*sorted(SMALL), "resnet, identity shortcuts"])
def test_a_compact_network_is_loaded_from_its_state(name: str) -> None:
    options = SMALL.get(name, {"depth": 14, "width": 4, "shortcut": "identity"})
    fresh = build_network(name.partition(",")[0], **options)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    network = sparsify(randomise(build_network(name.partition(",")[0], seed=1, **options)), 0.05, 0)
    smaller = compact(network, images(2, *CIFAR))
    loaded = load_resized(fresh, smaller.state_dict()).eval()
    assert list(loaded.state_dict()) == list(smaller.state_dict())
    assert torch.equal(loaded(images(3, *CIFAR)), smaller(images(3, *CIFAR)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in fresh.parameters())


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
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
        with pytest.raises(InputError, match=r"^\S+: .*channels"):
            load_resized(network, state)
    else:
        loaded = load_resized(network, state)
        assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
        torch.testing.assert_close(loaded(example), smaller(example))  # sums may depend on memory alignment


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
        ({"9_weight": torch.ones(3)}, r"9.weight is \(3,\) in it, but missing"),
        ({"0_weight": torch.ones(5, 3, 3, 3), "0_bias": torch.ones(5)}, r"0.weight is \(5, 3, 3, 3\)"),
        ({"0_weight": torch.ones(0, 3, 3, 3), "0_bias": torch.ones(0)}, r"0.weight is \(0, 3, 3, 3\)"),
        ({"0_weight": torch.ones(3, 3, 3, 2), "0_bias": torch.ones(3)}, r"0.weight is \(3, 3, 3, 2\)"),
        ({"0_weight": torch.ones(3, 3)}, r"0.weight is \(3, 3\)"),
        ({"0_weight": torch.ones(3, 3, 3, 3)}, r"0.weight is \(3, 3, 3, 3\)"),
        ({"0_weight": torch.tensor(1.0)}, r"0.weight is \(\)"),
        ({"1_weight": torch.ones(3)}, r"1.weight is \(3,\)"),
        ({"1_running_mean": torch.ones(4, 1)}, r"1.running_mean is \(4, 1\)"),
        ({"1_num_batches_tracked": torch.tensor(1.0)}, r"num_batches_tracked.*float32.*int64"),
        ({"4_weight": torch.ones(2, 6, dtype=torch.complex64)}, r"4\.weight.*complex64.*float32"),
        ({"4_weight": torch.ones(2, 6, dtype=torch.int8)}, r"4\.weight is torch\.int8 .*float32"),
        ({"1_num_batches_tracked": torch.ones(2, dtype=torch.int64)}, r"1.num_batches_tracked is \(2,\)"),
        ({"2_weight": torch.ones(3, 1, 3, 3)}, r"2.weight is \(3, 1, 3, 3\)"),
        ({"4_bias": torch.ones(2, dtype=torch.complex64)}, "4.bias is torch.complex64 .*torch.float32"),
        ({"4_bias": torch.ones(3)}, r"4.bias is \(3,\) in it, but missing"),
        ({"4_bias": torch.ones(2, 1)}, r"4.bias is \(2, 1\) in it, but missing"),
        ({"4_running_mean": torch.ones(2)}, r"4.running_mean is \(2,\) in it, but missing"),
    ],
)
def test_a_state_that_does_not_fit_is_an_error(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_resized(network(), state_with(**wrong))
    assert "\n" not in str(caught.value)


def test_a_subsample_outside_the_zoo_is_an_error_only_in_a_smaller_network() -> None:
    whole = nn.Sequential(nn.Conv2d(2, 4, 3), Subsample(6), nn.Conv2d(6, 2, 1)).eval()
    load_resized(whole, whole.state_dict())
    with torch.no_grad():
        whole[2].weight[:, 1:] = 0
    smaller = compact(whole, images(2, 2, 5, 5))
    assert smaller[1].channels < 6
    with pytest.raises(InputError, match=r"^1: .*channels"):
        load_resized(whole, smaller.state_dict())


def test_layers_get_the_sizes_of_their_tensors() -> None:
    smaller = {
        "0_weight": torch.ones(3, 3, 3, 3), "0_bias": torch.ones(3),
        "1_weight": torch.ones(3), "1_bias": torch.ones(3), "1_running_mean": torch.ones(3),
        "1_running_var": torch.ones(3),
        "2_weight": torch.ones(6, 1, 3, 3), "4_weight": torch.ones(2, 6), "4_bias": torch.ones(2),
    }  # fmt: skip
    loaded = load_resized(network().requires_grad_(False), state_with(**smaller))
    conv, norm, depthwise, _, linear = loaded
    assert (conv.in_channels, conv.out_channels, norm.num_features) == (3, 3, 3)
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (3, 6, 3)
    assert (linear.in_features, linear.out_features) == (6, 2)
    assert torch.equal(linear.bias, torch.ones(2))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.eval()(torch.zeros(2, 3, 5, 5)).shape == (2, 2)


def test_a_compact_file_that_could_not_be_loaded_is_not_written(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), Subsample(6), nn.Conv2d(6, 2, 1), nn.Flatten())
    mask = {
        "0.weight": torch.ones(4, 2, 3, 3, dtype=torch.bool),
        "2.weight": torch.zeros(2, 6, 1, 1, dtype=torch.bool),
    }
    mask["2.weight"][:, :2] = True
    one = context_of(network, Mask(mask), tmp_path, torch.randn(2, 2, 5, 5))
    with pytest.raises(InputError, match=r"^1: .*channels"):
        ARTEFACTS["compact"](one)
    assert list(tmp_path.iterdir()) == []
    assert ARTEFACTS["exported"](one).weights < dense(one).weights


def test_damaged_and_other_compact_files_are_an_error(tmp_path: Path) -> None:
    one = digits_context(digits_ticket(), tmp_path)
    ARTEFACTS["compact"](one)
    path = tmp_path / "compact.safetensors"
    with pytest.raises(InputError, match="architecture"):
        load_compact(path, nn.Linear(3, 3))
    path.write_bytes(path.read_bytes()[:-3])
    for file, said in ((path, "damaged"), (tmp_path / "none", "no file"), (tmp_path, "no file")):
        with pytest.raises(InputError, match=said):
            load_compact(file, one.network)


def test_compact_files_with_layers_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    path, network = tmp_path / "compact.safetensors", nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    example = torch.zeros(2, 4)

    def written(first: int, second: int, outputs: int) -> None:
        made = nn.Sequential(nn.Linear(4, first), nn.ReLU(), nn.Linear(second, outputs))
        write_tensors(path, made.state_dict(), {})

    written(2, 2, 2)
    assert load_compact(path, network, example)(example).shape == (2, 2)
    written(2, 1, 2)
    load_compact(path, network)  # cannot be detected without an example
    with pytest.raises(InputError, match=r"compact\.safetensors: layers do not fit") as refused:
        load_compact(path, network, example)
    assert "\n" not in str(refused.value)
    written(2, 2, 1)
    with pytest.raises(InputError, match=r"\(2, 1\) instead of \(2, 2\)"):
        load_compact(path, network, example)
    with pytest.raises(InputError, match="layer 2 has 1 outputs instead of 2"):
        load_compact(path, network)
    with pytest.raises(InputError, match=r"\(2, 5\)"):
        load_compact(path, network, torch.zeros(2, 5))
    assert network.training
