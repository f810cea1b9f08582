"""Searches of former versions are gone on with, and the same options give the same masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.in_loop_training import Training
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.utils.files import read_tensors

CHECKPOINT = Path(__file__).parent / "golden" / "search.safetensors"
"""After 24 steps of a `Training` with the score `magnitude_increase`: level 2, iteration 6."""


def fill(network: nn.Module, shift: int) -> None:
    """Set all weights to numbers that are the same on every machine."""
    with torch.no_grad():
        for parameter in network.parameters():
            numbers = (torch.arange(parameter.numel()) * 37 + shift).remainder(101)
            parameter.copy_(numbers.sub(50).div(64).view_as(parameter))


def test_a_checkpoint_of_a_former_version_is_gone_on_with() -> None:
    training = Training(score="magnitude_increase")
    fill(training.network, 0)
    tensors, about = read_tensors(CHECKPOINT)
    for parameter in training.network.parameters():
        parameter.data.zero_()  # so pruned weights are zero
    search = training.search
    search.load(tensors, about)
    assert (search.level, search.iteration) == (2, 6)
    assert search.mask.digest == "98bba73518be533ac81d13245f579b76"
    assert [row.weights for row in search.levels] == [400, 200]
    assert [row.metrics["loss"] for row in search.levels] == [0.27328044176101685, 0.2493039071559906]
    assert search.ticket_at(1).mask.count == 200
    saved, description = search.state()
    assert description == about
    assert saved.keys() == tensors.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in tensors.items())
    training.run()
    assert [row.weights for row in search.levels] == [400, 200, 100, 50]
    assert search.mask <= search.ticket_at(2).mask


@pytest.mark.parametrize(
    ("score", "scope", "masks"),
    [
        ("magnitude", "global", ["68bf8507eded52e4", "c64cc26b0f973309", "79824cbee91f7d6d", "fbba239b05a23c11"]),
        ("random", "layer", ["68bf8507eded52e4", "06cd0c304430b0f1", "1f2d0f980c02401c", "c97374fd3150dafe"]),
        ("random", "global", ["68bf8507eded52e4", "73e53dcca5e030b3", "914704f112925058", "552a51aff12f98cb"]),
        (
            "magnitude_increase",
            "layer",
            ["68bf8507eded52e4", "d1c7585f3b17e5a4", "906862a237989d61", "f0b24be5a5d884d3"],
        ),
        (
            "magnitude_increase",
            "global",
            ["68bf8507eded52e4", "51f7377caa36ac3a", "3d81cc58d6377bec", "f0b24be5a5d884d3"],
        ),
    ],
)
def test_masks_do_not_change(score: str, scope: str, masks: list[str]) -> None:
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    fill(network, 0)
    config = SearchConfig(levels=3, every="2it", rewind="1it", rate=0.3, score=score, scope=scope, seed=5)
    search, steps = InLoopSearch(config, network, [], [], None), 0
    while not search.complete:
        search.before_step()
        steps += 1
        fill(network, 11 * steps)
        search.mask.apply_(network)
        search.after_step()
    assert [search.ticket_at(level).mask.digest[:16] for level in range(4)] == masks
