"""How many units of each layer a mask leaves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tombola.experiments.layer_units import UnitStats, unit_stats
from tombola.pruning.mask import Mask
from tombola.pruning.options import PruningOptions
from tombola.pruning.structures import UNSTRUCTURED, Structure, UnitStructure


class Residual(nn.Module):
    """A stream of 4 channels, to which one block adds; the block's transposed convolution has 6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 6, 1)
        self.back = nn.ConvTranspose2d(6, 4, 1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.head = nn.Linear(4 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.depthwise(x + self.back(torch.relu(self.inner(x))))
        found: Tensor = self.head(x.flatten(1))
        return found


def structure_of(network: nn.Module, example: Tensor, structure: str) -> tuple[Structure, Mask]:
    options = PruningOptions(rate=0.5, structure=structure)
    prunable = options.prunable(network, example)
    return options.pruner(prunable).structure, prunable.dense


def without(structure: Structure, mask: Mask, removed: dict[str, int]) -> Mask:
    """The mask without the first units of sets, by a layer that produces them."""
    assert isinstance(structure, UnitStructure)
    kept = torch.ones(structure.units.count, dtype=torch.bool)
    for layer, count in removed.items():
        (ids,) = [each.ids for each in structure.units.sets if layer in each.layers]
        kept[ids[:count]] = False
    return structure.units.keep(mask, kept)


def test_outputs_inputs_and_multiply_adds_of_convolutions() -> None:
    structure, dense = structure_of(Residual(), torch.zeros(2, 3, 4, 4), "channels")
    assert unit_stats(structure, dense) == {
        "stem.weight": UnitStats(4, None, 16 * 4 * 27),
        "inner.weight": UnitStats(6, 4, 16 * 24),
        "back.weight": UnitStats(4, 6, 16 * 24),
        "depthwise.weight": UnitStats(4, None, 16 * 4 * 9),
        "head.weight": UnitStats(None, 4, 5 * 64),
    }
    mask = without(structure, dense, {"stem.weight": 1, "inner.weight": 4})
    assert unit_stats(structure, mask) == {
        "stem.weight": UnitStats(3, None, 16 * 3 * 27),
        "inner.weight": UnitStats(2, 3, 16 * 6),
        "back.weight": UnitStats(3, 2, 16 * 6),
        "depthwise.weight": UnitStats(3, None, 16 * 3 * 9),
        "head.weight": UnitStats(None, 3, 5 * 48),
    }


def test_a_layer_may_read_what_it_produces() -> None:
    class Recursive(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[0](x)
            found: Tensor = self[2](x + self[1](x))
            return found

    structure, dense = structure_of(
        Recursive(nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)), torch.zeros(2, 3), "neurons"
    )
    found = unit_stats(structure, without(structure, dense, {"1.weight": 3}))
    assert {name: (each.outputs, each.inputs) for name, each in found.items()} == {
        "0.weight": (5, None),
        "1.weight": (5, 5),
        "2.weight": (None, 5),
    }


def test_heads_are_counted_not_their_rows() -> None:
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    structure, dense = structure_of(attention, torch.zeros(2, 5, 8), "heads")
    found = unit_stats(structure, without(structure, dense, {"self_attn.query.weight": 1}))
    assert found["self_attn.in_proj_weight"] == UnitStats(1, None, 5 * 3 * 4 * 8)
    assert found["self_attn.out_proj.weight"] == UnitStats(None, 1, 5 * 4 * 8)
    assert found["linear1.weight"] == UnitStats(None, None, 5 * 8 * 16)


def test_tiles_are_neither_outputs_nor_inputs() -> None:
    structure, dense = structure_of(nn.Linear(8, 8), torch.zeros(2, 8), "blocks:4x4")
    assert unit_stats(structure, dense) == {"weight": UnitStats()}
    assert unit_stats(UNSTRUCTURED, dense) == {}
