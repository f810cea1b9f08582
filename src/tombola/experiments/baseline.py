"""`[baseline]`: other training options for the dense network, so that tickets are compared with a tuned one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ConfigDict, ValidationError, model_validator

from tombola.experiments.recipe_parsing import explain
from tombola.runs.run import Training
from tombola.utils.errors import unknown
from tombola.utils.frozen_model import FrozenModel

MAX_TRAININGS = 100
"""The largest number of combinations; recipes in ticket files are not trusted."""


class BaselineSection(FrozenModel):
    """`[baseline]`: options of `[training]`, each with a list of values. Every combination of them is tried."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name, values in given.items():
            if name not in Training.model_fields:
                raise unknown("option", name, Training.model_fields)
            if not isinstance(values, list) or not values:
                raise ValueError(f"{name}: should be a list of values of training.{name}, not {values!r}")
        count = math.prod(map(len, given.values()))
        if count > MAX_TRAININGS:
            raise ValueError(f"should be at most {MAX_TRAININGS} combinations, not {count:,}")
        return given

    @property
    def options(self) -> dict[str, list[Any]]:
        """Values by option, in the order of the fields of `Training`, not in that of the recipe."""
        given = self.model_extra or {}
        return {name: given[name] for name in Training.model_fields if name in given}

    def trainings(self, training: Training) -> list[Training]:
        """`training`, as used for the tickets, followed by its variants with every other combination of options; the
        last option varies fastest. Raises `ValueError`, with the message for `[training]`, if a combination is
        invalid."""
        found = [training]
        for values in itertools.product(*self.options.values()):
            options = dict(zip(self.options, values, strict=True))
            try:
                other = Training.model_validate(training.model_dump(mode="json") | options)
            except ValidationError as error:
                of_one_option = error.errors()[0]["loc"]
                at = "baseline." if of_one_option else f"baseline, {_label(options.items())}: "
                raise ValueError(f"{at}{explain(error, Training)}") from None
            if other not in found:
                found.append(other)
        if len(found) == 1:
            raise ValueError("baseline: should have values that differ from [training], such as lr = [0.01, 0.1]")
        return found

    def labels(self, trainings: Sequence[Training]) -> list[str]:
        """The values of this section's options in each of `trainings`, such as `lr = 0.1, momentum = 0.9`."""
        values = [training.model_dump(mode="json") for training in trainings]
        return [_label((name, each[name]) for name in self.options) for each in values]


def _label(options: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name} = {_shown(value)}" for name, value in options)


def _shown(value: Any) -> str:
    """A value as in a recipe, without quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")
