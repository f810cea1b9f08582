"""What a weight is worth: one small function for each score. Low scores are pruned first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Score = Callable[[Mapping[str, Tensor], int], dict[str, Tensor]]
"""(trained weights by name, a seed) -> a score for every weight, of the same shapes."""


def magnitude(weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:  # noqa: ARG001
    """|w| at the end of training (Frankle & Carbin 2019, section 1; Han et al. 2015)."""
    return {name: weight.abs() for name, weight in weights.items()}


def random(weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Uniform draws, which make pruning random: the baseline that every other score has to beat."""
    generator = np.random.default_rng(seed)
    return {name: torch.from_numpy(generator.random(tuple(weight.shape))) for name, weight in weights.items()}


SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random}
