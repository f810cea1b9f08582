from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.prune import random_unstructured

from tests.support.errors import raises_input_error
from tests.support.held_networks import Shared, assert_pruned, backward, held_network, mask_of, network, train
from tombola.pruning.hold import held, hold, release
from tombola.pruning.mask import Mask, prunable


def test_momentum_of_dense_training_does_not_revive_a_pruned_weight() -> None:
    dense = network()
    mask = mask_of(dense)
    optimizer = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        backward(dense, step)
        optimizer.step()
    hold(dense, mask)
    assert dense[0].weight.grad is not None
    assert (dense[0].weight.grad[~mask["0.weight"]] == 0).all()  # also those from before the hold
    state = optimizer.state[dense[0].weight]["momentum_buffer"]
    assert (state[~mask["0.weight"]] != 0).all()  # the momentum would revive them
    train(dense, mask, optimizer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_nan_infinity_and_other_pruned_weights_become_zero(value: float, dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 1).to(dtype)
    with torch.no_grad():
        layer.weight.fill_(value)
    hold(layer, Mask({"weight": torch.tensor([[True, False, True]])}))
    kept = torch.tensor([value, 0, value], dtype=dtype)
    torch.testing.assert_close(layer.weight.detach()[0], kept, equal_nan=True, rtol=0, atol=0)


def test_a_hold_follows_the_network_to_another_dtype_and_layout() -> None:
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3))
    mask = mask_of(convolution)
    hold(convolution, mask)
    for dtype, layout in [(torch.float64, torch.channels_last), (torch.bfloat16, torch.contiguous_format)]:
        convolution.to(dtype=dtype, memory_format=layout)
        optimizer = torch.optim.SGD(convolution.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        optimizer.zero_grad()
        convolution(torch.ones(2, 3, 5, 5, dtype=dtype)).sum().backward()
        optimizer.step()
        assert_pruned(convolution, mask)
        weight = convolution[0].weight
        assert weight.grad is not None
        assert weight.grad.count_nonzero() == weight.count_nonzero() == mask.count


def test_one_optimizer_over_two_networks_holds_each_by_its_own_mask() -> None:
    networks = nn.ModuleList([network(0), network(1), network(2)])
    masks = [mask_of(networks[0], seed=seed) for seed in range(2)]
    optimizer = torch.optim.Adam(networks.parameters(), lr=0.1, weight_decay=0.1)
    for each, mask in zip(networks, masks, strict=False):
        hold(each, mask)
    for step in range(3):
        optimizer.zero_grad()
        for each in networks:
            backward(each, step)
        optimizer.step()
        assert_pruned(networks[0], masks[0])
        assert_pruned(networks[1], masks[1])
        assert networks[2][0].weight.count_nonzero() == 48


def test_a_new_hold_replaces_the_former_one() -> None:
    network_ = network()
    first, second = mask_of(network_), mask_of(network_, seed=1)
    former = hold(network_, first)
    assert (former.network, former.mask) == (network_, first)
    latter = hold(network_, second)
    former.remove()  # has no effect any more
    assert held(network_) == second
    train(network_, second)
    assert network_[0].weight[second["0.weight"] & ~first["0.weight"]].any()
    latter.remove()
    assert held(network_) is None


def test_removing_a_hold_leaves_no_trace() -> None:
    def inside(network: nn.Module) -> list[dict[str, Any]]:
        return [{name: copy.copy(value) for name, value in layer.__dict__.items()} for layer in network.modules()]

    network_ = network()
    mask = mask_of(network_)
    before = inside(network_)
    with hold(network_, mask) as hold_:
        assert inside(network_) != before
        train(network_, mask)
        hold_.remove()
        network_.zero_grad()
    assert inside(network_) == before
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    for step in range(5):
        backward(network_, step)
        optimizer.step()
    assert network_[0].weight.count_nonzero() > mask["0.weight"].sum()


def test_a_hold_is_removed_when_its_block_raises() -> None:
    network_ = network()
    with pytest.raises(KeyError), hold(network_, mask_of(network_)):
        raise KeyError
    assert held(network_) is None


def test_full_layers_get_no_hook_and_stay_in_the_mask() -> None:
    network_ = network()
    mask = Mask({**Mask.full(network_), "3.weight": mask_of(network_)["3.weight"]})
    hold(network_, mask)
    assert not network_[0].weight._post_accumulate_grad_hooks
    assert held(copy.deepcopy(network_)) == held(network_) == mask
    train(network_, mask)


def test_a_mask_of_some_layers_leaves_the_others_dense() -> None:
    network_ = network()
    mask = Mask({"3.weight": mask_of(network_)["3.weight"]})
    hold(network_, mask)
    assert held(network_) == mask
    assert prunable(network_) == ["0.weight", "3.weight"]
    train(network_, mask)


@pytest.mark.parametrize(
    ("kept", "facts"),
    [
        ({"0.wieght": torch.ones(8, 6)}, ["mask", '"0.wieght"', '"0.weight"']),
        ({"0.weight": torch.ones(6, 8)}, ["mask:", "0.weight", "(6, 8)", "(8, 6)"]),
    ],
)
def test_an_invalid_mask_is_refused_and_changes_nothing(kept: dict[str, Tensor], facts: list[str]) -> None:
    network_, former = held_network()
    with raises_input_error(*facts):
        hold(network_, Mask({"3.weight": torch.zeros(3, 8).bool()} | {n: t.bool() for n, t in kept.items()}))
    assert held(network_) == former
    assert network_[3].weight.count_nonzero() == former["3.weight"].sum()


def test_an_error_for_a_network_pruned_by_torch_points_to_absorb() -> None:
    network_ = network()
    mask = mask_of(network_)
    random_unstructured(network_[0], "weight", 0.5)
    with raises_input_error("torch.nn.utils.prune", "tombola.pruning.torch_prune.absorb"):
        hold(network_, mask)


def test_a_layer_may_have_the_name_of_a_wrappers_attribute() -> None:
    network = nn.ModuleDict({"fc": nn.Linear(4, 4), "module": nn.ModuleDict({"fc": nn.Linear(4, 4)})})
    mask = Mask({name: torch.eye(4, dtype=torch.bool) for name in ("fc.weight", "module.fc.weight")})
    hold(network, mask)
    assert held(network) == mask
    for name, kept in mask.items():
        assert torch.equal(network.get_parameter(name) != 0, kept)


def copied(network: nn.Module, _: Path) -> Any:
    return copy.deepcopy(network)


def pickled(network: nn.Module, _: Path) -> Any:
    return pickle.loads(pickle.dumps(network))


def saved(network: nn.Module, folder: Path) -> Any:
    torch.save(network, folder / "network.pt")
    return torch.load(folder / "network.pt", weights_only=False)


each_way = pytest.mark.parametrize("way", [copied, pickled, saved])


@each_way
@pytest.mark.parametrize("make", [network, Shared])
def test_a_copy_is_held_and_independent(
    way: Callable[[nn.Module, Path], Any], make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    original = make()
    mask = mask_of(original)
    hold(original, mask)
    state = copy.deepcopy(original.state_dict())
    other = way(original, tmp_path)
    assert list(other.state_dict()) == list(state)
    assert held(other) == mask
    train(other, mask)
    other.load_state_dict(make().state_dict())
    assert_pruned(other, mask)
    for name, tensor in original.state_dict().items():
        assert torch.equal(tensor, state[name])
    release(other)
    assert held(other) is None
    assert held(original) == mask
    train(original, mask)


@each_way
def test_a_copy_of_one_layer_is_held(way: Callable[[nn.Module, Path], Any], tmp_path: Path) -> None:
    network_, mask = held_network()
    layer = way(network_[0], tmp_path)
    assert held(layer) == Mask({"weight": mask["0.weight"]})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.1)
    layer(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    assert layer.weight.grad.count_nonzero() == layer.weight.count_nonzero() == mask["0.weight"].sum()


def test_a_hold_keeps_nothing_alive() -> None:
    network_ = network()
    hold(network_, mask_of(network_)).remove()
    hold(network_, mask_of(network_))
    gc.collect()
    gc.disable()
    try:
        layer, parameter = weakref.ref(network_[0]), weakref.ref(network_[0].weight)
        storage = network_[0].weight.untyped_storage()
        del network_
        assert layer() is None
        assert parameter() is None
        assert storage.nbytes() == 6 * 8 * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("assign", [False, True])
def test_a_dense_state_dict_is_pruned_after_loading(assign: bool) -> None:
    network_, mask = held_network()
    network_.load_state_dict(network(seed=1).state_dict(), assign=assign)
    assert_pruned(network_, mask)
    train(network_, mask)


@pytest.mark.parametrize("when", ["before the backward pass", "after it"])
def test_a_replaced_parameter_is_held_from_its_first_step(when: str) -> None:
    network_, mask = held_network()
    network_[0].weight = nn.Parameter(torch.randn(8, 6))
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    if when == "after it":
        backward(network_)
    optimizer.step()
    assert network_[0].weight.grad is None or (network_[0].weight.grad[~mask["0.weight"]] == 0).all()
    train(network_, mask, optimizer)


def test_a_parameter_moved_to_another_network_is_no_longer_held() -> None:
    (network_, _), other = held_network(), network()
    former = network_[0].weight
    network_[0].weight = nn.Parameter(torch.randn(8, 6))
    other[0].weight = former
    torch.optim.SGD(network_.parameters(), lr=0.1).step()  # notices the new parameter
    backward(other)
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert former.count_nonzero() == former.numel()


def test_a_replaced_parameter_of_another_shape_is_refused() -> None:
    network_, _ = held_network()
    network_[3] = nn.Linear(8, 5)  # replacing the whole layer is allowed
    torch.optim.SGD(network_.parameters(), lr=0.1).step()
    network_[0].weight = nn.Parameter(torch.randn(8, 7))
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    with raises_input_error("mask: weight", "(8, 6)", "(8, 7)"):
        optimizer.step()


def test_frozen_weights_are_pruned_and_held_when_unfrozen() -> None:
    network_ = network().requires_grad_(False)
    mask = mask_of(network_)
    hold(network_, mask)
    assert_pruned(network_, mask)
    network_.load_state_dict(network(seed=1).state_dict())
    assert_pruned(network_, mask)
    optimizer = torch.optim.SGD(network_.requires_grad_(True).parameters(), lr=0.1)
    backward(network_)
    optimizer.step()
    assert_pruned(network_, mask)
    train(network_, mask, optimizer)
