from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.exports import networks
from tests.exports.helpers import Written
from tests.exports.networks import Residual, randomise, sparsify
from tests.exports.runtime.helpers import (
    BATCHES,
    Sum,
    assert_close,
    batch,
    bits,
    compiled,
    plannable,
    planned,
    scale_of,
    wanted,
)
from tombola.exports.agreement import tensors
from tombola.exports.runtime import modules as layers
from tombola.exports.runtime import network as network_module
from tombola.exports.runtime import sparse, tuning
from tombola.exports.runtime.layout import dense_products, program_of
from tombola.exports.runtime.modules import SparseLayer
from tombola.exports.runtime.network import SparseNetwork
from tombola.utils.errors import InputError
from tombola.zoo.models.resnet import resnet_20
from tombola.zoo.models.vit import vit

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, of even kernels


@settings(deadline=None, max_examples=100)
@given(plannable(), st.sampled_from([1, 2, 3]), st.data())
def test_it_computes_what_the_network_does(made: tuple[nn.Module, Tensor], threads: int, data: st.DataObject) -> None:
    """All sparse, all dense, and any mixture."""
    network, example = made
    plan = planned(network, example)
    possible = sorted(dense_products(plan))
    mixed = data.draw(st.sets(st.sampled_from(possible))) if possible else set()
    x = batch(example, max(BATCHES))
    expected = wanted(network, x)
    scale = scale_of(network, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_module, "ALONE", 1)
        for dense in (set(), set(possible), mixed):
            runtime = SparseNetwork(program_of(plan, dense), threads)
            for images in BATCHES:
                assert_close(runtime(x[:images]), expected[:images], scale)


@settings(deadline=None, max_examples=40)
@given(networks.networks(), st.floats(0.05, 1), st.integers(0, 99), st.booleans())
def test_networks_of_any_kind_have_sparse_layers_or_are_sparse(
    made: tuple[nn.Module, Tensor], density: float, seed: int, dense: bool
) -> None:
    """Networks with other activations or poolings than the kernels have get sparse layers."""
    network, example = made
    sparsify(network, density, seed)
    x = batch(example, 40)
    expected = wanted(network, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "faster", lambda *_: dense)
        patch.setattr(layers, "faster", lambda *_: True)
        runtime = sparse(network, example, threads=1)
    assert any(isinstance(module, SparseNetwork) for module in runtime.modules())
    for images in (1, 2, 17, 40):
        assert_close(runtime(x[:images]).float(), expected[:images], scale_of(network, x))


@settings(deadline=None, max_examples=40)
@given(plannable(), st.booleans(), st.integers(0, 999))
def test_no_example_changes_what_another_gives(made: tuple[nn.Module, Tensor], dense: bool, seed: int) -> None:
    network, example = made
    runtime, rng = SparseNetwork(compiled(network, example, dense), 1), np.random.default_rng(seed)
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
def test_what_is_no_number_or_infinite_goes_where_it_does_in_torch(network: nn.Module, dense: bool) -> None:
    randomise(network.eval())
    example = torch.ones(1, 2, 6, 5)
    runtime = SparseNetwork(compiled(network, example, dense), 1)
    rng = np.random.default_rng(0)
    for images in (1, 17):
        x = batch(example, images)
        for number in (math.nan, math.inf, -math.inf):
            x[torch.from_numpy(rng.random(x.shape) < 0.03)] = number
        expected, found = wanted(network, x), runtime(x)
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
    runtime = SparseNetwork(compiled(network, x[:1], dense), 1)
    for images in BATCHES:
        assert_close(runtime(x[:images]), wanted(network, x[:images]), scale_of(network, x))


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_without_any_weight_gives_its_bias(bias: bool) -> None:
    conv, linear = nn.Conv2d(2, 3, 3, padding=1, bias=bias), nn.Linear(60, 4, bias=bias)
    for layer, shape in ((conv, (2, 5, 4)), (nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear), (2, 5, 4))):
        torch.nn.init.zeros_(conv.weight)
        torch.nn.init.zeros_(linear.weight)
        runtime, x = sparse(layer, torch.ones(1, *shape)), torch.full((17, *shape), math.nan)
        assert torch.equal(runtime(x), wanted(layer, torch.zeros(17, *shape)).float())
        assert isinstance(runtime, SparseNetwork)
        assert runtime.weights == 0


@pytest.mark.parametrize("shape", [(7,), (6, 5), (2, 6, 5)])
def test_examples_of_one_two_or_three_axes(shape: tuple[int, ...]) -> None:
    flat = math.prod(shape)
    network = randomise(nn.Sequential(nn.Flatten(), nn.Linear(flat, 9), nn.ReLU(), nn.Linear(9, 2)))
    runtime, x = sparse(network, torch.ones(1, *shape)), batch(torch.ones(1, *shape), 20)
    assert isinstance(runtime, SparseNetwork)
    assert_close(runtime(x), wanted(network, x), scale_of(network, x))


def test_images_come_out_of_a_network_of_convolutions() -> None:
    network = randomise(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)))
    runtime, x = sparse(network, torch.ones(1, 1, 9, 7)), batch(torch.ones(1, 1, 9, 7), 20)
    assert runtime(x).shape == (20, 2, 9, 7)
    assert_close(runtime(x), wanted(network, x), scale_of(network, x))


def test_a_network_written_with_functions() -> None:
    def forward(network: nn.Module, x: Tensor) -> Tensor:
        y = nn.functional.relu(network.get_submodule("conv")(x), inplace=True)
        y = torch.cat([y, nn.functional.max_pool2d(y, 3, 1, 1), y + y], 1)
        return network.get_submodule("linear")(y.mean((2, 3)).relu_())

    network = randomise(Written(forward, conv=nn.Conv2d(2, 3, 3), linear=nn.Linear(9, 4))).eval()
    runtime, x = sparse(network, torch.ones(1, 2, 8, 8)), batch(torch.ones(1, 2, 8, 8), 20)
    assert isinstance(runtime, SparseNetwork)
    assert_close(runtime(x), wanted(network, x), scale_of(network, x))


def test_a_residual_network_is_a_product_for_each_layer() -> None:
    """Batch norm, ReLU and additions are part of them; 22 layers with weights, and the pooling."""
    network = sparsify(randomise(resnet_20((3, 8, 8), 10, width=4)), 0.2, seed=0).eval()
    x = batch(torch.ones(1, 3, 8, 8), 33)
    runtime = sparse(network, x[:1], threads=1)
    assert isinstance(runtime, SparseNetwork)
    assert len(runtime.program.table) == 1 + 22 + 1
    assert_close(runtime(x), wanted(network, x), scale_of(network, x))


def test_a_transformer_gets_sparse_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "faster", lambda *_: True)
    torch.manual_seed(0)
    network = sparsify(randomise(vit((3, 8, 8), 10, patch=4, width=16, depth=2, heads=2)), 0.3, seed=0).eval()
    x = batch(torch.ones(1, 3, 8, 8), 17)
    runtime = sparse(network, x)
    replaced = [module for module in runtime.modules() if isinstance(module, SparseLayer)]
    linear = [m for m in network.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    assert len(replaced) == len(linear) > 5
    assert_close(runtime(x), wanted(network, x), scale_of(network, x))


def test_what_has_no_layers_stays_as_it_is() -> None:
    network = nn.Sequential(nn.Sigmoid())
    runtime, x = sparse(network, torch.ones(1, 3)), torch.randn(5, 3)
    assert not any(isinstance(module, SparseNetwork) for module in runtime.modules())
    assert torch.equal(runtime(x), network(x))


def test_the_network_itself_stays_as_it_is() -> None:
    network = randomise(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    runtime = sparse(network, torch.randn(4, 2, 5, 5))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not runtime.training


class Asking(nn.Module):
    """Asks what its tensors are, which tracing answers otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.a(x)
        return self.b(functional.relu(h) if torch.is_tensor(h) else h)


class Several(nn.Module):
    """Returns what is no tensor."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.how = nn.Linear(4, 1), how

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x)
        return {"two": (y, y + 1), "one": (y,), "named": {"logits": y}}[self.how]


def test_what_tracing_sees_wrongly_is_no_program(caplog: pytest.LogCaptureFixture) -> None:
    network, x = Asking(), torch.randn(7, 6)
    fast = sparse(network, x)
    assert not isinstance(fast, SparseNetwork)
    assert torch.allclose(fast(x), network(x), atol=1e-5)
    assert "not one program" in caplog.text
    assert "as a program, its outputs differ" in caplog.text


@pytest.mark.parametrize("how", ["two", "one", "named"])
def test_what_is_not_one_tensor_stays_so(how: str) -> None:
    network, x = Several(how).eval(), torch.randn(7, 4)
    expected, found = network(x), sparse(network, x)(x)
    assert type(found) is type(expected)
    assert all(torch.allclose(a, b) for a, b in zip(tensors(found), tensors(expected), strict=True))


def test_the_network_itself_is_left_alone() -> None:
    network, x = Asking().train(), torch.randn(7, 6)
    before = torch.random.get_rng_state()
    sparse(network, x)
    assert (network.calls, network.training) == (0, True)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("example", [np.ones((2, 4)), None, torch.ones(4)])
def test_what_is_no_batch_is_refused(example: Any) -> None:
    with pytest.raises(InputError, match="should be a batch of inputs"):
        sparse(nn.Linear(4, 2), example)
