"""How long the first release's experiment would take on a device, from the measured times of its parts.

The authors' first release trained LeNet-300-100 19,220 times (`tombola recipes`: lenet-mnist-first-release).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.roofline import LENET
from tombola.experiments.recipe import Recipe, load_recipe

RECIPE = "lenet-mnist-first-release"
TRAIN, TEST = 55_000, 10_000
"""MNIST's examples without those held out."""


class Parts(NamedTuple):
    """Seconds."""

    steps: float
    evaluations: float
    building: float
    """Of the networks, which the processor does."""

    @property
    def total(self) -> float:
        """All seconds."""
        return sum(self)


def trainings_by_density(recipe: Recipe) -> dict[float, int]:
    """The number of trainings at the density of each level. The release trained its controls of the dense network,
    too."""
    each = recipe.replicates * (1 + sum(control.draws for control in recipe.controls.values()))
    return {density(level, recipe): each for level in range(recipe.search.levels + 1)}


def density(level: int, recipe: Recipe) -> float:
    """Of the weights of LeNet-300-100."""
    hidden = LENET[0] * LENET[1] + LENET[1] * LENET[2]
    output = LENET[2] * LENET[3]
    rates = recipe.search.rate or 0.0, recipe.search.output_rate or recipe.search.rate or 0.0
    left = [count * (1 - rate) ** level for count, rate in zip((hidden, output), rates, strict=True)]
    return sum(left) / (hidden + output)


def projected(rates: Mapping[float, float], seconds_per_example: float, seconds_per_network: float) -> Parts:
    """The duration of the experiment. `rates`: replicate-steps per second by density, each used down to the next;
    the other two are of the evaluation of one example by one network, and of building one."""
    recipe = load_recipe(RECIPE)
    trainings = trainings_by_density(recipe)
    iterations, every = recipe.training.length.iterations, recipe.training.evaluate_every.iterations
    at_end = 2 * (TRAIN + TEST)  # with the last and with the best weights
    evaluated = iterations // every * recipe.data.validation + at_end
    count = sum(trainings.values())
    return Parts(
        steps=sum(n * iterations / _rate(rates, density) for density, n in trainings.items()),
        evaluations=count * evaluated * seconds_per_example,
        building=count * seconds_per_network,
    )


def _rate(rates: Mapping[float, float], density: float) -> float:
    """Of the smallest measured density that is not below this one; of the largest, if all are."""
    denser = [each for each in rates if each >= density]
    return rates[min(denser) if denser else max(rates)]
