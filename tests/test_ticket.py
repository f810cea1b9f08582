from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import random_mask
from tombola.errors import InputError
from tombola.run import Run
from tombola.ticket import Ticket
from tombola.zoo.networks import build


def a_ticket(run: Run) -> Ticket:
    network = build(run.start)
    mask = random_mask(run, 0.2)
    mask.apply_(network)
    return Ticket(mask, network.state_dict(), {"recipe": {"name": "tiny"}})


def test_it_loads_into_a_fresh_network_in_one_line(dense: Run, tmp_path: Path) -> None:
    ticket = a_ticket(dense)
    ticket.save(tmp_path / "ticket.safetensors")
    fresh = build(dense.reinitialised(123).start)
    fresh = Ticket.load(tmp_path / "ticket.safetensors").into(fresh)
    original = build(dense.start).state_dict()
    for name, tensor in fresh.state_dict().items():
        expected = original[name] * ticket.mask[name] if name in ticket.mask else original[name]
        assert torch.equal(tensor, expected)


def test_everything_comes_back(dense: Run, tmp_path: Path) -> None:
    ticket = a_ticket(dense)
    ticket.save(tmp_path / "ticket.safetensors")
    again = Ticket.load(tmp_path / "ticket.safetensors")
    assert again.mask == ticket.mask
    assert again.provenance == ticket.provenance
    assert again.start.keys() == ticket.start.keys()


def test_its_size_follows_the_weights_left(dense: Run, tmp_path: Path) -> None:
    ticket = a_ticket(dense)
    ticket.save(tmp_path / "ticket.safetensors")
    bits = sum((size + 7) // 8 for size in ticket.mask.sizes.values())
    biases = sum(t.numel() for n, t in ticket.start.items() if n not in ticket.mask)
    header = 3000
    assert (tmp_path / "ticket.safetensors").stat().st_size < bits + 4 * (ticket.mask.count + biases) + header


def test_another_architecture_is_refused(dense: Run) -> None:
    wider = dense.start.network.model_copy(update={"options": {"widths": [21, 10]}})
    other = build(dense.start.model_copy(update={"network": wider}))
    with pytest.raises(InputError, match=r"another architecture: fc1\.weight is \(20, 64\).*\(21, 64\)"):
        a_ticket(dense).into(other)
    with pytest.raises(InputError, match=r"fc1\.weight is \(20, 64\).*missing in the network"):
        a_ticket(dense).into(torch.nn.Sequential())


@pytest.mark.parametrize("harm", ["missing", "damaged", "a store entry"])
def test_what_is_no_ticket_is_refused_in_one_line(dense: Run, tmp_path: Path, harm: str) -> None:
    path = tmp_path / "ticket.safetensors"
    if harm != "missing":
        a_ticket(dense).save(path)
    if harm == "damaged":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    if harm == "a store entry":
        from tombola.files import write_tensors

        write_tensors(path, {"whole/a": torch.ones(1)}, {"measures": {}})
    with pytest.raises(InputError) as caught:
        Ticket.load(path)
    assert "\n" not in str(caught.value)
    assert "ticket.safetensors" in str(caught.value)
