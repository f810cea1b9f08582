from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tombola.pruning.mask import Mask, pack_bits, prunable, unpack_bits


def mask(*rows: list[int]) -> Mask:
    return Mask({"fc.weight": torch.tensor(rows).bool()})


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(8, 5)
        self.output = nn.Linear(5, 3, bias=False)


def test_weights_of_linear_and_convolutional_layers_are_prunable_and_nothing_else() -> None:
    assert prunable(Network()) == ["conv.weight", "fc.weight", "output.weight"]
    assert prunable(nn.Linear(2, 2)) == ["weight"]


def test_a_full_mask_keeps_every_prunable_weight() -> None:
    full = Mask.full(Network())
    assert full.counts == full.sizes == {"conv.weight": 18, "fc.weight": 40, "output.weight": 15}
    assert (full.count, full.size, full.density) == (73, 73, 1.0)


def test_set_operations() -> None:
    a, b = mask([1, 1, 0, 0]), mask([1, 0, 1, 0])
    assert a & b == mask([1, 0, 0, 0])
    assert a | b == mask([1, 1, 1, 0])
    assert a - b == mask([0, 1, 0, 0])
    assert a & b <= a <= a | b
    assert not a <= b
    with pytest.raises(ValueError, match="different networks"):
        a & mask([1, 0, 1])


def test_apply_zeroes_the_pruned_weights_and_leaves_the_others_bit_for_bit() -> None:
    network = Network()
    before = copy.deepcopy(network.state_dict())
    kept = {name: torch.rand(tensor.shape) < 0.5 for name, tensor in Mask.full(network).items()}
    Mask(kept).apply_(network)
    for name, tensor in network.state_dict().items():
        expected = torch.where(kept[name], before[name], 0) if name in kept else before[name]
        assert torch.equal(tensor, expected)


def test_empty_layers_are_named() -> None:
    assert mask([0, 0]).empty_layers == ["fc.weight"]
    assert mask([0, 1]).empty_layers == []


def test_equal_content_is_the_same_mask() -> None:
    assert mask([1, 0]) == mask([1, 0])
    assert hash(mask([1, 0])) == hash(mask([1, 0]))
    assert mask([1, 0]) != mask([0, 1])
    assert mask([1, 0]) != mask([1], [0])  # the shape counts
    assert mask([1, 0]) != Mask({"other": torch.tensor([[True, False]])})
    assert mask([1, 0, 1]).digest == "f5e8444d46211740075cc8864d71570d"  # part of stored keys: it never changes


def test_only_bool_tensors_make_a_mask() -> None:
    with pytest.raises(TypeError, match="bool"):
        Mask({"fc": torch.ones(2)})


def test_a_mask_survives_pickling() -> None:
    original = mask([1, 0, 1, 1, 0, 1, 0, 0, 1])
    assert pickle.loads(pickle.dumps(original)) == original
    assert copy.deepcopy(original) == original


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_pack_and_unpack(values: list[bool]) -> None:
    tensor = torch.tensor(values)
    packed = pack_bits(tensor)
    assert packed.numel() == (len(values) + 7) // 8
    assert torch.equal(unpack_bits(packed, (len(values),)), tensor)
    with pytest.raises(ValueError, match="cannot hold"):
        unpack_bits(packed, (len(values) + 8,))
