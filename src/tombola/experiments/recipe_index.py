"""What is known of recipes without importing what reads and trains them: their keys, and the size of those built in.

`python -m tombola.experiments.recipe_index_contents` makes `recipe_index.json` from the code; a test compares them.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

RATE = {"mnist": 2.2e11, "digits": 5e10, "cifar10": 5e10, "imagenet": 1.5e11, "tiny-imagenet": 1.5e11}
"""By dataset, floating-point operations per second of dense training on two processor cores, as in the experiments of
docs/reproductions.md: sparse layers save some of them. Those of ImageNet are guessed, as nothing was run on it."""

OPERATIONS = 6
"""For each multiply-add of a forward pass: two in it, and four in the backward pass."""


class RecipeSize(NamedTuple):
    """How large a recipe that comes with tombola is."""

    title: str
    """The network and the dataset, in words."""
    data: str
    examples: int
    """Those it trains on."""
    weights: int
    """Of the dense network that can be pruned."""
    trainings: int
    steps: int
    """Iterations of one training, times examples of a batch."""
    multiply_adds: int
    """Of the dense network for one example."""

    @property
    def seconds(self) -> float:
        """A rough estimate of the time on two processor cores, by arithmetic."""
        return OPERATIONS * self.multiply_adds * self.steps * self.trainings / RATE[self.data]


@functools.cache
def _index() -> dict[str, Any]:
    text = resources.files("tombola.experiments").joinpath("recipe_index.json").read_text(encoding="utf-8")
    index: dict[str, Any] = json.loads(text)
    return index


def recipe_keys() -> dict[str, list[str]]:
    """The dotted keys of recipes, each with its values if these are a closed choice."""
    keys: dict[str, list[str]] = _index()["keys"]
    return keys


def recipe_sizes() -> dict[str, RecipeSize]:
    """The sizes of the recipes that come with tombola, by name."""
    return {name: RecipeSize(**size) for name, size in _index()["sizes"].items()}
