"""Sections: the parts of a recipe that describe data, network and search; each is a table of the TOML file."""

from __future__ import annotations

import dataclasses
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

from tombola.experiments.margin import Margin
from tombola.experiments.methods import METHODS
from tombola.pruning.options import PruningOptions
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.structures.unit_structure import Cost
from tombola.pruning.structures.units import GroupScore
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError, unknown
from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.datasets.description import SHUFFLE_BUFFER
from tombola.zoo.datasets.parquet_columns import Columns


class DataSection(FrozenModel):
    """`[data]`: the dataset, and how it is divided, scaled and augmented.

    `tombola.zoo.datasets.description.Data` describes the keys.
    """

    name: str
    validation: int = Field(ge=1)
    scale: Literal["range", "unit-norm", "standard"] = "range"
    fraction: float = Field(default=1.0, gt=0, le=1)
    label_noise: float = Field(default=0.0, ge=0, le=1)
    image: str | None = None
    label: str | None = None
    size: int | None = Field(default=None, ge=1)
    stream: bool = False
    shuffle_buffer: int = Field(default=SHUFFLE_BUFFER, ge=1)
    mean: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    std: Annotated[tuple[float, ...], Field(strict=False)] | None = None
    flip: bool = False
    crop: int = Field(default=0, ge=0)
    resized_crop: int | None = Field(default=None, ge=1)

    @property
    def columns(self) -> Columns:
        """How its files are read."""
        return Columns(self.image, self.label, self.size, self.stream)

    @model_validator(mode="after")
    def _check(self) -> DataSection:
        if self.crop and self.resized_crop is not None:
            raise ValueError("crop and resized_crop: give one of them")
        if self.shuffle_buffer != SHUFFLE_BUFFER and not self.stream:
            raise ValueError("shuffle_buffer needs stream = true")
        if self.stream and (self.scale == "unit-norm" or (self.scale == "standard" and self.mean is None)):
            raise ValueError('stream needs scale = "range", or scale = "standard" with mean and std')
        if (self.mean is None) != (self.std is None) or (self.mean is not None and self.scale != "standard"):
            raise ValueError('mean and std should be given together, with scale = "standard"')
        return self


class ModelSection(FrozenModel):
    """`[model]`: a network's name and options."""

    model_config = ConfigDict(extra="allow")

    name: str
    """A network of docs/how-to/networks.md, `timm:NAME`, or a function by import path, `package.module:function`."""

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class SearchSection(FrozenModel):
    """`[search]`: how tickets are searched for.

    `PruningOptions` describes the options that have no docstring here.
    """

    levels: int = Field(ge=0)
    """The number of prunings; level 0 is the dense network."""
    rate: float | None = Field(default=None, gt=0, lt=1)
    output_rate: float | None = Field(default=None, ge=0, lt=1)
    rates: dict[str, float] = {}
    density: float | None = Field(default=None, gt=0, lt=1)
    """Instead of `rate`: the fraction of weights left after all levels, each keeping density^(1/levels)."""
    scope: str = "layer"
    score: str = "magnitude"
    structure: str = "weights"
    rounds: int | None = Field(default=None, ge=1)
    group_score: GroupScore = "mean"
    round_to: int = Field(default=1, ge=0)
    cost: Cost = "units"
    method: str = "iterative"
    """How masks are found (docs/how-to/other-ways.md)."""
    one_shot: bool = False
    """The same as method `one-shot`: prune the trained dense network once to each density."""
    leave_out: list[str] = []
    include: list[str] = []
    outputs: list[str] | None = None

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        return method

    @model_validator(mode="after")
    def _check(self) -> SearchSection:
        if (self.rate is None) == (self.density is None):
            raise ValueError("should have either rate (of each level) or density (after the last level)")
        if self.density is not None and self.levels == 0:
            raise ValueError("density needs levels of at least 1")
        if self.density is not None and (self.rates or self.output_rate is not None):
            raise ValueError(f"{'rates' if self.rates else 'output_rate'}: needs rate, not density")
        if self.one_shot and self.method not in ("iterative", "one-shot"):
            raise ValueError(f'one_shot: has no meaning with method = "{self.method}"')
        _ = self.options  # raises for invalid values
        return self

    @property
    def options(self) -> PruningOptions:
        """How each level is pruned. Raises `InputError` for invalid values."""
        given = {field.name for field in dataclasses.fields(PruningOptions)} - {"levels"}
        levels = max(1, self.levels)  # with 0 levels nothing is pruned, but the options are still checked
        return PruningOptions(levels, **self.model_dump(include=given))

    def pruner(self, network: nn.Module | PrunableNetwork) -> Pruner:
        """The pruner of `network`. Raises `InputError` for unknown layers and structures that it does not have."""
        try:
            return self.options.pruner(self.options.prunable(network) if isinstance(network, nn.Module) else network)
        except InputError as error:
            raise InputError(f"search.{error}") from None


AUTO: Literal["auto"] = "auto"
MARK: Literal["mark"] = "mark"


class RewindSection(FrozenModel):
    """`[rewind]`: what happens to the kept weights after each pruning (docs/how-to/training.md)."""

    to: Duration | Literal["auto", "mark"] = Duration()
    """The iteration k. `auto`: in each replicate, the smallest stable candidate of `[stability]`. `mark`: where the
    user's training function calls `tombola.mark()`."""
    method: Literal["weights", "learning-rate", "fine-tuning"] = "weights"
    """`weights`: the kept weights return to their values at iteration k. `learning-rate`: they stay, and training
    resumes with the learning rates from k on. `fine-tuning`: they stay, and the last learning rate is used."""

    @field_validator("to", mode="before")
    @classmethod
    def _length_or_auto(cls, to: Any) -> Any:
        if to in (AUTO, MARK):
            return to
        try:
            return Duration.parse(to)
        except ValueError as error:
            raise ValueError(f'{error}, or "{AUTO}"') from None


class StabilitySection(FrozenModel):
    """`[stability]`: the iterations after which pairs of trainings differ (docs/how-to/training.md)."""

    candidates: list[Duration] = []
    """The iterations k at which stability is tested."""
    tickets: bool = False
    """Whether lines are measured from tickets to those of the previous level, and to the same tickets trained in
    other batch orders."""
    pairs: int = Field(default=1, ge=1)
    """The number of other batch orders that the dense network's, or a ticket's, is paired with."""
    points: int = Field(default=11, ge=3)
    """The number of networks that are evaluated on each line, both ends included."""
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """The highest error barrier of a stable network: 2 points in Frankle et al. (2020, section 3)."""

    @model_validator(mode="after")
    def _check(self) -> StabilitySection:
        if not self.candidates and not self.tickets:
            raise ValueError("candidates: should be at least 1, unless tickets = true")
        return self


class ControlSection(FrozenModel):
    """One of `[controls]`: a number of draws, or a table such as `{ draws = 3, levels = [3, 7] }`."""

    draws: int = Field(default=1, ge=0, le=1000)
    """The number of draws at each level and in each replicate."""
    levels: list[Annotated[int, Field(ge=1)]] | None = None
    """The levels at which it is trained; by default all but level 0, the dense network."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        return {"draws": given} if isinstance(given, int) and not isinstance(given, bool) else given

    @model_serializer(mode="wrap")
    def _shorten(self, serialise: SerializerFunctionWrapHandler) -> Any:
        return self.draws if self.levels is None else serialise(self)


class TransferSection(FrozenModel):
    """`[transfer]`: tickets are also trained on other data (docs/how-to/other-ways.md)."""

    data: DataSection
    """The other data, with the keys of `[data]`."""
    levels: list[Annotated[int, Field(ge=1)]] | None = None
    """The levels of the tickets; all by default."""
    draws: int = Field(default=1, ge=0, le=1000)
    """The number of random masks for each ticket."""


class PoolsSection(FrozenModel):
    """`[pools]`: tickets are interpolated with those of other levels (docs/how-to/averages-and-permutations.md)."""

    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95], min_length=1
    )
    """The interpolation coefficients that are tried: the share of the other ticket."""
    candidates: int | None = Field(default=None, ge=1)
    """How many other tickets each is interpolated with, the nearest levels first; all by default."""
    statistics: Duration = Duration(epochs=1)
    """For how many batches of training examples running statistics are recomputed, in networks with batch norm;
    `0it`: they are interpolated, too."""

    @field_validator("shares")
    @classmethod
    def _increasing(cls, shares: list[float]) -> list[float]:
        if shares != sorted(set(shares)):
            raise ValueError(f"should increase, like [0.1, 0.5, 0.9], not {shares}")
        return shares

    def count_runs(self, levels: int) -> int:
        """How many networks are evaluated in a replicate, at most."""
        others = min(levels, self.candidates or levels)
        return (1 + levels) * (others * (len(self.shares) + 1) + 1)


class AnalysisSection(FrozenModel):
    """`[analysis]`: what the summary says besides the verdict. It changes no training."""

    double_descent: bool | None = None
    """Whether test error at the end of training is tested for sparse double descent (docs/how-to/double-descent.md);
    by default if `data.label_noise` is not 0."""


FORMER_VERDICT_KEYS = {"accuracy_margin": "margin", "few": "max_density", "beat": "control"}
"""Former names of keys of `[verdict]`, still accepted -> names."""


class VerdictSection(FrozenModel):
    """`[verdict]`: when a ticket wins."""

    margin: Margin = Field(default=Margin(0.002), serialization_alias="accuracy_margin")
    """How much worse than the dense network's the judged metric at early stop may be, which in recipes is test
    accuracy: 0.002 is 0.2 points, "1%" is 1% of the dense network's. Formerly `accuracy_margin`."""
    stop_margin: float = Field(default=0.05, ge=0)
    """How much later the early-stopping iteration may be, as a fraction of the dense network's."""
    confidence: float = Field(default=0.95, gt=0.5, le=0.999)
    """The confidence level of each statement."""
    max_density: float = Field(default=0.5, gt=0, lt=1, serialization_alias="few")
    """A winning ticket keeps at most this fraction of the weights. Formerly `few`."""
    control: str = Field(default="reinit", serialization_alias="beat")
    """The control that tickets must beat, at levels where it was trained. Formerly `beat`."""
    looks: list[Annotated[int, Field(ge=3)]] | None = Field(default=None, min_length=1)
    """The numbers of replicates after which the experiment is judged; by default once, after all
    (docs/explanation/verdict.md)."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        renamed = {former: name for former, name in FORMER_VERDICT_KEYS.items() if name not in given}
        return {renamed.get(key, key): value for key, value in given.items()}

    @field_validator("looks")
    @classmethod
    def _increasing(cls, looks: list[int] | None) -> list[int] | None:
        if looks and looks != sorted(set(looks)):
            raise ValueError(f"should increase, like [5, 10, 20], not {looks}")
        return looks

    @property
    def alpha(self) -> float:
        """The significance level of each statement."""
        return 1 - self.confidence
