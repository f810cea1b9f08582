from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.zoo.models.helpers import CIFAR, MNIST, conv_weights, made, parameters, weights
from tombola.zoo.models import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"
ROWS = re.findall(
    r"^\| `([\w-]+)`(?:, depth (\d+))? \| (\S+) \| ([\d,]+) \| ([\d,]+|–) \| ([\d,]+) \|",
    PAGE.read_text(encoding="utf-8"),
    re.M,
)


@pytest.mark.parametrize(("name", "depth", "inputs", "all_weights", "conv", "all_parameters"), ROWS)
def test_the_numbers_of_the_page_are_right(
    name: str, depth: str, inputs: str, all_weights: str, conv: str, all_parameters: str
) -> None:
    shape = {"28×28": MNIST, "3×32×32": CIFAR}[inputs]
    network = made(name, inputs=shape, **({"depth": int(depth)} if depth else {}))
    assert f"{weights(network):,}" == all_weights
    assert (f"{conv_weights(network):,}" if conv_weights(network) else "–") == conv
    assert f"{parameters(network):,}" == all_parameters


def test_every_network_is_on_the_page() -> None:
    assert {row[0] for row in ROWS} == set(MODELS) - {"mlp"}
    assert "`mlp`" in PAGE.read_text(encoding="utf-8")
