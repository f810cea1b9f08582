"""The experiments that put other methods beside a ticket: recipes derived from one, with the same weights left."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tombola.experiments.methods import METHODS
from tombola.experiments.methods.search_method import SearchMethod
from tombola.experiments.recipe import Recipe, parse_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.experiments.recipe_parsing import apply_override
from tombola.experiments.sections import AUTO
from tombola.pruning.scopes import Counts, goals
from tombola.runs.run import Training
from tombola.studies.controls import CONTROLS
from tombola.utils.errors import InputError, unknown

REWINDING = ("learning-rate", "fine-tuning")
"""Ways of rewinding other than that of the weights: values of `rewind.method`."""

SEARCH = "ticket"
"""The name of the experiment that searches for the ticket and trains its controls."""

Table = dict[str, Any]


@dataclass(frozen=True)
class ComparedMethod:
    """One experiment of the comparison."""

    recipe: Recipe
    level: int
    """The level at which as many weights are left as the ticket has."""
    length: float = 1.0
    """The length of its trainings, in units of the recipe's."""
    budget: float | None = None
    """The training cost that sets this length, in dense trainings; None if the length is the recipe's."""


@dataclass(frozen=True)
class Choice:
    """The rows to train, by name: controls, methods and ways of rewinding."""

    only: Collection[str] = ()
    """Only these; all if it is empty."""
    without: Collection[str] = ()

    def __post_init__(self) -> None:
        """Raises `InputError` for an unknown name."""
        for name in (*self.only, *self.without):
            if name not in (known := row_names()):
                raise unknown("row", name, known)

    def __contains__(self, name: str) -> bool:
        return name not in self.without and (not self.only or name in self.only)


def row_names() -> list[str]:
    """The names of all rows but those of the dense network and the ticket."""
    return [*CONTROLS, *REWINDING, *(name for name, method in METHODS.items() if method.one_level)]


def split_overrides(overrides: Iterable[str]) -> tuple[list[str], dict[str, Table]]:
    """Overrides of the recipe, and the sections of other methods, such as `rigl.changes=10`, which only the recipes
    of these methods can have."""
    own, sections = [], {method.section: name for name, method in METHODS.items() if method.one_level}
    found: dict[str, Any] = {}
    for override in overrides:
        if override.partition(".")[0].strip() in sections:
            apply_override(found, override)
        else:
            own.append(override)
    return own, found


@dataclass(frozen=True)
class MethodRecipes:
    """Derives the recipes of all methods from that of the ticket."""

    experiment: RecipeExperiment
    """The whole search."""
    level: int
    sections: Mapping[str, Table] = field(default_factory=dict)
    """The options of methods, by the names of their sections."""

    def __post_init__(self) -> None:
        """Raises `InputError` if tickets of this recipe cannot be compared at this level."""
        search, recipe = self.recipe.search, self.recipe
        if recipe.search_method.one_level:
            raise InputError(
                f'search.method: should be "iterative" or "one-shot", whose tickets other methods are compared with, '
                f'not "{search.method}"'
            )
        if search.structure != "weights":
            raise InputError(
                f'search.structure: should be "weights", which all methods prune, not "{search.structure}"'
            )
        if not 1 <= self.level <= search.levels:
            raise InputError(f"--level: should be from 1 to search.levels, {search.levels}, not {self.level}")

    @property
    def recipe(self) -> Recipe:
        """The recipe of the ticket's search."""
        config = self.experiment.config
        assert isinstance(config, Recipe)
        return config

    def counts(self) -> Counts:
        """How many weights each group of layers keeps at the level."""
        pruner, dense = self.experiment.workload.pruner, self.experiment.dense(0).mask
        return goals(pruner.scope, pruner.units_left(dense), self.level)[-1]

    def verdict(self) -> Recipe:
        """The search up to the level, with the control that the verdict depends on."""
        table, control = self._table(), self.recipe.verdict.control
        table["controls"] = {name: own for name, own in self.recipe.resolved()["controls"].items() if name == control}
        return self._parsed(table, "verdict")

    def search(self, controls: Collection[str]) -> Recipe:
        """The search for the ticket, which ends at the level, with a draw of each control there. Raises `InputError`
        if the recipe does not allow a control."""
        table = self._table()
        draws = {name: max(1, own.draws) if (own := self.recipe.controls.get(name)) else 1 for name in controls}
        table["controls"] = {name: {"draws": n, "levels": [self.level]} for name, n in draws.items()}
        return self._parsed(table, SEARCH)

    def rewinding(self, name: str) -> Recipe:
        """The search with another way of rewinding. Raises `InputError` if the recipe does not allow it."""
        if self.recipe.rewind.method == name:
            raise InputError("is how the ticket is rewound")
        table = self._table()
        table["rewind"]["method"] = name
        return self._parsed(table, name)

    def one_level(self, method: SearchMethod, length: float = 1.0) -> Recipe:
        """A method that keeps the same number of weights in each layer, or, if the search prunes globally, in total.
        All durations of the training are `length` times as long. Raises `InputError` if the recipe does not allow the
        method."""
        table = self._table()
        table["search"] = self._search_section(method)
        table.pop("rewind", None)
        table.pop("stability", None)
        if options := self._options(method, length):
            table[method.section] = options
        if length != 1.0:
            table["training"] |= scaled(self.experiment.dense(0).training, length)
        return self._parsed(table, method.name)

    def _search_section(self, method: SearchMethod) -> Table:
        old, counts = self.recipe.search, self.counts()
        sizes = self.experiment.workload.pruner.units_left(self.experiment.dense(0).mask)
        table: Table = {"levels": 1, "method": method.name}
        for name in ("leave_out", "include", "outputs"):
            if (value := getattr(old, name)) not in (None, []):
                table[name] = value
        if not method.own_criterion:
            table |= {"score": old.score} | ({} if old.rounds is None else {"rounds": old.rounds})
        total = 1 - sum(counts.values()) / sum(sizes.values())
        if all(len(group) == 1 for group in counts):
            rates = {layer: 1 - kept / sizes[layer,] for (layer,), kept in counts.items()}
            table |= {"scope": "layer", "rate": total, "rates": rates}
        else:
            per_layer = method.own_criterion or method.count_per_layer
            table |= {"scope": "erk" if per_layer else "global", "rate": total}
        return table

    def _options(self, method: SearchMethod, length: float) -> Table:
        """The options of a method. Intervals between changes of the mask stay as they are."""
        options = copy.deepcopy(self.sections.get(method.section, {}))
        fields = {} if method.options is None else method.options.model_fields
        if length != 1.0 and "changes" in fields:
            changes = options.get("changes", fields["changes"].default)
            if isinstance(changes, int):
                options["changes"] = max(1, round(changes * length))
        return options

    def _table(self) -> Table:
        """The recipe with levels up to the compared one, as TOML values, without what other questions need."""
        table = self.recipe.resolved()
        for section in ("baseline", "transfer", "pools", "controls"):
            table.pop(section, None)
        if self.recipe.rewind.to != AUTO:
            table.pop("stability", None)
        if self.recipe.search.density is None:  # otherwise each level depends on the number of levels
            table["search"]["levels"] = self.level
        return table

    def _parsed(self, table: Table, name: str) -> Recipe:
        table["name"] = f"{self.recipe.name}-{name}"
        try:
            return parse_recipe(table, source="")
        except InputError as error:
            raise InputError(str(error).removeprefix(": ")) from None


def scaled(training: Training, length: float) -> Table:
    """The durations of a training in iterations, `length` times as long, as TOML values."""

    def times(iterations: int) -> str:
        return f"{max(1, round(length * iterations))}it"

    names = ("length", "evaluate_every", *(["warmup"] if training.warmup.iterations else []))
    table: Table = {name: times(getattr(training, name).iterations) for name in names}
    milestones: Sequence[Any] = training.milestones
    return table | ({"milestones": [times(each.iterations) for each in milestones]} if milestones else {})
