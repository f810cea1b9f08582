"""A ticket whose pruned weights are not zero is neither saved nor loaded into a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.errors import raises_input_error
from tests.support.held_networks import mask_of, network
from tombola.tickets.ticket import Ticket


@pytest.mark.parametrize("which", ["start", "trained"])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_pruned_weight_that_is_not_zero_is_refused(tmp_path: Path, which: str, value: float) -> None:
    made = network()
    mask = mask_of(made)
    mask.apply_(made)
    dense: dict[str, Tensor] = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    dense["3.weight"][~mask["3.weight"]] = value
    states = {"start": made.state_dict(), "trained": made.state_dict(), which: dense}
    ticket = Ticket(mask, states["start"], trained=states["trained"])
    pruned = int((~mask["3.weight"]).sum())
    with raises_input_error(which, "3.weight", pruned):
        ticket.save(tmp_path / "ticket.safetensors")
    with raises_input_error(which, "3.weight", pruned):
        ticket.into(network(), trained=which == "trained")
    assert not list(tmp_path.iterdir())


def test_negative_zero_is_zero(tmp_path: Path) -> None:
    made = network()
    mask = mask_of(made)
    mask.apply_(made)
    made[3].weight.data[~mask["3.weight"]] = -0.0
    assert torch.signbit(made[3].weight).any()
    Ticket(mask, made.state_dict()).save(tmp_path / "ticket.safetensors")
