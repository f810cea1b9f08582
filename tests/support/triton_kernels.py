"""Where tests run kernels written in Triton: on a GPU if there is one, else on the CPU, interpreted."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from tombola.pruning.mask import State

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def transposed(tensor: Tensor) -> Tensor:
    """The same values, the last two axes exchanged in memory."""
    return tensor.mT.contiguous().mT


def random_state(seed: int, **shapes: tuple[int, ...]) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(DEVICE) for name, shape in shapes.items()}
