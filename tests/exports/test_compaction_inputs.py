from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tests.support.export_networks import FunctionNetwork, images
from tests.support.random_networks import networks, sparsify
from tests.support.user_networks import Autoencoder, Features, Pair, Tokens, with_dead_units
from tombola import compact, sparse
from tombola.exports.agreement import output_mismatch
from tombola.utils.model_inputs import call, tensors

X, Y = images(40, 10), images(40, 6, seed=1)
MASK = torch.ones(40, 1)


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def reseed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)


def assert_same(network: nn.Module, other: nn.Module, inputs: Any) -> None:
    """Both return the same up to rounding, with the same random numbers."""
    outputs = []
    for each in (network.eval(), other):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            outputs.append([*tensors(call(each, inputs))])
    for before, after in zip(*outputs, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


ONE, BOTH = 20 * 11 + 64 * 7 + 20 * 2 + 2, 20 * 11 + 20 * 7 + 20 * 2 + 2
"""The parameters of the compact `Pair` that was called with one and with both inputs."""


@pytest.mark.parametrize(
    ("inputs", "parameters"),
    [
        (X, ONE),
        ((X,), ONE),
        ({"x": X}, ONE),
        ((X, None, 2.0), ONE),
        ({"scale": 3.0, "x": X, "mask": None}, ONE),
        ((X, Y), BOTH),
        ((X, Y, 0.5), BOTH),
        ({"y": Y, "x": X}, BOTH),
    ],
)
def test_inputs_of_any_form(inputs: Any, parameters: int, caplog: pytest.LogCaptureFixture) -> None:
    network = with_dead_units(Pair())
    smaller = compact(network, inputs)
    assert not caplog.records
    assert count_parameters(smaller) == parameters
    assert_same(network, smaller, inputs)


def test_operations_of_several_inputs_keep_their_operands() -> None:
    network = with_dead_units(Pair())
    for inputs in ((X, Y, MASK), {"x": X, "y": Y, "mask": MASK}):
        assert_same(network, compact(network, inputs), inputs)


@settings(deadline=None, max_examples=20)
@given(networks(), st.sampled_from([0.05, 0.3]), st.integers(0, 2**16))
def test_forms_of_inputs_and_random_states_do_not_matter(
    drawn: tuple[nn.Module, Tensor], density: float, seed: int
) -> None:
    network, example = drawn
    sparsify(network, density, seed)
    made = []
    for number, inputs in enumerate((example, (example,), {"input": example})):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + number)
            made.append(compact(network, inputs).state_dict())
    for state in made[1:]:
        assert state.keys() == made[0].keys()
        assert all(torch.equal(tensor, made[0][name]) for name, tensor in state.items())


def indexed(n: Any, x: Tensor) -> Tensor:
    out: Tensor = n.output(n.hidden(n.embedding(x[:, 0].long())).relu())
    return out


def test_numbers_that_are_indices_are_compacted_for_any_random_state() -> None:
    layers = {"embedding": nn.Embedding(10, 8), "hidden": nn.Linear(8, 32), "output": nn.Linear(32, 2)}
    network = with_dead_units(FunctionNetwork(indexed, **layers))
    example = torch.arange(40.0).reshape(8, 5) % 10
    counts = set()
    for seed in range(5):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            counts.add(count_parameters(compact(network, example)))
    assert counts == {80 + 20 * 9 + 2 * 21}


def test_tokens_are_compacted() -> None:
    network, ids = with_dead_units(Tokens(gives_loss=True)), torch.randint(20, (6, 4))
    smaller = compact(network, {"input_ids": ids, "attention_mask": torch.ones(6, 4)})
    assert count_parameters(smaller) == 160 + 20 * 9 + 3 * 21
    assert_same(network, smaller, ids)


def test_random_operations_draw_the_same_before_and_after() -> None:
    network = with_dead_units(Autoencoder())
    smaller = compact(network, X)
    assert count_parameters(smaller) == 20 * 11 + 2 * 4 * 21 + 20 * 5 + 10 * 21
    assert_same(network, smaller, X)


class MonteCarlo(nn.Dropout):
    """Dropout that stays in training mode."""

    def train(self, mode: bool = True) -> MonteCarlo:
        return super().train(mode or True)


@pytest.mark.parametrize("dropout", [nn.Dropout(), MonteCarlo()])
def test_only_dropout_that_does_nothing_is_seen_through(dropout: nn.Module) -> None:
    network = with_dead_units(nn.Sequential(nn.Linear(10, 64), nn.ReLU(), dropout, nn.Linear(64, 2)))
    smaller = compact(network, X)
    units = 20 if type(dropout) is nn.Dropout else 64
    assert count_parameters(smaller) == units * 11 + 2 * (units + 1)
    assert_same(network, smaller, X)


def test_random_states_are_left_as_found() -> None:
    def draws(n: Any, x: Tensor) -> Tensor:
        out: Tensor = n.a(x) + float(np.random.rand()) + random.random() + torch.rand(1)  # noqa: NPY002
        return out

    network = FunctionNetwork(draws, a=nn.Linear(10, 4))
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    compact(network, X)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_only_copies_are_run() -> None:
    def counts(n: Any, x: Tensor) -> Tensor:
        n.calls += 1
        n.kept.append(x)
        out: Tensor = n.b(n.a(x).relu())
        return out

    network = with_dead_units(FunctionNetwork(counts, a=nn.Linear(10, 64), b=nn.Linear(64, 2)))
    network.register_buffer("calls", torch.zeros(()))
    network.kept = []
    smaller = compact(network, X)
    assert count_parameters(smaller) == 20 * 11 + 2 * 21
    for each in (network, smaller):
        assert (int(each.calls), each.kept) == (0, [])  # type: ignore[arg-type]


def test_a_network_that_keeps_its_features_is_compacted() -> None:
    network = with_dead_units(Features())
    network(X)
    smaller = compact(network, X)
    assert count_parameters(smaller) == 20 * 11 + 2 * 21
    assert smaller.features.shape == (40, 64)  # type: ignore[union-attr]
    assert_same(network, smaller, X)


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")
@pytest.mark.parametrize("make", [compact, sparse])
@pytest.mark.parametrize(
    ("dtype", "runs"), [(torch.complex64, True), (torch.float16, True), (torch.float8_e4m3fn, False)]
)
def test_weights_of_other_types(make: Any, dtype: torch.dtype, runs: bool) -> None:
    network = with_dead_units(nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 2))).to(dtype)
    with raises_input_error("does not take", "(40, 10)"):
        make(network, X)
    if not runs:
        with raises_input_error("does not take"):
            make(network, X.to(dtype))
        return
    with torch.no_grad():
        found, expected = make(network, X.to(dtype))(X.to(dtype)), network(X.to(dtype))
    torch.testing.assert_close(found.to(torch.complex64), expected.to(torch.complex64), rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore:Complex modules:UserWarning")
def test_complex_layers_keep_their_size() -> None:
    network = with_dead_units(nn.Sequential(nn.Linear(10, 64), nn.Linear(64, 2))).to(torch.complex64)
    assert count_parameters(compact(network, X.to(torch.complex64))) == count_parameters(network)


def test_outputs_that_cannot_be_compared_are_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    network = with_dead_units(FunctionNetwork(lambda n, x: [n.a(x).shape[0]], a=nn.Linear(10, 64)))
    with caplog.at_level(logging.WARNING):
        assert count_parameters(compact(network, X)) == 64 * 11
    assert len(caplog.records) == 1


def test_outputs_differ_in_number_type_and_value() -> None:
    def plus(x: Tensor) -> Any:
        return x + 1

    assert output_mismatch(plus, plus, X) is None
    for other in (lambda x: x, lambda x: (x + 1, x), lambda x: (x + 1).double(), lambda x: x[:1]):
        assert output_mismatch(plus, other, X) is not None
    ids = torch.arange(6).reshape(3, 2)
    assert output_mismatch(lambda x: x > 2, lambda x: x > 2, ids) is None
    assert output_mismatch(lambda x: x > 2, lambda x: x > 4, ids) is not None
