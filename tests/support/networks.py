"""Networks for tests of engines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Convolutional(nn.Module):
    """A user's module with a convolution, batch norm and dropout."""

    def __init__(self, channels: int = 4, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(channels * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(functional.relu(self.norm(self.conv(x.unsqueeze(1))))).flatten(1))


class WithGELU(Convolutional):
    """The same with an activation that the compiled loops do not know."""

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(functional.gelu(self.norm(self.conv(x.unsqueeze(1))))).flatten(1))


CONVOLUTIONAL: dict[str, Any] = {"name": f"{__name__}:Convolutional"}
"""The [model] of a recipe."""
WITH_GELU: dict[str, Any] = {"name": f"{__name__}:WithGELU"}
BATCH_NORM = CONVOLUTIONAL | {"dropout": 0.0}
MLP_WITH_DROPOUT = {"name": "mlp", "widths": [20, 10], "dropout": 0.3}


class TiedWeights(nn.Module):
    """Shared weights, a frozen and an unused parameter, and a non-persistent buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.output = nn.Linear(64, 10)
        self.output.bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.full((64,), 0.1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x.flatten(1) + self.shift), inplace=True)
        logits: Tensor = self.output(functional.relu(self.second(x)))
        return logits


TIED_WEIGHTS = {"name": f"{__name__}:TiedWeights"}
