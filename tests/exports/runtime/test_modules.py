from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.exports.helpers import Written
from tests.exports.networks import randomise, sparsify
from tests.exports.runtime.helpers import assert_close, scale_of, wanted
from tombola.exports.runtime import modules as layers
from tombola.exports.runtime.layout import program_of
from tombola.exports.runtime.modules import SparseLayer, with_sparse_layers


@pytest.fixture
def all_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_pays", lambda *_: True)


def made(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in layer.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
    return sparsify(randomise(layer), 0.4, seed=2).eval()


@pytest.mark.parametrize("shape", [(5,), (1, 5), (17, 5), (3, 4, 5), (2, 3, 2, 5)])
def test_a_linear_layer_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    layer, x = made(nn.Linear(5, 7)), torch.randn(shape)
    assert isinstance(layer, nn.Linear)
    for example in (x, torch.ones(2, 5)):
        assert_close(SparseLayer(layer, example)(x), wanted(layer, x), scale_of(layer, x))


def test_a_convolution_takes_batches_of_any_size() -> None:
    layer = made(nn.Conv2d(4, 6, 3, 2, padding="valid", groups=2, dilation=(1, 2)))
    assert isinstance(layer, nn.Conv2d)
    sparse = SparseLayer(layer, torch.ones(1, 4, 9, 8))
    for images in (1, 3, 40):
        x = torch.randn(images, 4, 9, 8)
        assert_close(sparse(x), wanted(layer, x), scale_of(layer, x))


class Mixed(nn.Module):
    """Layers that can be sparse, and those that cannot."""

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


@pytest.mark.usefixtures("all_pay")
def test_layers_are_sparse_where_they_can_be() -> None:
    network, x = made(Mixed()), torch.randn(3, 2, 6, 6)
    copied, names = with_sparse_layers(network, x)
    assert names == ["conv", "linear"]
    assert {name for name, module in copied.named_modules() if isinstance(module, SparseLayer)} == set(names)
    torch.testing.assert_close(copied(x), network(x))
    torch.testing.assert_close(copied(x[:1]), network(x[:1]))


@pytest.mark.usefixtures("all_pay")
def test_the_network_stays_as_it_is() -> None:
    network = made(nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3))).train()
    state = copy.deepcopy(network.state_dict())
    copied, names = with_sparse_layers(network, torch.randn(2, 5))
    assert names == ["0", "2"]
    assert network.training
    assert not copied.training
    assert type(network[0]) is nn.Linear
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_layers_that_are_faster_dense_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def pays(sparse: nn.Module, dense: nn.Module, x: Tensor) -> bool:
        assert sparse(x).shape == dense(x).shape
        asked.append(dense)
        return isinstance(dense, nn.Conv2d)

    monkeypatch.setattr(layers, "_pays", pays)
    network = made(nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(18, 3)))
    copied, names = with_sparse_layers(network, torch.randn(2, 1, 5, 5))
    assert names == ["0"]
    assert [type(layer) for layer in asked] == [nn.Conv2d, nn.Linear]
    assert type(copied[3]) is nn.Linear


@pytest.mark.parametrize("sooner", [False, True])
def test_what_pays_is_what_takes_less_time(monkeypatch: pytest.MonkeyPatch, sooner: bool) -> None:
    monkeypatch.setattr(layers, "faster", lambda one, other: (one(), other(), sooner)[-1])
    layer = made(nn.Linear(3, 3))
    assert isinstance(layer, nn.Linear)
    x = torch.ones(2, 3)
    assert layers._pays(SparseLayer(layer, x), layer, x) is sooner


@pytest.mark.usefixtures("all_pay")
def test_sparse_layers_are_copied_and_saved_with_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "tuned", program_of)  # what is measured may come out differently twice
    network = made(nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)))
    copied, _ = with_sparse_layers(network, torch.randn(2, 5))
    other, _ = with_sparse_layers(network, torch.randn(2, 5))
    x = torch.randn(20, 5)
    other.load_state_dict(copied.state_dict())
    assert torch.equal(copy.deepcopy(copied)(x), copied(x))
    assert torch.equal(other(x), copied(x))


@pytest.mark.usefixtures("all_pay")
@pytest.mark.parametrize("otherwise", [lambda layer, _: layer.weight, lambda _, x: x])
def test_in_a_network_that_looks_into_its_layers_they_stay_dense(
    otherwise: Callable[[nn.Module, Tensor], Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    def forward(network: Any, x: Tensor) -> Tensor:
        return network.layer(x) if isinstance(network.layer, nn.Linear) else otherwise(network.layer, x)

    network, x = Written(forward, layer=made(nn.Linear(3, 3))), torch.randn(2, 3)
    copied, names = with_sparse_layers(network, x)
    assert names == []
    assert torch.equal(copied(x), network(x))
    assert "the network does not work with sparse layers, all stay dense" in caplog.text


@pytest.mark.usefixtures("all_pay")
def test_transformers_of_torch_work() -> None:
    """In evaluation mode they hand the weights of their layers to a function that does everything."""
    network = made(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    x = torch.randn(2, 3, 8)
    copied, _ = with_sparse_layers(network, x)
    torch.testing.assert_close(copied(x), network(x))
