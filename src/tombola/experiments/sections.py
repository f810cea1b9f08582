"""Sections: the parts of a recipe that describe data, network and search; each is a table of the TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import nn

from tombola.experiments.method_options import Method
from tombola.pruning import structures
from tombola.pruning.mask import Mask
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import Scope, round_rate, scope
from tombola.pruning.scores import SCORES
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError, unknown
from tombola.utils.frozen_model import FrozenModel

Rate = float
"""A fraction of the weights left that one pruning removes."""


class DataSection(FrozenModel):
    """`[data]`: see `tombola.zoo.datasets.description.Data` for what the names mean."""

    name: str
    validation: int = Field(ge=1)
    scale: Literal["range", "unit-norm", "standard"] = "range"
    fraction: float = Field(default=1.0, gt=0, le=1)
    label_noise: float = Field(default=0.0, ge=0, le=1)
    image: str | None = None
    label: str | None = None
    size: int | None = Field(default=None, ge=1)
    mean: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    std: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    flip: bool = False
    crop: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> DataSection:
        if (self.mean is None) != (self.std is None) or (self.mean is not None and self.scale != "standard"):
            raise ValueError('mean and std go together, with scale = "standard"')
        return self


class ModelSection(FrozenModel):
    """`[model]`: a network's name, and its options beside it."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class SearchSection(FrozenModel):
    """`[search]`: how tickets are looked for."""

    levels: int = Field(ge=0)
    """How many prunings; level 0 is the dense network."""
    rate: Rate | None = Field(default=None, gt=0, lt=1)
    """What each pruning removes of the weights left in every layer, or of all together with scope global or erk."""
    output_rate: Rate | None = Field(default=None, ge=0, lt=1)
    """The same for the output layer; as `rate` when it is not given."""
    rates: dict[str, float] = {}
    """The same for single layers, by name or pattern (`fc*`); these come before the other two."""
    density: float | None = Field(default=None, gt=0, lt=1)
    """Instead of `rate`: the fraction of weights left after all levels, each keeping density^(1/levels)."""
    scope: Literal["layer", "global", "erk"] = "layer"
    """See `tombola.pruning.scopes`."""
    score: str = "magnitude"
    """See `tombola.pruning.scores`."""
    structure: str = "weights"
    """What is pruned: `weights`, `neurons`, `channels`, `heads`, `blocks:4x4`, `2:4`; see
    `tombola.pruning.structures`."""
    rounds: int | None = Field(default=None, ge=1)
    """In how many rounds of scoring a level is pruned, without training in between; as `score` has it by default."""
    method: Method = "iterative"
    """How a mask is found: in rounds of training, or in another way, of which there is a page, docs/other-ways.md."""
    one_shot: bool = False
    """The same as method `one-shot`: prune the trained dense network once to each density."""
    leave_out: list[str] = []
    """Layers that are not pruned, by name or pattern."""

    @field_validator("score")
    @classmethod
    def _known_score(cls, score: str) -> str:
        if score not in SCORES:
            raise unknown("score", score, SCORES)
        return score

    @field_validator("structure")
    @classmethod
    def _known_structure(cls, structure: str) -> str:
        structures.named(structure)
        return structure

    @field_validator("rates")
    @classmethod
    def _fractions(cls, rates: dict[str, float]) -> dict[str, float]:
        for layer, rate in rates.items():
            if not 0 <= rate < 1:
                raise ValueError(f'the rate of "{layer}" should be at least 0 and less than 1, not {rate:g}')
        return rates

    @model_validator(mode="after")
    def _check(self) -> SearchSection:
        if (self.rate is None) == (self.density is None):
            raise ValueError("give either rate (for each level) or density (after the last level)")
        if self.density is not None and self.levels == 0:
            raise ValueError("density needs at least one level to be reached in")
        if self.one_shot and self.method not in ("iterative", "one-shot"):
            raise ValueError(f'one_shot has no meaning with method = "{self.method}"')
        if self.output_rate is not None or self.rates:
            name = "rates" if self.rates else "output_rate"
            if self.density is not None:
                raise ValueError(f"{name} goes with rate, not with density")
            if self.scope != "layer":
                raise ValueError(
                    f'{name} has no meaning with scope = "{self.scope}"; leave layers out with leave_out'
                )
        pattern = structures.pattern_of(self.structure)
        if pattern is not None:
            share = pattern[0] / pattern[1]
            if self.levels > 1 or self.rates or self.output_rate or abs(1 - self.round_rate - share) > 1e-6:
                raise ValueError(f'structure = "{self.structure}" goes with levels = 1 and density = {share:g}')
        if self.scope == "erk" and self.structure != "weights":
            raise ValueError(f'scope = "erk" goes with structure = "weights", not "{self.structure}"')
        return self

    @property
    def at_once(self) -> bool:
        """Whether the dense network is pruned once to each density."""
        return self.one_shot or self.method == "one-shot"

    @property
    def round_rate(self) -> Rate:
        """The rate of one level."""
        return round_rate(self.rate, self.density, self.levels)

    def scope_of(self, shapes: Mapping[str, tuple[int, ...]]) -> Scope:
        """The scope over layers whose weights have these `shapes`, in the network's order; the last is the output.

        Raises `InputError` when a name or pattern matches no layer.
        """
        rates = dict(self.rates)
        if self.output_rate is not None:
            rates.setdefault(list(shapes)[-1].removesuffix(".weight"), self.output_rate)
        try:
            return scope(self.scope, shapes, self.round_rate, rates, self.leave_out)
        except InputError as error:
            raise InputError(f"search.{error}") from None

    def pruner(self, network: nn.Module) -> Pruner:
        """What prunes such a network. Raises `InputError` where it has no such layers or structure."""
        try:
            scope = self.scope_of(Mask.full(network).shapes)
            return Pruner.named(network, self.score, scope, self.structure, self.rounds)
        except InputError as error:
            raise InputError(f"search.{str(error).removeprefix('search.')}") from None


AUTO = "auto"


class RewindSection(FrozenModel):
    """`[rewind]`: what happens to the weights left after each pruning; see `tombola.studies.rewinding`."""

    to: Duration | Literal["auto"] = Duration()
    """The iteration k. `auto`: the smallest of `[stability]`'s candidates that is stable, in each replicate."""
    method: Literal["weights", "learning-rate", "fine-tuning"] = "weights"

    @field_validator("to", mode="before")
    @classmethod
    def _length_or_auto(cls, to: Any) -> Any:
        if to == AUTO:
            return to
        try:
            return Duration.parse(to)
        except ValueError as error:
            raise ValueError(f'{error}, or "{AUTO}"') from None


class StabilitySection(FrozenModel):
    """`[stability]`: from which iterations on pairs of trainings are compared; see `tombola.studies.stability`."""

    candidates: list[Duration] = Field(min_length=1)
    pairs: int = Field(default=1, ge=1)
    """How many other batch orders the dense network's is paired with."""
    points: int = Field(default=11, ge=3)
    """Where each line is evaluated, both ends included."""
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """The highest error barrier that counts as none: 2 points in Frankle et al. (2020, section 3)."""


class ControlSection(FrozenModel):
    """One of `[controls]`: a number of draws, or `{ draws = 3, levels = [3, 7] }`."""

    draws: int = Field(default=1, ge=0, le=1000)
    """At each level and in each replicate."""
    levels: list[Annotated[int, Field(ge=1)]] | None = None
    """At which levels; at all below the dense network if it is not given."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"draws": given} if isinstance(given, int) and not isinstance(given, bool) else given

    @model_serializer(mode="wrap")
    def _shorten(self, serialise: SerializerFunctionWrapHandler) -> Any:
        return self.draws if self.levels is None else serialise(self)


class TransferSection(FrozenModel):
    """`[transfer]`: tickets are trained on other data too; see `tombola.studies.transfer`."""

    data: DataSection
    levels: list[Annotated[int, Field(ge=1)]] | None = None
    """The tickets of which levels; of all if it is not given."""
    draws: int = Field(default=1, ge=0, le=1000)
    """How many random masks beside each."""


FORMER_VERDICT_KEYS = {"few": "max_density", "beat": "control"}
"""Keys of `[verdict]` by their former names, which are still accepted."""


class VerdictSection(FrozenModel):
    """`[verdict]`: what counts as winning."""

    accuracy_margin: float = Field(default=0.002, ge=0, lt=1)
    """By how much test accuracy at early stop may fall short of the dense network's: 0.002 is 0.2 points."""
    stop_margin: float = Field(default=0.05, ge=0)
    """By how much the early-stopping iteration may come later, as a fraction of the dense network's."""
    confidence: float = Field(default=0.95, gt=0.5, le=0.999)
    """How sure each statement must be."""
    max_density: float = Field(default=0.5, gt=0, lt=1)
    """At most this fraction of weights left counts as far fewer. Formerly `few`."""
    control: str = "reinit"
    """The control that tickets must be better than, at levels where it was trained. Formerly `beat`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        renamed = {former: name for former, name in FORMER_VERDICT_KEYS.items() if name not in given}
        return {renamed.get(key, key): value for key, value in given.items()}

    @property
    def alpha(self) -> float:
        """The chance of error that each statement is allowed."""
        return 1 - self.confidence
