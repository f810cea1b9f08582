"""Warnings about layers whose forward pass makes pruned weights nonzero."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.held_networks import mask_of
from tombola import prune
from tombola.pruning.hold import hold


def standardised(weight: Tensor) -> Tensor:
    flat = weight.flatten(1)
    return ((flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)).view_as(weight)


def hold_two(kind: Any, *arguments: Any, **options: Any) -> None:
    made = nn.Sequential(nn.Linear(2, 2), kind(*arguments, **options), kind(*arguments, **options))
    hold(made, mask_of(made))
    hold(copy.deepcopy(made), mask_of(made))


def test_weight_standardisation_warns_once_and_names_the_layer(caplog: pytest.LogCaptureFixture) -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(x, standardised(self.weight), self.bias, self.stride, self.padding)

    hold_two(Standardised, 4, 6, 3, padding=1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "1.weight" in record.getMessage()
    assert "Standardised" in record.getMessage()


def test_prune_warns_too(caplog: pytest.LogCaptureFixture) -> None:
    class Shifted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.weight + 1, self.bias)

    prune(nn.Sequential(Shifted(4, 6)), 0.5)
    (record,) = caplog.records
    assert "0.weight" in record.getMessage()


def test_a_linear_layer_with_centred_weights_warns(caplog: pytest.LogCaptureFixture) -> None:
    class Centred(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)

    hold_two(Centred, 4, 6)
    assert "Centred" in caplog.text


class Scaled(nn.Linear):
    """Draws a random number, and normalises its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / (1 + x.norm())) + torch.rand(())


class Transposed(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        return super().forward(x, output_size).relu()


class Gated(nn.Linear):
    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * gate


@pytest.mark.parametrize(
    ("kind", "arguments"), [(Scaled, (4, 6)), (Transposed, (4, 6, 3)), (Gated, (4, 6)), (nn.Conv2d, (4, 6, 3))]
)
def test_layers_that_use_their_weights_as_they_are_do_not_warn(
    kind: Any, arguments: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    made = nn.Sequential(kind(*arguments), nn.Linear(2, 2))
    mask = mask_of(made)
    before = torch.get_rng_state()
    hold(made, mask)
    assert not caplog.records
    assert torch.equal(torch.get_rng_state(), before)
