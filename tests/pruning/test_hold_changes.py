"""Holds and changes of weights that are no step of a `torch.optim.Optimizer`: undone before use, or an error."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from tests.support.errors import raises_input_error
from tests.support.held_networks import Shared, assert_pruned, convolutional, held_network, mask_of, network
from tests.support.weight_changes import COUNTED, UNCOUNTED, Assign, average, descend
from tombola.pruning.hold import check_held, held, hold, release
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.utils.errors import InputError

X, Y = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


def masked_output(network: nn.Module, mask: Mask, x: Tensor) -> Tensor:
    """What a network computes with its present weights times the mask."""
    plain = copy.deepcopy(network)
    release(plain)
    mask.apply_(plain)
    return plain(x)


def dense_values(network: nn.Module, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator) for p in network.parameters()]


@pytest.mark.parametrize("assign", COUNTED)
@pytest.mark.parametrize("make", [network, Shared, convolutional])
def test_training_without_an_optimizer_is_held(assign: Assign, make: Any) -> None:
    made = make().eval()
    mask = mask_of(made)
    hold(made, mask)
    descend(made, X, Y, assign)
    expected = masked_output(made, mask, X)
    torch.testing.assert_close(made(X), expected, rtol=0, atol=0)
    assert_pruned(made, mask)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.sampled_from([*COUNTED, *UNCOUNTED]), min_size=1, max_size=3),
    use=st.sampled_from(["evaluate", "save", "check", "prune", "copy", "pickle", "average"]),
    seed=st.integers(0, 9),
)
def test_the_weights_that_are_used_are_the_masks_or_there_is_an_error(
    changes: list[Assign], use: str, seed: int
) -> None:
    made, mask = held_network(seed)
    made.eval()
    for step, assign in enumerate(changes):
        assign(made, dense_values(made, seed + step))
    other: nn.Module = made
    try:
        with torch.no_grad():
            if use == "evaluate":
                torch.testing.assert_close(made(X), masked_output(made, mask, X), rtol=0, atol=0)
            elif use == "save":
                other = network()
                other.load_state_dict(made.state_dict())
            elif use == "check":
                check_held(made)
            elif use == "prune":
                assert prune(made, 0.2) <= mask
            elif use == "average":
                other = average(made, [network(seed + 1)])
                other(X)
            else:
                other = copy.deepcopy(made) if use == "copy" else pickle.loads(pickle.dumps(made))
                other(X)
    except InputError:
        assert any(assign in UNCOUNTED for assign in changes)
    else:
        if changes[-1] not in UNCOUNTED or use in ("check", "save", "prune", "copy", "pickle"):
            assert_pruned(other, mask)


@pytest.mark.parametrize("assign", UNCOUNTED)
def test_a_change_that_is_not_counted_is_an_error_that_names_the_weight(assign: Assign) -> None:
    made, mask = held_network()
    assign(made, dense_values(made))
    revived = mask["0.weight"].numel() - int(mask["0.weight"].sum())
    with raises_input_error("0.weight", revived, "p.data"):
        check_held(made)
    with raises_input_error("0.weight", revived):
        prune(made, 0.1)


def test_an_evaluation_after_training_looks_at_values() -> None:
    made, _ = held_network()
    made(X)
    made[0].weight.data += 1
    with raises_input_error("0.weight"), torch.no_grad():
        made.eval()(X)
    assert made.train()(X).shape == (10, 3)  # a training step does not look, because that waits for a GPU


def test_a_state_is_not_saved_after_a_change_that_is_not_counted() -> None:
    made, _ = held_network()
    made(X)
    made[3].weight.data += 1
    with raises_input_error("3.weight", "not zero"):
        made.state_dict()
    with raises_input_error("weight"):
        made[3].state_dict()
    assert "weight" in made[0].state_dict()


def test_an_evaluation_after_one_with_gradients_looks_at_values() -> None:
    made, _ = held_network()
    made.eval()(X)
    made[0].weight.data += 1
    with raises_input_error("0.weight"), torch.no_grad():
        made(X)


def test_an_evaluation_with_gradients_looks_at_values() -> None:
    made, _ = held_network()
    made(X)
    made[0].weight.data += 1
    with raises_input_error("0.weight"):
        made.eval()(X)


def test_new_storage_at_the_former_address_is_noticed() -> None:
    made, mask = held_network()
    values = np.ones((8, 6), np.float32)
    for _ in range(2):
        values[:] = 1
        made[0].weight.data = torch.from_numpy(values)
        made(X)
        assert torch.equal(made[0].weight != 0, mask["0.weight"])


def test_evaluations_look_once_after_each_training_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.pruning.held_weight import HeldWeight

    made, mask = held_network()
    looked: list[str] = []
    check = HeldWeight.check
    monkeypatch.setattr(HeldWeight, "check", lambda weight: (looked.append(weight.path), check(weight))[1])
    for expected in ([*mask], []):
        with torch.no_grad():
            made.eval()(X)
        assert looked == expected
        looked.clear()
    made.train()(X)
    assert not looked


class Direct(nn.Module):
    """Uses a layer's weight without calling the layer, like `nn.MultiheadAttention`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"inner": nn.Linear(6, 6)})
        self.output = nn.MultiheadAttention(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x, self.body["inner"].weight)
        attended: Tensor = self.output(x, x, x)[0]
        return attended


@pytest.mark.parametrize("copy_", [False, True])
def test_weights_used_without_their_layer_are_held(copy_: bool) -> None:
    made = Direct()
    mask = mask_of(made)
    assert list(mask) == ["body.inner.weight", "output.in_proj_weight", "output.out_proj.weight"]
    hold(made, mask)
    made = copy.deepcopy(made) if copy_ else made
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 1
        part = made.output(X, X, X)[0]
        assert torch.equal(made.output.out_proj.weight != 0, mask["output.out_proj.weight"])
        made(X)
    assert part.shape == X.shape
    assert_pruned(made, mask)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_a_transformers_fast_path_gives_the_same(norm_first: bool, padded: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    made = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    mask = mask_of(made)
    mask.apply_(made)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    padding = torch.arange(5).expand(3, 5) > 3 if padded else None
    with torch.no_grad():
        expected = made(x, src_key_padding_mask=padding)
        hold(made, mask)
        torch.testing.assert_close(made(x, src_key_padding_mask=padding), expected)


def test_weights_of_an_lstm_are_held() -> None:
    made = nn.LSTM(4, 4)
    mask = Mask({"weight_hh_l0": torch.rand(16, 4, generator=torch.Generator().manual_seed(0)) < 0.5})
    hold(made, mask)
    with torch.no_grad():
        made.weight_hh_l0.add_(1)
    made(torch.ones(2, 4))
    assert_pruned(made, mask)


def test_tensors_given_to_functional_call_are_left_alone() -> None:
    made, _ = held_network()
    values = {name: torch.ones_like(p) for name, p in made.named_parameters()}
    with torch.no_grad():
        functional_call(made.eval(), values, (X,))
    assert all(bool((value == 1).all()) for value in values.values())


def test_a_backward_pass_through_two_forward_passes_works() -> None:
    made = Shared()
    mask = mask_of(made)
    hold(made, mask)
    with torch.no_grad():
        made.first.weight.add_(1)
    (made(X) + made(X)).sum().backward()
    assert_pruned(made, mask)


def test_parts_held_anew_follow_the_new_mask() -> None:
    made, mask = held_network()
    other = mask_of(made[3], seed=5)
    hold(made[3], other)
    with torch.no_grad():
        made[0].weight.add_(1)
        made[3].weight.add_(1)
    made(X)
    assert held(made) == Mask({"0.weight": mask["0.weight"], "3.weight": other["weight"]})
    assert torch.equal(made[3].weight != 0, other["weight"])
    assert torch.equal(made[0].weight != 0, mask["0.weight"])


def test_a_held_network_can_be_traced_and_exported() -> None:
    made, _ = held_network()
    made.eval()
    program: Any = torch.export.export(made, (X,)).module()
    torch.testing.assert_close(program(X), made(X))


def test_parameters_made_in_inference_mode_are_checked() -> None:
    with torch.inference_mode():
        made = nn.Linear(6, 3)
        mask = mask_of(made)
        hold(made.eval(), mask)
        made.weight.add_(1)
        with raises_input_error("weight"):
            made(X)
