"""CustomConfig: the configuration of a search with the user's own functions, as it is written to a results folder."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tombola.engines.custom.direction import lower_is_better
from tombola.experiments.metric import Metric
from tombola.experiments.recipe_parsing import explain
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.sections import SearchSection, StabilitySection
from tombola.pruning.options import PruningOptions
from tombola.pruning.structures import Heads
from tombola.runs.outcome import Measures
from tombola.studies.controls import PARAMETRIZED_CONTROLS
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.frozen_model import FrozenModel

FRACTIONS = ("accuracy", "acc")
"""Metrics that are shown in percent."""


MAX_VALUE = 24
"""The largest number of characters of a value in the name of a partial."""


class FunctionsSection(FrozenModel):
    """`[functions]`: the user's functions, by import path, `package.module:function`, where they have one."""

    model: str
    train: str
    evaluate: str | None = None
    test: str | None = None
    fingerprint: str | None = None
    """The fingerprint of the functions, of everything that they refer to, and of the settings. Empty if nothing is
    kept; None if a framework trains with a callback, so that there is no `train` function."""


class EvaluationSection(FrozenModel):
    """`[evaluation]`: how the network is evaluated while it is trained."""

    every: int | None = Field(default=None, ge=1)
    """The number of optimizer steps between evaluations; None if the network is evaluated only at the end."""
    minimize: bool | list[str] | None = None
    """Whether lower is better for the first figure, or the names of the figures for which it is; None if the names of
    the figures decide."""
    stop_on: str | None = None
    """The figure whose best value is the early stop; None is the judged one."""


class OtherTraining(FrozenModel):
    """An item of `[[baseline]]`: another training function for the dense network."""

    label: str
    """A name that no other training has."""
    train: str
    fingerprint: str


class StepsStabilitySection(StabilitySection):
    """`[stability]`, with candidates in optimizer steps, because the number of steps in an epoch is unknown."""

    tolerance: float = Field(default=0.02, ge=0, allow_inf_nan=False)
    """The highest barrier of a stable network, in the units of the judged figure."""

    @field_validator("candidates", mode="before")
    @classmethod
    def _steps(cls, candidates: Any) -> Any:
        """Accept numbers of steps."""
        listed = candidates if isinstance(candidates, Sequence) and not isinstance(candidates, str) else None
        return candidates if listed is None else [f"{k}it" if _is_count(k) else k for k in listed]

    @field_validator("candidates")
    @classmethod
    def _in_order(cls, candidates: list[Duration]) -> list[Duration]:
        steps = [length.iterations for length in candidates]
        if any(length.epochs for length in candidates) or steps != sorted(set(steps)):
            raise ValueError(f"should be optimizer steps, in order, not {', '.join(map(str, candidates))}")
        return candidates


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class DescribedSearchSection(SearchSection):
    """`[search]`, with descriptions instead of functions and objects; these are not checked."""

    densities: dict[str, float] = {}
    """The fractions of weights left in single layers, by name or pattern, instead of `rate` or `density`."""

    @model_validator(mode="after")
    def _check(self) -> DescribedSearchSection:
        return self

    @property
    def options(self) -> PruningOptions:
        """Raises `InputError` if a score or structure is a function or an object: only its description is known."""
        return PruningOptions(
            levels=self.levels,
            rate=self.rate,
            density=self.densities or self.density,
            scope=self.scope,
            rates=self.rates,
            leave_out=self.leave_out,
            include=self.include,
            outputs=self.outputs,
            score=self.score,
            structure=self.structure,
            rounds=self.rounds,
            group_score=self.group_score,
            round_to=self.round_to,
            cost=self.cost,
        )


class CustomConfig(SearchConfig):
    """The configuration of a search with the user's own functions."""

    functions: FunctionsSection
    evaluation: EvaluationSection = EvaluationSection()
    baseline: list[OtherTraining] | None = None
    stability: StepsStabilitySection | None = None
    search: DescribedSearchSection

    @model_validator(mode="after")
    def _check_parametrized(self) -> CustomConfig:
        for name in PARAMETRIZED_CONTROLS:
            if name in self.controls:
                raise ValueError(f"controls.{name}: needs a recipe, whose networks can be parametrized")
        return self

    @property
    def trained_on(self) -> str:
        """The names of the functions."""
        return f"{self.functions.model} trained by {self.functions.train}"

    @property
    def baseline_labels(self) -> list[str]:
        """The names of the training functions."""
        return [self.functions.train, *(each.label for each in self.baseline)] if self.baseline else []

    def judged(self, measured: Iterable[Measures]) -> Metric:
        """The first figure of the test examples, if there are any, otherwise the first of `evaluate`."""
        return self._metric(measured, "validation" if self.functions.test is None else "test")

    def chosen_by(self, measured: Iterable[Measures]) -> Metric:
        """The figure of `evaluate` that decides the early stop, if one is given. Otherwise the judged figure or, if
        `evaluate` returns no figure of its name, the first."""
        measured = list(measured)
        return self._metric(measured, "validation", self.evaluation.stop_on or self.judged(measured).name)

    def barrier_metric(self, measured: Iterable[Measures]) -> Metric:
        """The judged figure as `evaluate` returns it or, if it returns no figure of that name, its first figure."""
        measured = list(measured)
        return self._metric(measured, "validation", self.judged(measured).name)

    @property
    def evaluates_ends(self) -> bool:
        """Whether there is a function for the test examples."""
        return self.functions.test is not None

    def _metric(
        self, measured: Iterable[Measures], split: Literal["test", "validation"], wanted: str | None = None
    ) -> Metric:
        """The `wanted` figure of these examples, or otherwise the first."""
        prefix, suffix = f"{split}_", "_at_stop"
        found: dict[str, list[float]] = {}
        for figure, value in (item for measures in measured for item in measures.figures.items()):
            if figure.startswith(prefix) and figure.endswith(suffix):
                found.setdefault(figure[len(prefix) : -len(suffix)], []).append(value)
        name = wanted if wanted in found else next(iter(found), "figure")
        fraction = name.lower() in FRACTIONS and all(0 <= value <= 1 for value in found[name])
        lower = lower_is_better(name, self.evaluation.minimize, name == next(iter(found), name))
        return Metric(name, split, not lower, fraction)


def custom_config(table: Mapping[str, Any]) -> CustomConfig:
    """The configuration with these values. Raises `InputError`, which names every invalid one."""
    try:
        return CustomConfig.model_validate(table)
    except ValidationError as error:
        raise InputError(explain(error, CustomConfig)) from None


def described_search(options: PruningOptions, one_shot: bool) -> dict[str, Any]:
    """The section `[search]` of these options, with descriptions of functions and objects."""
    density = options.density
    values: dict[str, Any] = {"levels": int(options.levels), "scope": options.scope, "rounds": options.rounds}
    values |= {"rates": dict(options.rates), "include": [*options.include], "leave_out": [*options.leave_out]}
    if isinstance(density, Mapping):
        values["densities"] = dict(density)
    elif density is not None:
        values["density"] = float(density)
    else:
        values["rate"] = float(options.level_rate)
    values["score"] = options.score if isinstance(options.score, str) else import_path(options.score)
    structure: object = options.structure  # may be a function, too
    described = structure if isinstance(structure, str) else import_path(structure)
    values["structure"] = repr(structure) if isinstance(structure, Heads) else described  # with all fields
    values |= {"group_score": options.group_score, "round_to": int(options.round_to), "cost": options.cost}
    outputs = None if options.outputs is None else [*options.outputs]
    return values | {"outputs": outputs, "one_shot": one_shot}


def experiment_name(text: str) -> str:
    """The text as the name of an experiment, without invalid characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-") or "search"


def import_path(thing: object) -> str:
    """`package.module:function` if importing that gives the thing; otherwise its name, or that of its class. For a
    partial, the call: `train(lr=0.1)`."""
    if isinstance(thing, functools.partial):
        arguments = [*map(_short, thing.args), *(f"{name}={_short(value)}" for name, value in thing.keywords.items())]
        return f"{import_path(thing.func).rpartition(':')[2]}({', '.join(arguments)})"
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    module, name = named.__module__, named.__qualname__
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is thing and module != "__main__" else name


def _short(value: object) -> str:
    """The value as code, if that is short; otherwise the name of its class."""
    text = getattr(value, "__qualname__", repr(value))  # for a class or function, its name
    return text if len(text) <= MAX_VALUE else type(value).__name__
