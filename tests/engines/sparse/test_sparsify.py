"""Which layers become sparse."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.any_networks import make
from tests.support.networks import Convolutional
from tombola.engines.sparse import speeds as module
from tombola.engines.sparse.modules import SparseTrainingLayer, make_sparse
from tombola.engines.sparse.sparsify import sparsify
from tombola.engines.sparse.speeds import Speeds, machine
from tombola.pruning.mask import Mask

X = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))


class AlwaysSparse(Speeds):
    def sparse_is_faster(self, layer: nn.Module, inputs: tuple[int, ...], density: float) -> bool:  # noqa: ARG002
        return density < 1


SPEEDS = AlwaysSparse(Path("nowhere"))


def prune_half(network: nn.Module) -> Mask:
    torch.manual_seed(0)
    mask = Mask({name: torch.rand(kept.shape) < 0.5 for name, kept in Mask.full(network).items()})
    mask.apply_(network)
    return mask


def test_layers_are_replaced_and_the_state_dict_stays_dense() -> None:
    network = Convolutional(dropout=0.0)
    mask = prune_half(network)
    before, keys = network.state_dict(), list(network.state_dict())
    expected = network.eval()(X)
    sparsified, dense = sparsify(network.train(), mask, X, SPEEDS)
    assert not dense
    assert set(sparsified.layers) == {"conv", "output"}
    assert network.training
    assert isinstance(network.conv, SparseTrainingLayer)
    assert sum(p.numel() for p in network.parameters()) == mask.count + 10 + 8  # biases, batch norm
    torch.testing.assert_close(network.eval()(X), expected)
    state = sparsified.state_dict()
    assert list(state) == keys
    assert all(torch.equal(state[name], before[name]) for name in keys)
    with torch.no_grad():
        network.get_parameter("conv.values").fill_(3.0)
    assert torch.equal(sparsified.state_dict()["conv.weight"], 3.0 * mask["conv.weight"])
    assert torch.equal(network.conv.weight, 3.0 * mask["conv.weight"])


def test_each_layer_that_stays_dense_has_a_reason() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.circular = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
            self.line = nn.Conv1d(8, 8, 1)
            self.hooked = nn.Linear(8, 8)
            self.hooked.register_forward_hook(lambda *_: None)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.second.weight = self.first.weight
            self.frozen = nn.Linear(8, 8)
            self.frozen.bias.requires_grad_(False)
            self.unused = nn.Linear(8, 8)
            self.full = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.line(self.circular(x[:, None])[:, 0])
            return self.full(self.frozen(self.second(self.first(self.hooked(x)))))

    network = Many()
    mask = prune_half(network)
    mask = Mask({**mask, "full.weight": torch.ones(8, 8, dtype=torch.bool)})
    sparsified, dense = sparsify(network, mask, X, SPEEDS)
    assert not sparsified.layers
    assert dense == {
        "circular": 'its padding mode is "circular"',
        "line": "it is a Conv1d",
        "hooked": "it has hooks",
        "first": "it shares parameters with another layer",
        "frozen": "some of its parameters are frozen",
        "unused": "the network does not call it",
        "full": "dense is faster with 100.0% of its weights",
    }


def test_masked_parameters_that_are_not_weights_of_layers_stay_dense_by_their_names() -> None:
    network = make("attention")
    mask = Mask({name: torch.rand(p.shape) < 0.5 for name, p in network.named_parameters()})
    mask.apply_(network)
    sparsified, dense = sparsify(network, mask, X, SPEEDS)
    assert set(sparsified.layers) == {"inner", "output"}
    assert set(dense) == set(mask) - {"inner.weight", "output.weight", "attention.out_proj.weight"} | {
        "attention.out_proj"
    }


def test_a_sparse_layer_is_still_the_layer() -> None:
    layer, kept = nn.Linear(8, 4), torch.rand(4, 8) < 0.5
    layer.comment = "mine"
    dense = copy.deepcopy(layer)
    with torch.no_grad():
        dense.weight.mul_(kept)
    sparse = make_sparse(layer, kept)
    assert sparse is layer
    assert isinstance(sparse, nn.Linear)
    assert (sparse.in_features, sparse.comment, repr(sparse)[:6]) == (8, "mine", "Sparse")
    assert torch.equal(sparse.weight, dense.weight)
    x = torch.randn(3, 8)
    functional.linear(x, sparse.weight, sparse.bias).square().sum().backward()
    dense(x).square().sum().backward()
    torch.testing.assert_close(sparse.product.to_dense(sparse.values.grad), dense.weight.grad * kept)
    with pytest.raises(AttributeError):
        sparse.weight = torch.zeros(4, 8)
    copied = pickle.loads(pickle.dumps(sparse))
    assert torch.equal(copied(input=x), sparse(x))


@pytest.mark.parametrize(
    "call",
    [
        lambda layer, x: layer(x.bfloat16()),
        lambda layer, x: layer(x[:, :3]),
        lambda layer, x: layer(x[0, 0, 0]),
        lambda layer, x: layer(x[..., :2]),
        lambda layer, x: layer(x[:0]),
        lambda layer, x: torch.autocast("cpu", torch.bfloat16)(layer)(x),
        lambda layer, x: layer(torch.nested.nested_tensor([x[0], x[1]])),
        lambda layer, x: torch.func.vmap(layer)(x[:, None]),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_what_the_kernels_do_not_support_is_computed_by_the_dense_layer(
    call: Callable[[nn.Module, Tensor], Tensor],
) -> None:
    """Or it raises an error: the compiled kernels would read beyond their inputs."""

    def result(layer: nn.Module, x: Tensor) -> Tensor | type[Exception]:
        try:
            out = call(layer, x).detach()
        except Exception as error:  # noqa: BLE001 - torch's
            return type(error)
        return out.to_padded_tensor(0) if out.is_nested else out

    for layer, x in ((nn.Linear(5, 4), torch.randn(2, 4, 4, 5)), (nn.Conv2d(4, 2, 3), torch.randn(2, 4, 5, 5))):
        kept = torch.rand(layer.weight.shape) < 0.5
        with torch.no_grad():
            layer.weight.mul_(kept)
        expected, found = result(layer, x), result(make_sparse(copy.deepcopy(layer), kept), x)
        if isinstance(expected, Tensor) and isinstance(found, Tensor):
            torch.testing.assert_close(found, expected)
        else:
            assert isinstance(found, type)


def test_a_trial_changes_neither_the_network_nor_the_random_state() -> None:
    class Closure(nn.Module):
        """A copy of it calls the batch norm of the original."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner = nn.BatchNorm1d(8), nn.Linear(8, 8)
            self.calls = 0
            self.function = lambda x: self.norm(x)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.inner(functional.dropout(self.function(x), 0.5))

    network = Closure()
    mask = prune_half(network)
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    sparsified, _ = sparsify(network, mask, X, SPEEDS)
    assert list(sparsified.layers) == ["inner"]
    assert network.calls == 0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in sparsified.state_dict().items())


def test_a_network_that_cannot_be_copied_stays_dense() -> None:
    network = Convolutional()
    network.lock = threading.Lock()
    sparsified, dense = sparsify(network, prune_half(network), X, SPEEDS)
    assert not sparsified.layers
    assert set(dense) == {"conv", "output"}


@pytest.mark.parametrize("when", ["always", "wrongly", "in training"])
def test_a_network_that_accesses_the_weights_of_its_layers_stays_dense(when: str) -> None:
    class AccessesWeights(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            if when == "in training" and not self.training:
                return self.inner(x)
            if when == "wrongly":  # without an error, but with other outputs
                return self.inner(x) + getattr(self.inner, "weight", torch.zeros(8, 8)).sum()
            return self.inner(x) + self.inner.weight.sum()

    network = AccessesWeights()
    mask = prune_half(network)
    layer, before = network.inner, network.inner.weight.clone()
    sparsified, dense = sparsify(network, mask, X, SPEEDS)
    assert list(dense) == ["inner"]
    assert not sparsified.layers
    assert network.inner is layer
    assert torch.equal(network.inner.weight, before)


def fake_step_times(monkeypatch: pytest.MonkeyPatch, sparse: float, dense: float) -> list[nn.Module]:
    measured: list[nn.Module] = []

    def step_time(layer: nn.Module, inputs: tuple[int, ...]) -> float:  # noqa: ARG001
        measured.append(layer)
        return sparse if isinstance(layer, SparseTrainingLayer) else dense

    monkeypatch.setattr(module, "step_time", step_time)
    return measured


@pytest.mark.parametrize(("sparse", "dense"), [(1.0, 2.0), (2.0, 1.0)])
def test_a_layer_is_sparse_if_that_was_measured_to_be_faster(
    sparse: float, dense: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_step_times(monkeypatch, sparse, dense)
    assert Speeds(tmp_path / "speeds.json").sparse_is_faster(nn.Linear(9, 8), (5, 9), 0.1) == (sparse < dense)


def test_each_layer_input_shape_and_density_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, layer = tmp_path / "folder" / "speeds.json", nn.Linear(9, 8)
    measured = fake_step_times(monkeypatch, 1.0, 2.0)
    Speeds(path).sparse_is_faster(layer, (5, 9), 0.1)
    assert len(measured) == 2  # dense and sparse
    Speeds(path).sparse_is_faster(layer, (5, 9), 0.101)  # rounded to the same density
    assert len(measured) == 2
    Speeds(path).sparse_is_faster(layer, (5, 9), 0.2)
    assert len(measured) == 3  # the dense time is known
    Speeds(path).sparse_is_faster(layer, (6, 9), 0.2)
    Speeds(path).sparse_is_faster(nn.Linear(9, 8, bias=False), (6, 9), 0.2)
    assert len(measured) == 7
    table = Speeds(path).all()
    assert len(table) == 4
    assert {speed.machine for speed in table} == {machine()}
    assert table[0].density > table[1].density
    assert (table[0].sparse, table[0].dense) == (1.0, 2.0)


def test_a_dense_layer_is_not_measured(tmp_path: Path) -> None:
    assert not Speeds(tmp_path / "speeds.json").sparse_is_faster(nn.Linear(9, 8), (5, 9), 1.0)
    assert not (tmp_path / "speeds.json").exists()


def test_an_empty_layer_can_be_measured(tmp_path: Path) -> None:
    Speeds(tmp_path / "speeds.json").sparse_is_faster(nn.Conv2d(1, 1, 3), (5, 1, 4, 4), 0.0)
    assert len(Speeds(tmp_path / "speeds.json").all()) == 1


@pytest.mark.parametrize("content", ["{", "[1]", '{"machine": 3}'])
def test_a_damaged_file_is_replaced(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_step_times(monkeypatch, 1.0, 2.0)
    path = tmp_path / "speeds.json"
    path.write_text(content)
    assert Speeds(path).sparse_is_faster(nn.Linear(9, 8), (5, 9), 0.1)
    assert json.loads(path.read_text())


def test_without_a_writable_file_layers_are_still_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_step_times(monkeypatch, 1.0, 2.0)
    (tmp_path / "file").touch()
    assert Speeds(tmp_path / "file" / "speeds.json").sparse_is_faster(nn.Linear(9, 8), (5, 9), 0.1)
    assert str(tmp_path / "file" / "speeds.json") in caplog.text


def test_the_file_is_set_by_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_SPEEDS", "/somewhere/else.json")
    assert Speeds.default() == Speeds(Path("/somewhere/else.json"))
