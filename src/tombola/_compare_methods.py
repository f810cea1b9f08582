"""compare_methods: a ticket beside its controls and other methods, at equal weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tombola.experiments.compared_methods import (
    REWINDING,
    SEARCH,
    Choice,
    ComparedMethod,
    MethodRecipes,
    Table,
)
from tombola.experiments.growth import growth_of_folder
from tombola.experiments.methods import METHODS
from tombola.experiments.planning.expected_runs import first_replicate
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.results import Results
from tombola.experiments.training_cost import CostsByExperiment, DenseCost, TrainingCosts
from tombola.stats.method_comparison import MethodComparison, MethodResults, compare_methods, search_cost
from tombola.stats.summarise import build_summary
from tombola.studies.conductor import Listener
from tombola.studies.controls import CONTROLS
from tombola.utils.errors import InputError

SAME_LENGTH = 0.01
"""Lengths that differ by less are the same."""

Train = Callable[[Mapping[Path, Recipe], Sequence[Listener]], Sequence[Results]]
"""Runs several experiments in their folders, with listeners; see `tombola._sweep.sweep`."""


@dataclass
class MethodPlan:
    """The experiments of a comparison."""

    recipe: Recipe
    level: int
    dense: DenseCost
    level_chosen: bool = False
    """Whether the level was chosen by the results that are compared."""
    methods: dict[str, ComparedMethod] = field(default_factory=dict)
    """By the name of its folder; the search for the ticket is the first."""
    skipped: dict[str, str] = field(default_factory=dict)
    """By the name of the row, why the recipe does not allow it."""
    expected: dict[str, TrainingCosts] = field(default_factory=dict)
    """By name, the costs of the first replicate, as far as they are known before."""

    def folders(self, out: Path) -> dict[str, Path]:
        """The results folders of the experiments."""
        return {name: out / f"level-{self.level}" / name for name in self.methods}

    @property
    def runs(self) -> int:
        """The number of different runs of one replicate."""
        return len({key for costs in self.expected.values() for key in costs.shares})

    @property
    def cost(self) -> float:
        """What one replicate costs, in dense trainings."""
        return sum({key: share for costs in self.expected.values() for key, share in costs.shares.items()}.values())


def parse_budgets(texts: Sequence[str]) -> list[float | None]:
    """Training costs: numbers of dense trainings, None for `ticket`, and nothing for `none`. Raises `InputError` for
    any other text."""
    return [None if text == "ticket" else _parse_budget(text) for text in texts if text != "none"]


def _parse_budget(text: str) -> float:
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not 0 < budget < math.inf:
        raise InputError(
            f'--budget: should be a number of dense trainings, such as 1, "ticket" or "none", not "{text}"'
        )
    return budget


def verdict_recipe(recipe: Recipe, data_dir: str | Path | None = None) -> Recipe:
    """The part of a recipe that decides which ticket is its smallest winning one. Raises `InputError` if its tickets
    cannot be compared with other methods."""
    return MethodRecipes(RecipeExperiment(recipe, data_dir), recipe.search.levels).verdict()


def default_level(results: Results) -> int:
    """The level of the smallest winning ticket or, if none wins, the first with few enough weights left."""
    summary = build_summary(results)
    if summary.smallest_winning is not None:
        return summary.smallest_winning.level
    most = summary.criteria.max_density
    few = [each.level for each in summary.levels if each.level > 0 and each.weights_left <= most]
    return few[0] if few else summary.levels[-1].level


def plan_methods(
    recipe: Recipe,
    level: int,
    choice: Choice | None = None,
    budgets: Sequence[float | None] = (),
    sections: Mapping[str, Table] | None = None,
    data_dir: str | Path | None = None,
) -> MethodPlan:
    """The experiments that compare the ticket of a level with its controls and other methods. Those that the recipe
    does not allow are skipped. `budgets` are training costs at which methods that change the mask during training are
    also compared: numbers of dense trainings, or None for the cost of the ticket and its search.

    Raises `InputError` if the recipe, the level or one of the `sections`, the options of other methods, is invalid.
    """
    chosen = choice or Choice()
    recipes = MethodRecipes(RecipeExperiment(recipe, data_dir), level, sections or {})
    plan = MethodPlan(recipe, level, DenseCost.of(recipes.experiment.dense(0)))
    planner = _Planner(plan, data_dir)
    controls = [name for name in CONTROLS if name in chosen and planner.allows(name, recipes)]
    planner.add(SEARCH, level, partial(recipes.search, controls), strict=True)
    of_ticket = search_cost(plan.expected[SEARCH], level)
    costs = dict.fromkeys(of_ticket if budget is None else budget for budget in budgets)
    for name in REWINDING:
        if name in chosen:
            planner.add(name, level, partial(recipes.rewinding, name))
    for name, method in METHODS.items():
        if not method.one_level or name not in chosen:
            continue
        planner.add(name, 1, partial(recipes.one_level, method), strict=method.section in recipes.sections)
        for cost in costs if method.mask_changes else ():
            planner.add_budget(name, cost, partial(recipes.one_level, method))
    return plan


@dataclass
class _Planner:
    """Adds experiments to a plan, after a rehearsal of their first replicate."""

    plan: MethodPlan
    data_dir: str | Path | None

    def add(
        self,
        name: str,
        level: int,
        derive: Callable[[], Recipe],
        strict: bool = False,
        row: str = "",
        **about: Any,
    ) -> None:
        """Add an experiment or, unless `strict`, the reason why the recipe does not allow it."""
        try:
            recipe = derive()
            self.plan.expected[name] = self._rehearsed(recipe)
        except InputError as error:
            if strict:
                raise
            self.plan.skipped[row or name] = str(error)
        else:
            self.plan.methods[name] = ComparedMethod(recipe, level, **about)

    def add_budget(self, name: str, budget: float, derive: Callable[[float], Recipe]) -> None:
        """Add the method with a longer, or shorter, training that costs as much as the budget."""
        if name not in self.plan.methods:
            return
        length = budget / self.plan.expected[name].total(first_level=1)
        if abs(length - 1) > SAME_LENGTH:
            folder = f"{name}-budget-{budget:.3g}"
            self.add(
                folder, 1, partial(derive, length), row=f"{name}, budget {budget:.3g}", length=length, budget=budget
            )

    def allows(self, control: str, recipes: MethodRecipes) -> bool:
        """Whether the recipe allows a control; otherwise notes why not."""
        try:
            self._rehearsed(recipes.search([control]))
        except InputError as error:
            self.plan.skipped[control] = str(error).removeprefix(f"controls.{control}: ")
            return False
        return True

    def _rehearsed(self, recipe: Recipe) -> TrainingCosts:
        """What the first replicate is expected to train. Raises `InputError` for what would fail later."""
        experiment, costs = RecipeExperiment(recipe, self.data_dir), TrainingCosts(self.plan.dense)
        for expected in first_replicate(experiment):
            if expected.request.point is None:
                costs.add(experiment.replicates[0], expected.request)
        return costs


def train_methods(plan: MethodPlan, out: Path, train: Train) -> MethodComparison:
    """Run or resume all experiments of a plan in folders below `out`, and compare them.

    Raises `InputError`, before anything is trained, if a folder has another experiment.
    """
    folders = plan.folders(out)
    for name, folder in folders.items():
        growth_of_folder(folder, plan.methods[name].recipe)
    costs = {name: TrainingCosts(plan.dense) for name in folders}
    numbered = [
        (costs[name], replicate) for name in folders for replicate in range(plan.methods[name].recipe.replicates)
    ]
    recipes = {folder: plan.methods[name].recipe for name, folder in folders.items()}
    found = train(recipes, [CostsByExperiment(numbered)])
    compared = {
        name: MethodResults(plan.methods[name], results, costs[name])
        for name, results in zip(folders, found, strict=True)
    }
    return compare_methods(plan.recipe, plan.level, compared, plan.skipped, plan.level_chosen)
