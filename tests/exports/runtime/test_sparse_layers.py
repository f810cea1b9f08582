from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.any_networks import KINDS, make
from tests.support.export_networks import FunctionNetwork
from tests.support.random_networks import randomise, sparsify
from tests.support.runtime_networks import assert_close, expected_outputs, scale_of
from tombola.exports.runtime import sparse_layers as layers
from tombola.exports.runtime.memory_layout import program_of
from tombola.exports.runtime.sparse_layers import SparseLayer, with_sparse_layers

SPARSE_LAYERS = {
    "lstm": ["output"],
    "attention": ["inner", "output"],
    "encoder layer": ["encoder.linear1", "encoder.linear2", "output"],
    "experts": ["line"],
    "by_keyword": ["a", "b", "extra"],
    "tied": ["b", "extra"],
    "called_twice": ["a", "b", "extra"],
    "metadata": ["a", "b", "extra"],
}


@pytest.fixture
def all_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_sparse_is_faster", lambda *_: True)


def made(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in layer.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
    return sparsify(randomise(layer), 0.4, seed=2).eval()


@pytest.mark.parametrize("shape", [(5,), (1, 5), (17, 5), (3, 4, 5), (2, 3, 2, 5)])
def test_a_linear_layer_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    layer, x = made(nn.Linear(5, 7)), torch.randn(shape)
    for example in (x, torch.ones(2, 5)):
        assert_close(SparseLayer(layer, example)(x), expected_outputs(layer, x), scale_of(layer, x))


def test_a_convolution_takes_batches_of_any_size() -> None:
    layer = made(nn.Conv2d(4, 6, 3, 2, padding="valid", groups=2, dilation=(1, 2)))
    sparse = SparseLayer(layer, torch.ones(1, 4, 9, 8))
    for images in (1, 3, 40):
        x = torch.randn(images, 4, 9, 8)
        assert_close(sparse(x), expected_outputs(layer, x), scale_of(layer, x))


class Mixed(nn.Module):
    """Has layers that can be sparse, and others that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.single = nn.Conv2d(4, 4, 1)
        self.linear = nn.Linear(4, 6)
        self.tied = nn.Linear(6, 6)
        self.other = nn.Linear(6, 6)
        self.other.weight = self.tied.weight
        self.hooked = nn.Linear(6, 6)
        self.hooked.register_forward_hook(lambda *_: None)
        self.unused = nn.Linear(3, 3)
        self.exact = nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.circular(self.conv(x)))
        x = torch.stack([self.single(image) for image in x])
        x = self.other(self.tied(nn.functional.gelu(self.linear(x.mean((2, 3))))))
        return self.exact(self.hooked(x).double()).float()


@pytest.mark.usefixtures("all_faster")
def test_layers_that_can_be_sparse_are_replaced() -> None:
    network, x = made(Mixed()), torch.randn(3, 2, 6, 6)
    copied, names = with_sparse_layers(network, x)
    assert names == ["conv", "linear"]
    assert {name for name, module in copied.named_modules() if isinstance(module, SparseLayer)} == set(names)
    torch.testing.assert_close(copied(x), network(x))
    torch.testing.assert_close(copied(x[:1]), network(x[:1]))


def test_layers_that_are_faster_dense_stay_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def measured(sparse: nn.Module, dense: nn.Module, x: Tensor) -> bool:
        assert sparse(x).shape == dense(x).shape
        asked.append(dense)
        return isinstance(dense, nn.Conv2d)

    monkeypatch.setattr(layers, "_sparse_is_faster", measured)
    network = made(nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(18, 3)))
    copied, names = with_sparse_layers(network, torch.randn(2, 1, 5, 5))
    assert names == ["0"]
    assert [type(layer) for layer in asked] == [nn.Conv2d, nn.Linear]
    assert type(copied[3]) is nn.Linear


@pytest.mark.parametrize("faster", [False, True])
def test_sparse_and_dense_are_timed_on_the_same_inputs(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    monkeypatch.setattr(layers, "is_faster", lambda one, other: (one(), other(), faster)[-1])
    layer = made(nn.Linear(3, 3))
    x = torch.ones(2, 3)
    assert layers._sparse_is_faster(SparseLayer(layer, x), layer, x) is faster


@pytest.mark.usefixtures("all_faster")
def test_sparse_layers_are_copied_and_saved_with_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "tuned", program_of)  # two measurements may differ
    network = made(nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)))
    copied, _ = with_sparse_layers(network, torch.randn(2, 5))
    other, _ = with_sparse_layers(network, torch.randn(2, 5))
    x = torch.randn(20, 5)
    other.load_state_dict(copied.state_dict())
    assert torch.equal(copy.deepcopy(copied)(x), copied(x))
    assert torch.equal(other(x), copied(x))


@pytest.mark.usefixtures("all_faster")
@pytest.mark.parametrize("otherwise", [lambda layer, _: layer.weight, lambda _, x: x])
def test_layers_stay_dense_in_a_network_that_inspects_them(
    otherwise: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    def forward(network: Any, x: Tensor) -> Tensor:
        return network.layer(x) if isinstance(network.layer, nn.Linear) else otherwise(network.layer, x)

    network, x = FunctionNetwork(forward, layer=made(nn.Linear(3, 3))), torch.randn(2, 3)
    copied, names = with_sparse_layers(network, x)
    assert names == []
    assert torch.equal(copied(x), network(x))


@pytest.mark.usefixtures("all_faster")
@pytest.mark.parametrize("kind", KINDS)
def test_any_network_computes_the_same_with_and_without_autograd(kind: str) -> None:
    """Transformers of torch, for example, pass the weights of their layers to one fused function without it."""
    network, x = made(make(kind)), torch.rand(3, 8, 8)
    copied, names = with_sparse_layers(network, x)
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode:
            torch.testing.assert_close(copied(x[:2]), network(x[:2]), rtol=1e-4, atol=1e-5)
    if kind in SPARSE_LAYERS:
        assert names == SPARSE_LAYERS[kind]


@pytest.mark.usefixtures("all_faster")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_transformers_with_padding_stay_correct() -> None:
    """Without autograd they compute with nested tensors."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
            self.output = nn.Linear(8, 3)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            padding = torch.arange(x.shape[1]) >= lengths[:, None]
            out: Tensor = self.output(self.encoder(x, src_key_padding_mask=padding)[:, 0])
            return out

    network, x = made(Padded()), torch.randn(3, 5, 8)
    copied, names = with_sparse_layers(network, (x, torch.tensor([2, 5, 3])))
    assert names == ["output"]
    with torch.no_grad():
        lengths = torch.tensor([4, 1, 2])
        torch.testing.assert_close(copied(x, lengths), network(x, lengths))


@pytest.mark.usefixtures("all_faster")
def test_a_convolution_of_images_of_several_sizes_stays_dense() -> None:
    def forward(network: Any, x: Tensor) -> Tensor:
        out: Tensor = network.last(network.conv(torch.sigmoid(network.conv(x))))
        return out

    network = made(FunctionNetwork(forward, conv=nn.Conv2d(1, 1, 3), last=nn.Linear(4, 2)))
    copied, names = with_sparse_layers(network, torch.randn(2, 1, 8, 8))
    assert names == ["last"]
    torch.testing.assert_close(copied(torch.ones(2, 1, 8, 8)), network(torch.ones(2, 1, 8, 8)))


def test_sparse_layers_have_the_attributes_of_the_layer_but_not_its_weights() -> None:
    layer = made(nn.Linear(5, 7))
    layer.comment = "mine"
    sparse = SparseLayer(layer, torch.ones(1, 5))
    assert (sparse.in_features, sparse.out_features, sparse.comment) == (5, 7, "mine")
    assert (sparse.weight.shape, sparse.weight.dtype, sparse.weight.device) == (
        (7, 5), torch.float32, torch.device("cpu"),
    )  # fmt: skip
    assert sparse.weight.isnan().all()
    assert sparse.weight.untyped_storage().nbytes() == 4
    assert torch.equal(sparse.bias, layer.bias)
