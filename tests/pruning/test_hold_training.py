"""Holds in trainings: with every optimizer, loss scaling, averages of weights, and `torch.compile`."""

from __future__ import annotations

import copy
import inspect
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.support.held_networks import Shared, assert_pruned, backward, convolutional, held_network, mask_of, network
from tombola.pruning.hold import held, hold, release
from tombola.pruning.mask import Mask

NETWORKS: list[Callable[[], nn.Module]] = [network, Shared, convolutional]
OPTIMIZERS = [  # all but SparseAdam, which takes only sparse gradients; these layers have none
    kind
    for kind in vars(torch.optim).values()
    if inspect.isclass(kind) and issubclass(kind, Optimizer) and kind.__name__ not in ("Optimizer", "SparseAdam")
]
FUSED = [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad]
WHOLE = [getattr(torch.optim, "Muon", None)]  # takes only matrices; the other parameters get SGD
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
STEPS = 12
JIT = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from inductor


def options_of(data: st.DataObject, kind: Any) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    options = {name: data.draw(st.sampled_from(values)) for name, values in OPTIONS.items() if name in known}
    loops = [name for name in ("foreach", "fused") if name in known and (name != "fused" or kind in FUSED)]
    if loops:
        options |= data.draw(st.sampled_from([{"foreach": False}, *({name: True} for name in loops)]))
    return options


def optimizers(kind: Any, network: nn.Module, options: dict[str, Any]) -> list[Optimizer]:
    if kind not in WHOLE:
        return [kind(network.parameters(), **options)]
    matrices = [p for p in network.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if p.ndim != 2]
    return [kind(matrices, **options), torch.optim.SGD(others, lr=0.01)]


@pytest.mark.parametrize("kind", OPTIMIZERS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_pruned_weights_stay_zero_and_the_others_train_as_with_a_masked_forward_pass(
    kind: Any, data: st.DataObject
) -> None:
    options = options_of(data, kind)
    seed = data.draw(st.integers(0, 2**16))
    parts, clip, warm_up = (data.draw(st.sampled_from(values)) for values in ([1, 3], [None, 0.1], [0, 3]))
    torch.manual_seed(seed)
    ours = data.draw(st.sampled_from(NETWORKS))()
    mask = mask_of(ours, data.draw(st.sampled_from([0, 0.2, 0.7, 1])), seed)
    if kind is getattr(torch.optim, "Adafactor", None):
        mask.apply_(ours)  # its steps grow with the norm of all weights, and a masked forward does not zero them
    theirs = copy.deepcopy(ours)
    keys = list(ours.state_dict())
    x, y = torch.randn(STEPS, 6, 6), torch.randint(0, 3, (STEPS, 6))

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

    ours_optimizers = optimizers(kind, ours, options)
    for step in range(warm_up):
        for optimizer in ours_optimizers:
            optimizer.step(closure(ours, ours, step))
    hold(ours, mask)
    references = optimizers(kind, theirs, options)
    for step in range(STEPS):
        for optimizer, reference in zip(ours_optimizers, references, strict=True):
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


def test_loss_scaling_ignores_an_overflow_in_a_pruned_weights_gradient() -> None:
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
def test_an_average_of_weights_is_as_sparse_as_the_network(made: str) -> None:
    network_ = network()
    mask = mask_of(network_)
    average = AveragedModel(network_, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    hold(network_, mask)
    if made == "after":
        average = AveragedModel(network_, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    else:
        hold(average, mask)  # accepts names without the prefix "module."
    assert held(average) == mask
    optimizer = torch.optim.Adam(network_.parameters())
    for step in range(4):
        optimizer.zero_grad()
        backward(network_, step)
        optimizer.step()
        average.update_parameters(network_)
        assert_pruned(average, mask)


@JIT
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", ["hold", "compile"])
def test_a_compiled_network_is_held_and_one_graph(backend: str, first: str) -> None:
    if backend == "inductor" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    torch.compiler.reset()
    network_ = network()
    mask = mask_of(network_)
    if first == "hold":
        hold(network_, mask)
    compiled: Any = torch.compile(network_, backend=backend, fullgraph=True)
    if first == "compile":
        hold(compiled, mask)
    assert held(compiled) == held(network_) == mask
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        optimizer.zero_grad()
        backward(compiled, step)
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
def test_a_compiled_optimizer_step_is_held() -> None:
    torch.compiler.reset()
    network_, mask = held_network()
    optimizer = torch.optim.SGD(network_.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    for seed in range(3):
        backward(network_, seed)
        with torch.no_grad():
            network_[0].weight.add_(1)
        step()
        assert_pruned(network_, mask)
