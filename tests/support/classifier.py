"""A small classifier, and batches for its scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def data(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(6, 8, generator=generator), torch.arange(6) % 4) for _ in range(count)]
