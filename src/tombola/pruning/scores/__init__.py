"""What a weight is worth: one small function for each score. Low scores are pruned first.

To add one, write it in a file here and name it in `SCORES`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from tombola.pruning.scores.activations import wanda
from tombola.pruning.scores.change import (
    distance,
    large_final_diff_sign,
    large_final_same_sign,
    large_init,
    large_init_large_final,
    magnitude_increase,
    movement,
    small_init,
    small_init_small_final,
)
from tombola.pruning.scores.gradients import fisher, grasp, snip, taylor
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.pruning.scores.synflow import synflow
from tombola.pruning.scores.weights import magnitude, random, small_final

Score = Callable[[ScoreInputs], dict[str, Tensor]]
"""What it may look at -> a score for every weight, by name, of the same shapes."""

SCORES: dict[str, Score] = {
    "magnitude": magnitude,
    "random": random,
    "small_final": small_final,
    "large_init": large_init,
    "small_init": small_init,
    "large_init_large_final": large_init_large_final,
    "small_init_small_final": small_init_small_final,
    "magnitude_increase": magnitude_increase,
    "distance": distance,
    "large_final_same_sign": large_final_same_sign,
    "large_final_diff_sign": large_final_diff_sign,
    "movement": movement,
    "snip": snip,
    "grasp": grasp,
    "taylor": taylor,
    "fisher": fisher,
    "wanda": wanda,
    "synflow": synflow,
}

ROUNDS: dict[str, int] = {"synflow": 100}
"""In how many rounds one pruning is done, where that is not one: Tanaka et al. 2020, section 7."""
