"""Recipe: an experiment as validated TOML; error messages say what would be right."""

from __future__ import annotations

import logging
import operator
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError, model_validator

from tombola.experiments import sections
from tombola.experiments.baseline import BaselineSection
from tombola.experiments.custom_config import custom_config
from tombola.experiments.methods import METHODS
from tombola.experiments.methods.sections import MethodSections
from tombola.experiments.metric import ACCURACY, VALIDATION_ACCURACY, Metric
from tombola.experiments.recipe_files import recipes, unknown_recipe
from tombola.experiments.recipe_parsing import apply_override, explain, read_toml
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.sections import FORMER_VERDICT_KEYS, MARK
from tombola.runs.outcome import Measures
from tombola.runs.run import Training
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write

log = logging.getLogger(__name__)


class _TrainedSections(SearchConfig):
    """What is trained, on which data, and what else is done with the tickets. In files and on pages these sections
    come before those of search methods."""

    data: sections.DataSection
    """The dataset, how it is divided and how it is scaled."""
    model: sections.ModelSection
    """The network."""
    training: Training
    """How the dense network and its tickets are trained."""
    baseline: BaselineSection | None = None
    """Other trainings of the dense network, so that tickets are compared with a tuned one."""
    transfer: sections.TransferSection | None = None
    """Other data on which the tickets are trained, too."""
    pools: sections.PoolsSection | None = None
    """Tickets interpolated with those of other levels."""
    analysis: sections.AnalysisSection | None = None
    """What the summary says besides the verdict."""


class Recipe(MethodSections, _TrainedSections):
    """The configuration of an experiment with a model of the zoo, or one by import path, on a dataset."""

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        most = self.search.levels
        if self.rewind.to == MARK:
            raise ValueError('rewind.to: "mark" is for training functions of your own; should be a length or "auto"')
        if self.rewind.method == "fine-tuning" and self.training.schedule == "cosine":
            raise ValueError(
                'rewind.method: "fine-tuning" uses the last learning rate, which is near 0 with schedule = "cosine"'
            )
        if self.transfer and max(self.transfer.levels or [0]) > most:
            raise ValueError(f"transfer.levels: should be at most search.levels, {most}")
        if self.transfer and (self.rewind.to != Duration() or self.rewind.method != "weights"):
            raise ValueError(
                'transfer: tickets start from initial weights, so it needs rewind.to = "0it" and method = "weights"'
            )
        _ = self.dense_trainings  # raises for invalid values
        self._check_method()
        return self

    def _check_method(self) -> None:
        """Refuse options that do not go with the search method."""
        search, method = self.search, self.search_method
        for other in METHODS.values():
            if other.options is not None and getattr(self, other.section) is not None and other is not method:
                raise ValueError(f'{other.section}: needs search.method = "{other.name}", not "{search.method}"')
        expected: dict[str, Any] = {}
        if method.one_level:
            expected |= {"search.levels": 1, "rewind.to": Duration(), "rewind.method": "weights"}
        if method.rewinds:
            expected |= {"rewind.method": "weights"}
        if method.own_criterion:
            expected |= {"search.score": "magnitude", "search.structure": "weights", "search.rounds": None}
        for key, right in expected.items():
            given = operator.attrgetter(key)(self)
            if given != right:
                should = "not be set" if right is None else f"be {right}"
                raise ValueError(f'{key}: should {should} with search.method = "{method.name}", not {given}')
        if self.pools is not None and (method.one_level or search.levels == 0):
            several = ", ".join(other.name for other in METHODS.values() if not other.one_level)
            raise ValueError(f"pools: needs tickets of several levels, which these methods find: {several}")
        if method.count_per_layer and search.scope == "global":
            raise ValueError(f'search.scope: should be layer or erk with search.method = "{method.name}", not global')
        if method.own_criterion and search.scope == "row":
            raise ValueError(f'search.scope: search.method = "{method.name}" does not compare weights by row')

    def judged(self, measured: Iterable[Measures]) -> Metric:  # noqa: ARG002 - always the same
        """Test accuracy."""
        return ACCURACY

    def chosen_by(self, measured: Iterable[Measures]) -> Metric:  # noqa: ARG002 - always the same
        """Validation accuracy."""
        return VALIDATION_ACCURACY

    def barrier_metric(self, measured: Iterable[Measures]) -> Metric:  # noqa: ARG002 - always the same
        """Validation accuracy."""
        return VALIDATION_ACCURACY

    @property
    def worst_barrier(self) -> float:
        """All examples."""
        return 1.0

    @property
    def method_options(self) -> Any:
        """The method's section, or its defaults; None if the method has no options."""
        method = self.search_method
        return method.options and (getattr(self, method.section) or method.options())

    @property
    def trained_on(self) -> str:
        """The names of the model and the dataset."""
        return f"{self.model.name} on {self.data.name}"

    @property
    def dense_trainings(self) -> list[Training]:
        """How the dense network is trained: first as the tickets, then as `[baseline]` says."""
        return [self.training] if self.baseline is None else self.baseline.trainings(self.training)

    @property
    def baseline_labels(self) -> list[str]:
        """A label for each of `dense_trainings`; empty without a `[baseline]`."""
        return [] if self.baseline is None else self.baseline.labels(self.dense_trainings)

    @property
    def label_noise(self) -> float:
        """The fraction of the training examples whose labels were drawn at random."""
        return self.data.label_noise

    @property
    def analyses_double_descent(self) -> bool:
        """As `[analysis]` says; without it, if labels are noisy."""
        asked = None if self.analysis is None else self.analysis.double_descent
        return self.label_noise > 0 if asked is None else asked

    @property
    def transferred_to(self) -> sections.TransferSection | None:
        """The section `[transfer]`."""
        return self.transfer

    @property
    def pooled(self) -> sections.PoolsSection | None:
        """The section `[pools]`."""
        return self.pools

    @property
    def no_ticket_reason(self) -> str | None:
        """Why the networks found cannot be lottery tickets, in a few words; None if they can."""
        if self.early_bird is not None and self.early_bird.go_on:
            return "weights not rewound"
        if self.edge_popup is not None and self.edge_popup.scale_fan:
            return "initial weights rescaled"
        return super().no_ticket_reason


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name, or in that TOML file, with `key=value` overrides.

    Raises `InputError`, which names every invalid key and what would be valid.
    """
    known = recipes()
    if isinstance(name, Path) or name.endswith(".toml") or "/" in name:
        table = read_toml(Path(name))
    elif name in known:
        table = tomllib.loads(known[name])
    else:
        raise unknown_recipe(name)
    verdict = table.get("verdict")
    for former, key in FORMER_VERDICT_KEYS.items():
        if isinstance(verdict, dict) and former in verdict:
            if key in verdict:
                raise InputError(f"{name}: verdict.{former} is the former name of verdict.{key}; give one of them")
            log.warning("%s: verdict.%s has been renamed verdict.%s", name, former, key)
            verdict[key] = verdict.pop(former)
    renamed = {f"verdict.{former}": f"verdict.{key}" for former, key in FORMER_VERDICT_KEYS.items()}
    for override in overrides:
        path, equals, value = override.partition("=")
        apply_override(table, f"{renamed.get(path.strip(), path)}{equals}{value}")
    return parse_recipe(table, source=str(name))


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe, defaults included, as a TOML file, with which `load_recipe` makes the same one. Raises
    `InputError` if it cannot be written."""
    with atomic_write(path) as temporary:
        temporary.write_text(tomli_w.dumps(recipe.resolved()), encoding="utf-8")


def parse_recipe(table: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from TOML values; `source` is named in errors."""
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, Recipe)}") from None


def parse_config(table: Mapping[str, Any], source: str) -> SearchConfig:
    """A configuration as in results folders and tickets: a recipe, or the configuration of custom functions."""
    if "functions" not in table:
        return parse_recipe(table, source)
    try:
        return custom_config(table)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
