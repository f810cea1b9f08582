"""Scores of weights, one function each. The lowest scores are pruned first.

To add one, write it in a file here and name it in `SCORES`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from tombola.pruning.scores import change
from tombola.pruning.scores.activations import wanda
from tombola.pruning.scores.gradients import fisher, grasp, snip, taylor
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.synflow import synflow
from tombola.pruning.scores.weights import magnitude, random, small_final

Score = Callable[[ScoreInputs], dict[str, Tensor]]
"""Returns a score for every weight, by name, of the same shapes."""

SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "small_final": small_final,
    "large_init": change.large_init,
    "small_init": change.small_init,
    "large_init_large_final": change.large_init_large_final,
    "small_init_small_final": change.small_init_small_final,
    "magnitude_increase": change.magnitude_increase,
    "distance": change.distance,
    "large_final_same_sign": change.large_final_same_sign,
    "large_final_diff_sign": change.large_final_diff_sign,
    "movement": change.movement,
    "snip": snip,
    "grasp": grasp,
    "taylor": taylor,
    "fisher": fisher,
    "wanda": wanda,
    "synflow": synflow,
}

ROUNDS: dict[str, int] = {"synflow": 100}
"""In how many rounds one pruning step is done, if not in one: Tanaka et al. 2020, section 7."""
