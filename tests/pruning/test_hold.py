from __future__ import annotations

import copy
import gc
import inspect
import pickle
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.prune import random_unstructured
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tombola.pruning.hold import held, hold, release
from tombola.pruning.mask import Mask, prunable
from tombola.utils.errors import InputError


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def mask_of(network: nn.Module, density: float = 0.4, seed: int = 0) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask({name: torch.rand(t.shape, generator=generator) < density for name, t in Mask.full(network).items()})


def assert_pruned(network: nn.Module, mask: Mask) -> None:
    parameters = {name.removeprefix("module."): p for name, p in network.named_parameters()}
    for name, kept in mask.items():
        assert (parameters[name][~kept] == 0).all(), name


def backward(network: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(10, 6, generator=generator), torch.randint(0, 3, (10,), generator=generator)
    functional.cross_entropy(network(x), y).backward()


def train(network: nn.Module, mask: Mask, optimizer: Optimizer | None = None, steps: int = 5) -> None:
    """Some steps; after each, the pruned weights and their gradients are zero."""
    optimizer = optimizer or torch.optim.AdamW(network.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        backward(network, step)
        for name, parameter in network.named_parameters():
            if name in mask:
                assert parameter.grad is not None
                assert (parameter.grad[~mask[name]] == 0).all()
        optimizer.step()
        assert_pruned(network, mask)


# any optimizer, any network


class Shared(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.output = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.tanh(self.second(torch.tanh(self.first(x)))))


def convolutional() -> nn.Module:
    conv, norm = nn.Conv1d(1, 3, 3, bias=False), nn.BatchNorm1d(3)
    return nn.Sequential(nn.Unflatten(1, (1, 6)), conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


NETWORKS: list[Callable[[], nn.Module]] = [network, Shared, convolutional]
OPTIMIZERS = [  # all but SparseAdam, which takes only sparse gradients; these layers have none
    kind
    for kind in vars(torch.optim).values()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind.__name__ not in ("Optimizer", "SparseAdam")
]
FUSED = [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad]
WHOLE = [getattr(torch.optim, "Muon", None)]  # of matrices only; the other parameters get SGD
OPTIONS: dict[str, list[Any]] = {
    "lr": [0.01, 0.1],
    "momentum": [0.5, 0.9],
    "dampening": [0],
    "nesterov": [False, True],
    "weight_decay": [0, 0.1],
    "amsgrad": [False, True],
    "centered": [False, True],
    "decoupled_weight_decay": [False, True],
    "maximize": [False, True],
    "line_search_fn": [None, "strong_wolfe"],
    "max_iter": [3],
}

Make = Callable[[nn.Module], list[Optimizer]]


@st.composite
def optimizers(draw: st.DrawFn) -> tuple[Any, Make]:
    kind = draw(st.sampled_from(OPTIMIZERS))
    known = inspect.signature(kind).parameters
    options = {name: draw(st.sampled_from(values)) for name, values in OPTIONS.items() if name in known}
    how = [name for name in ("foreach", "fused") if name in known and (name != "fused" or kind in FUSED)]
    if how:
        options |= draw(st.sampled_from([{"foreach": False}, *({name: True} for name in how)]))

    def make(network: nn.Module) -> list[Optimizer]:
        if kind not in WHOLE:
            return [kind(network.parameters(), **options)]
        matrices = [p for p in network.parameters() if p.ndim == 2]
        others = [p for p in network.parameters() if p.ndim != 2]
        return [kind(matrices, **options), torch.optim.SGD(others, lr=0.01)]

    return kind, make


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_pruned_weights_are_zero_at_every_step_and_the_others_train_as_under_a_masked_forward(
    data: st.DataObject,
) -> None:
    kind, make = data.draw(optimizers())
    seed = data.draw(st.integers(0, 2**16))
    parts, clip, warm_up = (data.draw(st.sampled_from(values)) for values in ([1, 3], [None, 0.1], [0, 3]))
    torch.manual_seed(seed)
    ours = data.draw(st.sampled_from(NETWORKS))()
    mask = mask_of(ours, data.draw(st.sampled_from([0, 0.2, 0.7, 1])), seed)
    if kind is getattr(torch.optim, "Adafactor", None):
        mask.apply_(ours)  # its steps grow with the norm of all weights, and a masked forward does not zero them
    theirs = copy.deepcopy(ours)
    keys = list(ours.state_dict())
    x, y = torch.randn(51, 6, 6), torch.randint(0, 3, (51, 6))

    def closure(network: nn.Module, forward: Callable[[Tensor], Tensor], step: int) -> Callable[[], Tensor]:
        def loss() -> Tensor:
            network.zero_grad()
            total = torch.zeros(())
            for inputs, labels in zip(x[step].chunk(parts), y[step].chunk(parts), strict=True):
                part = functional.cross_entropy(forward(inputs), labels)
                part.backward()
                total += part.detach()
            if clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            return total

        return loss

    def masked(inputs: Tensor) -> Tensor:
        weights = {n: p * mask[n] if n in mask else p for n, p in theirs.named_parameters()}
        return functional_call(theirs, weights, (inputs,))

    optimizers_ = make(ours)
    for step in range(warm_up):
        for optimizer in optimizers_:
            optimizer.step(closure(ours, ours, step))
    hold(ours, mask)
    references = make(theirs)
    for step in range(50):
        for optimizer, reference in zip(optimizers_, references, strict=True):
            optimizer.step(closure(ours, ours, step))
            assert_pruned(ours, mask)
            if not warm_up:
                reference.step(closure(theirs, masked, step))
    if not warm_up:
        dense = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            expected = dense[name] * mask[name] if name in mask else dense[name]
            torch.testing.assert_close(parameter, expected, rtol=0, atol=0, equal_nan=True)
    assert list(ours.state_dict()) == keys
    release(ours)
    assert list(ours.state_dict()) == keys


def test_momentum_of_dense_training_does_not_revive_a_pruned_weight() -> None:
    dense = network()
    mask = mask_of(dense)
    optimizer = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        backward(dense, step)
        optimizer.step()
    hold(dense, mask)
    state = optimizer.state[dense[0].weight]["momentum_buffer"]
    assert (state[~mask["0.weight"]] != 0).all()  # it would
    train(dense, mask, optimizer)


def test_gradients_that_were_there_before_the_hold_are_pruned() -> None:
    dense = network()
    backward(dense)
    mask = mask_of(dense)
    hold(dense, mask)
    assert dense[0].weight.grad is not None
    assert (dense[0].weight.grad[~mask["0.weight"]] == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_whatever_a_pruned_weight_is_it_becomes_zero(value: float, dtype: torch.dtype) -> None:
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
        weight = convolution[0].weight
        assert weight.grad is not None
        assert weight.grad.count_nonzero() == mask.count
        optimizer.step()
        assert_pruned(convolution, mask)
        assert weight.count_nonzero() == mask.count


# AMP and EMA


def test_an_overflow_in_a_pruned_weights_gradient_skips_no_step() -> None:
    layer = nn.Linear(2, 1, bias=False)
    mask = Mask({"weight": torch.tensor([[True, False]])})
    hold(layer, mask)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = layer.weight.detach().clone()
    for pruned, kept, moves in [(float("inf"), 1.0, True), (1.0, float("inf"), False), (1.0, 1.0, True)]:
        optimizer.zero_grad()
        (layer.weight * torch.tensor([[kept, pruned]])).sum().mul(scaler.get_scale()).backward()
        scaler.scale(torch.zeros(()))  # as a loss would
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(layer.parameters(), 10.0)
        scaler.step(optimizer)
        scaler.update()
        assert_pruned(layer, mask)
        assert (layer.weight[0, 0] != before[0, 0]).item() == moves
        before = layer.weight.detach().clone()


@pytest.mark.parametrize("made", ["before", "after"])
def test_an_average_of_weights_is_as_sparse_as_they_are(made: str) -> None:
    network_ = network()
    mask = mask_of(network_)
    average = AveragedModel(network_, multi_avg_fn=get_ema_multi_avg_fn(0.9)) if made == "before" else None
    hold(network_, mask)
    if average is None:
        average = AveragedModel(network_, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    else:
        hold(average, mask)  # the wrapper's "module." is left out of names
    assert held(average) == mask
    optimizer = torch.optim.Adam(network_.parameters())
    for step in range(4):
        optimizer.zero_grad()
        backward(network_, step)
        optimizer.step()
        average.update_parameters(network_)
        assert_pruned(average, mask)


# copies


def copied(network: nn.Module, _: Path) -> Any:
    return copy.deepcopy(network)


def pickled(network: nn.Module, _: Path) -> Any:
    return pickle.loads(pickle.dumps(network))


def saved(network: nn.Module, folder: Path) -> Any:
    torch.save(network, folder / "network.pt")
    return torch.load(folder / "network.pt", weights_only=False)


@pytest.mark.parametrize("way", [copied, pickled, saved])
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


@pytest.mark.parametrize("way", [copied, pickled, saved])
def test_a_copy_of_one_layer_is_held(way: Callable[[nn.Module, Path], Any], tmp_path: Path) -> None:
    network_ = network()
    mask = mask_of(network_)
    hold(network_, mask)
    layer = way(network_[0], tmp_path)
    assert held(layer) == Mask({"weight": mask["0.weight"]})
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.1)
    layer(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    assert layer.weight.grad.count_nonzero() == layer.weight.count_nonzero() == mask["0.weight"].sum()


def test_a_pickle_is_held_in_another_process(tmp_path: Path) -> None:
    network_ = network()
    mask = mask_of(network_)
    hold(network_, mask)
    (tmp_path / "network.pkl").write_bytes(pickle.dumps((network_, mask)))
    code = """
import pickle, sys, torch
network, mask = pickle.loads(open(sys.argv[1], "rb").read())
optimizer = torch.optim.Adam(network.parameters(), weight_decay=0.1)
for _ in range(3):
    network(torch.randn(5, 6)).square().sum().backward()
    optimizer.step()
for name, weight in network.named_parameters():
    if name in mask:
        assert weight.grad is not None and not weight.grad[~mask[name]].any() and not weight[~mask[name]].any()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "network.pkl")], check=True)


def test_nothing_lives_longer_for_being_held() -> None:
    network_ = network()
    hold(network_, mask_of(network_)).remove()
    hold(network_, mask_of(network_))
    gc.collect()
    gc.disable()
    try:
        layer = weakref.ref(network_[0])
        storage = network_[0].weight.untyped_storage()
        parameter = weakref.ref(network_[0].weight)
        del network_
        assert layer() is None
        assert parameter() is None
        assert storage.nbytes() == 6 * 8 * 4
    finally:
        gc.enable()


# torch.compile

JIT = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, when inductor is imported


@JIT
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", ["hold", "compile"])
def test_a_compiled_network_is_one_graph_and_held(backend: str, first: str) -> None:
    if backend == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    torch.compiler.reset()
    network_ = network()
    mask = mask_of(network_)
    if first == "hold":
        hold(network_, mask)
    compiled = torch.compile(network_, backend=backend, fullgraph=True)
    if first == "compile":
        hold(compiled, mask)  # type: ignore[arg-type]
    assert held(compiled) == held(network_) == mask  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        backward(compiled, step)  # type: ignore[arg-type]
        assert network_[0].weight.grad is not None
        assert network_[0].weight.grad.count_nonzero() <= mask["0.weight"].sum()
        optimizer.step()
        assert_pruned(network_, mask)


@JIT
def test_a_hold_breaks_no_graph() -> None:
    torch.compiler.reset()
    network_ = network()
    dense = torch._dynamo.explain(network_)(torch.ones(4, 6))
    torch.compiler.reset()
    hold(network_, mask_of(network_))
    explained = torch._dynamo.explain(network_)(torch.ones(4, 6))
    assert explained.graph_break_count == dense.graph_break_count == 0
    assert explained.op_count == dense.op_count


@JIT
def test_a_compiled_step_is_seen() -> None:
    torch.compiler.reset()
    network_ = network()
    mask = mask_of(network_)
    hold(network_, mask)
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    for seed in range(3):
        backward(network_, seed)
        with torch.no_grad():
            network_[0].weight.add_(1)
        step()
        assert_pruned(network_, mask)


# loading, and other parameters


def test_a_dense_state_is_pruned_when_it_is_loaded() -> None:
    network_ = network()
    mask = mask_of(network_)
    hold(network_, mask)
    for assign in (False, True):
        network_.load_state_dict(network(seed=1).state_dict(), assign=assign)
        assert_pruned(network_, mask)
        train(network_, mask)


def test_a_state_is_pruned_in_every_layer_that_shares_a_weight() -> None:
    shared = Shared()
    mask = mask_of(shared)
    hold(shared, mask)
    shared.load_state_dict(Shared().state_dict())
    assert_pruned(shared, mask)
    train(copy.deepcopy(shared), mask)


@pytest.mark.parametrize("when", ["before the backward pass", "after it"])
def test_a_parameter_put_in_place_of_another_is_held_from_its_first_step(when: str) -> None:
    network_ = network()
    mask = mask_of(network_)
    hold(network_, mask)
    network_[0].weight = nn.Parameter(torch.randn(8, 6))
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    if when == "after it":
        backward(network_)
    optimizer.step()
    assert network_[0].weight.grad is None or (network_[0].weight.grad[~mask["0.weight"]] == 0).all()
    train(network_, mask, optimizer)


def test_a_parameter_that_was_put_elsewhere_is_free() -> None:
    network_, other = network(), network()
    hold(network_, mask_of(network_))
    former = network_[0].weight
    network_[0].weight = nn.Parameter(torch.randn(8, 6))
    other[0].weight = former
    torch.optim.SGD(network_.parameters(), lr=0.1).step()  # it is noticed here
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    backward(other)
    optimizer.step()
    assert former.count_nonzero() == former.numel()


def test_a_parameter_of_another_shape_in_place_of_one_that_is_held_is_refused() -> None:
    network_ = network()
    hold(network_, mask_of(network_))
    network_[3] = nn.Linear(8, 5)  # another layer is none of the hold's business
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    optimizer.step()
    network_[0].weight = nn.Parameter(torch.randn(8, 7))
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"mask: weight is \(8, 6\), but in the network it is \(8, 7\)"):
        optimizer.step()


def test_frozen_weights_are_pruned_and_held_once_they_train() -> None:
    network_ = network()
    mask = mask_of(network_)
    network_.requires_grad_(False)
    hold(network_, mask)
    assert_pruned(network_, mask)
    network_.load_state_dict(network(seed=1).state_dict())
    assert_pruned(network_, mask)
    network_.requires_grad_(True)
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1)
    backward(network_)
    optimizer.step()
    assert_pruned(network_, mask)
    train(network_, mask, optimizer)


# several holds, and none


def test_one_optimizer_over_two_networks_holds_each_by_its_own_mask() -> None:
    networks = nn.ModuleList([network(0), network(1), network(2)])
    masks = [mask_of(networks[0], seed=seed) for seed in range(3)]
    optimizer = torch.optim.Adam(networks.parameters(), lr=0.1, weight_decay=0.1)
    hold(networks[0], masks[0])
    hold(networks[1], masks[1])
    for step in range(3):
        optimizer.zero_grad()
        for each in networks:
            backward(each, step)
        optimizer.step()
        assert_pruned(networks[0], masks[0])
        assert_pruned(networks[1], masks[1])
        assert networks[2][0].weight.count_nonzero() == 48


def test_another_hold_replaces_the_one_before() -> None:
    network_ = network()
    first, second = mask_of(network_), mask_of(network_, seed=1)
    former = hold(network_, first)
    assert (former.network, former.mask) == (network_, first)
    latter = hold(network_, second)
    former.remove()  # is over already
    assert held(network_) == second
    train(network_, second)
    assert network_[0].weight[second["0.weight"] & ~first["0.weight"]].any()
    latter.remove()
    assert held(network_) is None


def test_nothing_is_left_of_a_hold_that_was_removed() -> None:
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


def test_a_hold_ends_with_its_block_when_that_raises() -> None:
    network_ = network()

    def fails() -> None:
        with hold(network_, mask_of(network_)):
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert held(network_) is None


def test_layers_with_nothing_pruned_are_left_alone_and_part_of_the_mask() -> None:
    network_ = network()
    mask = Mask({**Mask.full(network_), "3.weight": mask_of(network_)["3.weight"]})
    hold(network_, mask)
    assert not network_[0].weight._post_accumulate_grad_hooks
    assert held(copy.deepcopy(network_)) == held(network_) == mask
    train(network_, mask)


def test_a_mask_of_some_layers_leaves_the_others_alone() -> None:
    network_ = network()
    mask = Mask({"3.weight": mask_of(network_)["3.weight"]})
    hold(network_, mask)
    assert held(network_) == mask
    assert prunable(network_) == ["0.weight", "3.weight"]
    train(network_, mask)


# bad masks


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"0.wieght": torch.ones(8, 6)}, 'unknown parameter in the mask "0.wieght": did you mean "0.weight"?'),
        ({"0.weight": torch.ones(6, 8)}, "mask: 0.weight is (6, 8), but in the network it is (8, 6)"),
    ],
)
def test_a_mask_of_another_network_is_refused_and_changes_nothing(kept: dict[str, Tensor], message: str) -> None:
    network_ = network()
    former = mask_of(network_)
    hold(network_, former)
    with pytest.raises(InputError) as error:
        hold(network_, Mask({"3.weight": torch.zeros(3, 8).bool()} | {n: t.bool() for n, t in kept.items()}))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert held(network_) == former
    assert network_[3].weight.count_nonzero() == former["3.weight"].sum()


def test_a_network_pruned_by_torch_is_refused_with_the_way_out() -> None:
    network_ = network()
    mask = mask_of(network_)
    random_unstructured(network_[0], "weight", 0.5)
    with pytest.raises(InputError, match=r"pruned by torch\.nn\.utils\.prune; tombola\.pruning\.torch_prune\.absorb"):
        hold(network_, mask)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_hold_never_waits_for_the_device() -> None:
    network_ = network().cuda()
    mask = mask_of(network_)
    hold(network_, mask)
    x = torch.randn(10, 6, device="cuda")
    for options in ({"foreach": True}, {"fused": True}):
        optimizer = torch.optim.SGD(network_.parameters(), lr=0.1, momentum=0.9, **options)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                optimizer.zero_grad()
                network_(x).square().sum().backward()
                optimizer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert_pruned(network_.cpu(), mask)
        network_.cuda()
        network_(x).sum().backward()  # the masks are made for the device again
        optimizer.step()


def test_a_part_of_the_network_may_be_called_as_wrappers_call_theirs() -> None:
    class Confusing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.module = nn.ModuleDict({"fc": nn.Linear(4, 4)})

    network = Confusing()
    mask = Mask({name: torch.eye(4, dtype=torch.bool) for name in ("fc.weight", "module.fc.weight")})
    hold(network, mask)
    assert held(network) == mask
    for weight in (network.fc.weight, network.module["fc"].weight):
        assert torch.equal(weight != 0, mask["fc.weight"])
