"""Scores that need only the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tombola.pruning.scores.inputs import ScoreInputs


def magnitude(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|w| after training (Frankle & Carbin 2019, section 1; Han et al. 2015)."""
    return {name: weight.abs() for name, weight in inputs.weights.items()}


def small_final(inputs: ScoreInputs) -> dict[str, Tensor]:
    """-|w| after training: a criterion that should fail (Zhou et al. 2019, section 2)."""
    return {name: -weight.abs() for name, weight in inputs.weights.items()}


def random(inputs: ScoreInputs) -> dict[str, Tensor]:
    """Uniform random scores: the baseline that every other score should beat."""
    return uniform(inputs.weights, inputs.seed)


def uniform(like: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Uniform random tensors between 0 and 1, of these shapes."""
    generator = np.random.default_rng(seed)
    return {name: torch.from_numpy(generator.random(tuple(tensor.shape))) for name, tensor in like.items()}
