"""Pruning on a CUDA device: that of this machine, or a pretended one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.support.cuda_device import CudaDevice
from tests.support.cuda_pruning import batches, check_copies_of_held, check_hold, pruned_on, small
from tombola.pruning.mask import Mask
from tombola.pruning.scores import SCORES
from tombola.pruning.scores.growth import gradient
from tombola.pruning.scores.inputs import ScoreInputs


def assert_masks_agree(found: Mask, expected: Mask, cuda: CudaDevice) -> None:
    """Exactly on the pretended device, whose kernels are those of the CPU."""
    assert found.count == expected.count
    assert cuda.pretended is None or found == expected


@pytest.mark.parametrize("start_on", ["cpu", "cuda"])
@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_computed_where_the_network_is(score: str, start_on: str, cuda: CudaDevice) -> None:
    found = pruned_on("cuda", start_on, score)
    assert_masks_agree(found, pruned_on("cpu", "cpu", score), cuda)


@pytest.mark.parametrize("structure", ["neurons", "channels", "blocks:4x4", "2:4"])
def test_structures_are_pruned_there(structure: str, cuda: CudaDevice) -> None:
    found = pruned_on("cuda", "cuda", "magnitude", structure)
    assert_masks_agree(found, pruned_on("cpu", "cpu", "magnitude", structure), cuda)


@pytest.mark.parametrize("scope", ["global", "erk"])
def test_layers_are_compared_there(scope: str, cuda: CudaDevice) -> None:
    found = pruned_on("cuda", "cuda", "taylor", scope=scope)
    assert_masks_agree(found, pruned_on("cpu", "cpu", "taylor", scope=scope), cuda)


def test_weights_are_grown_by_gradients_that_are_there(cuda: CudaDevice) -> None:
    network = small().cuda()
    mask = Mask.full(network)
    weights = {name: network.get_parameter(name).detach() for name in mask}
    inputs = ScoreInputs(
        weights, mask, _network=lambda: copy.deepcopy(network), _batches=lambda: batches(cuda.device.type)
    )
    for name, score in gradient(inputs).items():
        assert score.shape == weights[name].shape
        assert score.device.type == "cuda"


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {"foreach": False}])
def test_a_hold_does_not_wait_for_the_device(options: dict[str, Any]) -> None:
    check_hold(options)


@pytest.mark.usefixtures("cuda")
def test_copies_of_a_held_network_are_held_there() -> None:
    check_copies_of_held()


@pytest.mark.usefixtures("cuda")
def test_a_mask_is_on_the_cpu_wherever_it_comes_from() -> None:
    mask = Mask({"weight": torch.ones(2, 3, dtype=torch.bool, device="cuda")})
    assert mask["weight"].device.type == "cpu"
