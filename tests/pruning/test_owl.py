"""Layer densities by outliers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.support.errors import raises_input_error
from tombola.pruning.owl import owl_densities
from tombola.pruning.prune_model import prune


def network() -> nn.Sequential:
    """The second of three layers has outliers: one of its inputs is always large."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 20), nn.Linear(20, 10))
    with torch.no_grad():
        made[0].bias[3] = 100.0
    return made


def data() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(16, 8), torch.randint(10, (16,)))]


@pytest.mark.parametrize("density", [0.7, 0.5, 0.23])
def test_the_total_is_exact_and_the_range_that_of_the_paper(density: float) -> None:
    made = network()
    densities = owl_densities(made, density, data(), spread=0.1)
    assert max(densities, key=lambda name: densities[name]) == "1"
    assert max(densities.values()) - min(densities.values()) == pytest.approx(0.2, abs=0.01)
    for options in ({"score": "magnitude"}, {"score": "wanda"}, {"score": "sparsegpt"}):
        mask = prune(network(), densities, data=data(), **options)
        assert mask.count == 1320 - round((1 - density) * 1320)


def test_outliers_are_counted_as_in_the_paper() -> None:
    """By hand: inputs of norm 1, 1, 1 and 9, and weights of 1, so a quarter of the scores is 3 times the mean."""
    made = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).requires_grad_(False)
    made[0].weight.copy_(torch.eye(4))
    made[1].weight.fill_(1)
    batches = [(torch.diag(torch.tensor([1.0, 1, 1, 9])), torch.zeros(4, dtype=torch.long))]
    # scores of the first: 1, 1, 1, 9 and twelve zeros: 4/16 above 0.75 = the mean; of the second: none above 9
    assert owl_densities(made, 0.5, batches, outlier=1.0, spread=0.0) == {"0": 0.5, "1": 0.5}
    assert owl_densities(made, 0.5, batches, outlier=3.1, spread=0.125) == {"0": 0.625, "1": 0.375}


def test_layers_of_a_block_have_one_density() -> None:
    made = nn.Sequential(nn.Linear(8, 8), network())
    densities = owl_densities(made, 0.5, data(), blocks=["1"])
    assert len({round(value, 2) for name, value in densities.items() if name.startswith("1.")}) == 1
    assert [*owl_densities(made, 0.5, data(), leave_out=["0"])] == ["1.0", "1.1", "1.2"]


def test_invalid_arguments_are_named() -> None:
    with raises_input_error("spread:", "0.2", "0.05"):
        owl_densities(network(), 0.1, data(), spread=0.2)
    with raises_input_error("density:", "1.5"):
        owl_densities(network(), 1.5, data())
    with raises_input_error("blocks:", '"5"'):
        owl_densities(network(), 0.5, data(), blocks=["5"])
    with raises_input_error("outlier", "-1"):
        owl_densities(network(), 0.5, data(), outlier=-1)
