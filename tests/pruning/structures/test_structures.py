from __future__ import annotations

import pytest
from torch import nn

from tombola.pruning.structures import STRUCTURES, NMPattern, UnitStructure, named, pattern_of
from tombola.utils.errors import InputError

NETWORK = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Linear(4, 4), nn.Linear(4, 2))


def test_structures_go_by_name() -> None:
    assert set(STRUCTURES) == {"weights", "neurons", "channels", "heads"}
    assert isinstance(named("neurons")(NETWORK), UnitStructure)
    assert named("2:4")(NETWORK) == NMPattern(2, 4, NETWORK)
    tiles = named("blocks:2x3")(NETWORK)
    assert isinstance(tiles, UnitStructure)
    assert tiles.ids["1.weight"].tolist() == [[4, 4, 4, 5]] * 2 + [[6, 6, 6, 7]] * 2  # the first layer has 4
    assert pattern_of("blocks:2x3") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("neuron", 'unknown structure "neuron": did you mean "neurons"?'),
        ("blocks:0x4", 'unknown structure "blocks:0x4": did you mean "blocks:4x4"?'),
        ("4:4", "at least one should stay and one go"),
        ("0:4", "at least one should stay and one go"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        named(name)
    assert message in str(caught.value)
