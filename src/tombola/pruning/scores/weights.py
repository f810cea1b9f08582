"""Scores that look at weights alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tombola.pruning.scores.inputs import ScoreInputs


def magnitude(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|w| at the end of training (Frankle & Carbin 2019, section 1; Han et al. 2015)."""
    return {name: weight.abs() for name, weight in grounds.weights.items()}


def small_final(grounds: ScoreInputs) -> dict[str, Tensor]:
    """-|w| at the end of training: a criterion that should fail (Zhou et al. 2019, section 2)."""
    return {name: -weight.abs() for name, weight in grounds.weights.items()}


def random(grounds: ScoreInputs) -> dict[str, Tensor]:
    """Uniform draws, which make pruning random: the baseline that every other score has to beat."""
    return uniform(grounds.weights, grounds.seed)


def uniform(like: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Uniform draws between 0 and 1, of these shapes."""
    generator = np.random.default_rng(seed)
    return {name: torch.from_numpy(generator.random(tuple(tensor.shape))) for name, tensor in like.items()}
