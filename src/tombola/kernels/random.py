"""Random numbers of compiled functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tombola.kernels.compiled import compiled


@compiled
def uniform(seed: Any, iteration: Any, place: Any) -> Any:
    """A number in [0, 1) that depends only on the arguments (the mixing function of SplitMix64, Steele et al. 2014).

    There is no random state, so a checkpoint need not save one.
    """
    mixed = np.uint64(seed)
    for part in (np.uint64(iteration), np.uint64(place)):
        mixed = mixed ^ (part * np.uint64(0x9E3779B97F4A7C15))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return np.float64(mixed >> np.uint64(11)) * 2.0**-53
