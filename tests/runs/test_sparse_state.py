from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tombola.pruning.mask import Mask
from tombola.runs.sparse_state import pack, unpack
from tombola.utils.errors import DamagedFile


@given(st.integers(0, 1000), st.floats(0, 1))
def test_what_is_packed_is_unpacked_bit_for_bit(seed: int, density: float) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(7, 5))
    mask = Mask({name: torch.rand(kept.shape) < density for name, kept in Mask.full(network).items()})
    mask.apply_(network)
    state, again = unpack(pack(network.state_dict(), mask))
    assert again == mask
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype


def test_only_kept_weights_take_space() -> None:
    network = nn.Linear(100, 100, bias=False)
    mask = Mask({"weight": torch.eye(100, dtype=torch.bool)})
    packed = pack(network.state_dict(), mask)
    assert packed["kept/weight"].shape == (100,)
    assert packed["mask/weight"].shape == (1250,)


def test_parts_that_do_not_fit_are_refused() -> None:
    packed = pack(nn.Linear(4, 4).state_dict(), Mask({"weight": torch.eye(4, dtype=torch.bool)}))
    for entry, wrong in [
        ("kept/weight", torch.zeros(3)),
        ("kept/weight", torch.zeros(5)),
        ("kept/weight", torch.zeros(4, 1)),
        ("mask/weight", torch.zeros(2)),
        ("mask/weight", torch.zeros(1, dtype=torch.uint8)),
        ("shape/weight", torch.tensor([9, 9])),
        ("shape/weight", torch.tensor([-4, -4])),
        ("shape/weight", torch.tensor([4.0, 4.0])),
    ]:
        with pytest.raises(DamagedFile, match="weight do not fit"):
            unpack(packed | {entry: wrong})
    del packed["mask/weight"]
    with pytest.raises(DamagedFile):
        unpack(packed)
