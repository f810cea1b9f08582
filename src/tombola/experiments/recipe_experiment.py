"""RecipeExperiment: the experiment of a recipe."""

from __future__ import annotations

from pathlib import Path

from tombola.engines.device_choice import Demand
from tombola.experiments.experiment import Experiment, count_runs
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_workload import set_up, set_up_transfer
from tombola.pruning.mask import Mask
from tombola.pruning.scopes import goals
from tombola.runs.run import Run
from tombola.studies.controls import parametrized_runs
from tombola.utils.former_names import former_attribute
from tombola.zoo.models import build


class RecipeExperiment(Experiment):
    """The studies of a recipe. Raises `InputError` for anything that would fail later; see `set_up`."""

    def __init__(self, recipe: Recipe, data_dir: str | Path | None = None) -> None:
        self._recipe_workload = workload = set_up(recipe, data_dir)
        self._transferred = set_up_transfer(workload, data_dir) if recipe.transfer else None
        super().__init__(recipe, workload, workload.rewind_to, workload.candidates, self._transferred)
        recipe.search_method.search(self._context(0), self.dense(0))  # raises for options that do not fit
        for run in self._other_networks():
            build(run.start)  # raises if the network cannot have a parametrization

    def dense(self, replicate: int) -> Run:
        """The dense network's run. Each replicate has its own initial weights, validation split and batch order."""
        return self._recipe_workload.dense(replicate)

    kinds = former_attribute("kinds", "sample_runs")

    @property
    def sample_runs(self) -> list[Run]:
        """One run for each combination of network, data and training options, the dense network's first."""
        transferred = [self._transferred.dense(0)] if self._transferred else []
        return [self.dense(0), *self._other_networks(), *self._recipe_workload.baselines(0), *transferred]

    def _other_networks(self) -> list[Run]:
        """Runs of other networks that the search or controls train."""
        dense = self.dense(0)
        searched = self.config.search_method.other_networks(self._context(0), dense)
        return searched + parametrized_runs(dense, self.config.controls)

    def demand(self) -> Demand:
        """What the experiment demands of an engine: the searches train level after level, in parallel; then all other
        runs."""
        config, dense = self.config, self.dense(0)
        chain = 2 if config.search_method.name == "one-shot" else 1 + config.search.levels
        searches = len(self.replicates)
        rest = (count_runs(config) // config.replicates - chain) * searches
        at_once = [searches] * chain + ([rest] if rest > 0 else [])
        return Demand.of(dense, at_once, self._mean_density(dense.mask))

    def _mean_density(self, dense: Mask) -> float:
        """The mean, over the levels, of the fraction of units left."""
        pruner = self.workload.pruner
        first = pruner.units_left(dense)
        left = [first, *goals(pruner.scope, first, self.config.search.levels)]
        densities = [sum(counts.values()) / max(1, sum(first.values())) for counts in left]
        return sum(densities) / len(densities)
