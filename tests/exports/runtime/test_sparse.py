from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.support import random_networks as networks
from tests.support.random_networks import Residual, randomise, sparsify
from tests.support.runtime_networks import (
    BATCHES,
    Sum,
    assert_close,
    batch,
    bits,
    expected_outputs,
    plan_for,
    program_for,
    scale_of,
    supported_networks,
)
from tombola.exports.runtime import network as network_module
from tombola.exports.runtime import sparse, tuning
from tombola.exports.runtime import sparse_layers as layers
from tombola.exports.runtime.memory_layout import dense_products, program_of
from tombola.exports.runtime.network import SparseNetwork
from tombola.exports.runtime.sparse_layers import SparseLayer
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import tensors
from tombola.zoo.models.resnet import resnet_20
from tombola.zoo.models.vit import vit

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels


@settings(deadline=None, max_examples=60)
@given(supported_networks(), st.sampled_from([1, 2, 3]), st.data())
def test_it_computes_the_same_as_the_network(
    made: tuple[nn.Module, Tensor], threads: int, data: st.DataObject
) -> None:
    """With all layers sparse, all dense, and any mixture."""
    network, example = made
    plan = plan_for(network, example)
    possible = sorted(dense_products(plan))
    mixed = data.draw(st.sets(st.sampled_from(possible))) if possible else set()
    x = batch(example, max(BATCHES))
    expected = expected_outputs(network, x)
    scale = scale_of(network, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_module, "MIN_WORK_PER_THREAD", 1)
        for dense in (set(), set(possible), mixed):
            runtime = SparseNetwork(program_of(plan, dense), threads)
            for images in BATCHES:
                assert_close(runtime(x[:images]), expected[:images], scale)


@settings(deadline=None, max_examples=40)
@given(networks.networks(), st.floats(0.05, 1), st.integers(0, 99), st.booleans())
def test_any_network_becomes_sparse_or_gets_sparse_layers(
    made: tuple[nn.Module, Tensor], density: float, seed: int, dense: bool
) -> None:
    """Networks with unsupported activations or poolings get sparse layers."""
    network, example = made
    sparsify(network, density, seed)
    x = batch(example, 40)
    expected = expected_outputs(network, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "is_faster", lambda *_: dense)
        patch.setattr(layers, "is_faster", lambda *_: True)
        runtime = sparse(network, example, threads=1)
    assert any(isinstance(module, SparseNetwork) for module in runtime.modules())
    for images in (1, 2, 17, 40):
        assert_close(runtime(x[:images]).float(), expected[:images], scale_of(network, x))


@settings(deadline=None, max_examples=40)
@given(supported_networks(), st.booleans(), st.integers(0, 999))
def test_examples_of_a_batch_do_not_affect_each_other(made: tuple[nn.Module, Tensor], dense: bool, seed: int) -> None:
    network, example = made
    runtime, rng = SparseNetwork(program_for(network, example, dense), 1), np.random.default_rng(seed)
    for images in (2, 17, 33):
        x = batch(example, images, seed)
        before, which = runtime(x), int(rng.integers(images))
        x[which] = float(rng.choice([math.nan, math.inf, -math.inf, 1e38]))
        others = torch.arange(images) != which
        assert bits(runtime(x)[others]) == bits(before[others])


CONV = nn.Conv2d(2, 3, (3, 2), padding=1)
SPECIAL = [
    nn.Sequential(CONV, nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.ReLU()),
    nn.Sequential(nn.MaxPool2d(3, 1, 1), CONV, nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)),
    nn.Sequential(Sum(nn.ReLU()), nn.ReLU(), nn.MaxPool2d((2, 3), ceil_mode=True)),
    nn.Sequential(nn.Flatten(), nn.Linear(60, 9), nn.ReLU(), nn.Linear(9, 4), nn.ReLU()),
    Residual(nn.Conv2d(2, 2, 3, padding=1), nn.Identity()),
]


@pytest.mark.parametrize("network", SPECIAL)
@pytest.mark.parametrize("dense", [False, True])
def test_nan_and_infinity_propagate_as_in_torch(network: nn.Module, dense: bool) -> None:
    randomise(network.eval())
    example = torch.ones(1, 2, 6, 5)
    runtime = SparseNetwork(program_for(network, example, dense), 1)
    rng = np.random.default_rng(0)
    for images in (1, 17):
        x = batch(example, images)
        for number in (math.nan, math.inf, -math.inf):
            x[torch.from_numpy(rng.random(x.shape) < 0.03)] = number
        expected, found = expected_outputs(network, x), runtime(x)
        assert not expected.isfinite().all()
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.isinf(), expected.isinf())
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(7, 3), nn.Linear(7, 1, bias=False), nn.ReLU(), nn.BatchNorm1d(7), nn.Identity(), nn.Dropout(0.9),
        nn.Sequential(nn.Linear(7, 200), nn.ReLU(), nn.Linear(200, 300)),
    ],
)  # fmt: skip
def test_networks_of_one_layer_or_none(network: nn.Module, dense: bool) -> None:
    randomise(network)
    x = batch(torch.ones(1, 7), 100)
    runtime = SparseNetwork(program_for(network, x[:1], dense), 1)
    for images in BATCHES:
        assert_close(runtime(x[:images]), expected_outputs(network, x[:images]), scale_of(network, x))


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_without_weights_returns_its_bias(bias: bool) -> None:
    conv, linear = nn.Conv2d(2, 3, 3, padding=1, bias=bias), nn.Linear(60, 4, bias=bias)
    for layer, shape in ((conv, (2, 5, 4)), (nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear), (2, 5, 4))):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(linear.weight)
        runtime, x = sparse(layer, torch.ones(1, *shape)), torch.full((17, *shape), math.nan)
        assert torch.equal(runtime(x), expected_outputs(layer, torch.zeros(17, *shape)).float())
        assert isinstance(runtime, SparseNetwork)
        assert runtime.weights == 0


def test_a_residual_network_has_one_step_for_each_layer() -> None:
    """22 layers with weights, and the pooling; batch norm, ReLU and additions are fused."""
    network = sparsify(randomise(resnet_20((3, 8, 8), 10, width=4)), 0.2, seed=0).eval()
    x = batch(torch.ones(1, 3, 8, 8), 33)
    runtime = sparse(network, x[:1], threads=1)
    assert isinstance(runtime, SparseNetwork)
    assert len(runtime.program.table) == 1 + 22 + 1
    assert_close(runtime(x), expected_outputs(network, x), scale_of(network, x))


def test_a_transformer_gets_sparse_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "is_faster", lambda *_: True)
    torch.manual_seed(0)
    network = sparsify(randomise(vit((3, 8, 8), 10, patch=4, width=16, depth=2, heads=2)), 0.3, seed=0).eval()
    x = batch(torch.ones(1, 3, 8, 8), 17)
    runtime = sparse(network, x)
    replaced = [module for module in runtime.modules() if isinstance(module, SparseLayer)]
    linear = [m for m in network.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    assert len(replaced) == len(linear) > 5
    assert_close(runtime(x), expected_outputs(network, x), scale_of(network, x))


def test_a_network_without_layers_is_copied() -> None:
    network = nn.Sequential(nn.Sigmoid())
    runtime, x = sparse(network, torch.ones(1, 3)), torch.randn(5, 3)
    assert not any(isinstance(module, SparseNetwork) for module in runtime.modules())
    assert torch.equal(runtime(x), network(x))


class TraceDependent(nn.Module):
    """Depends on a property of its tensors that differs while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.a(x)
        return self.b(functional.relu(h) if torch.is_tensor(h) else h)


class Several(nn.Module):
    """Does not return a tensor."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(4, 1), how

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return {"two": (y, y + 1), "one": (y,), "named": {"logits": y}}[self.how]


def test_a_network_that_is_traced_wrongly_is_no_program(caplog: pytest.LogCaptureFixture) -> None:
    network, x = TraceDependent(), torch.randn(7, 6)
    fast = sparse(network, x)
    assert not isinstance(fast, SparseNetwork)
    assert torch.allclose(fast(x), network(x), atol=1e-5)
    assert "outputs differ" in caplog.text


@pytest.mark.parametrize("how", ["two", "one", "named"])
def test_other_outputs_than_one_tensor_are_kept(how: str) -> None:
    network, x = Several(how).eval(), torch.randn(7, 4)
    expected, found = network(x), sparse(network, x)(x)
    assert type(found) is type(expected)
    assert all(torch.allclose(a, b) for a, b in zip(tensors(found), tensors(expected), strict=True))


def test_the_network_is_not_called_or_changed() -> None:
    network, x = TraceDependent().train(), torch.randn(7, 6)
    before, random = copy.deepcopy(network.state_dict()), torch.random.get_rng_state()
    assert not sparse(network, x).training
    assert (network.calls, network.training) == (0, True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(4, 5)

    def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
        return scale * functional.gelu(self.a(x) + self.b(input=y))


@pytest.mark.parametrize("form", [lambda x, y: (x, y), lambda x, y: {"y": y, "x": x}, lambda x, y: (x, y, 2.0)])
def test_several_inputs_are_given_by_position_or_keyword(
    form: Callable[[Tensor, Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "is_faster", lambda *_: True)
    network = sparsify(randomise(TwoInputs()), 0.4, seed=0)
    runtime = sparse(network, form(torch.randn(3, 4), torch.randn(3, 4)))
    assert all(isinstance(layer, SparseLayer) for layer in (runtime.a, runtime.b))
    x, y = torch.randn(2, 7, 4)
    torch.testing.assert_close(runtime(x, y=y, scale=3.0), network(x, y, 3.0))


def test_a_single_input_may_be_in_a_tuple_or_dict() -> None:
    network, x = sparsify(randomise(nn.Sequential(nn.Linear(4, 5), nn.ReLU())), 0.4, seed=0), torch.randn(3, 4)
    assert isinstance(sparse(network, (x,)), SparseNetwork)
    torch.testing.assert_close(sparse(network, {"input": x})(input=x), network(x))


@pytest.mark.parametrize(
    "example", [(torch.ones(2, 4),), (torch.ones(2, 4), torch.ones(2, 3)), {"z": torch.ones(2, 4)}]
)
def test_an_example_that_the_network_does_not_take_is_an_error(example: Any) -> None:
    with pytest.raises(InputError, match="example"):
        sparse(TwoInputs(), example)


@pytest.mark.parametrize("example", [np.ones((2, 4)), None, torch.ones(4), (), {}, (3,), [torch.ones(2, 4)]])
def test_an_example_that_is_not_a_batch_is_an_error(example: Any) -> None:
    with pytest.raises(InputError, match="example"):
        sparse(nn.Linear(4, 2), example)
