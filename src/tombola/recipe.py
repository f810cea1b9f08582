"""Recipe: an experiment as validated TOML, and every mistake in one named with what would be right."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from tombola.errors import InputError, unknown
from tombola.evidence.verdict import Criteria
from tombola.length import Length
from tombola.run import Described, Training
from tombola.scopes import Scope, scope
from tombola.scores import SCORES
from tombola.seeds import Purpose
from tombola.studies.controls import CONTROLS, OTHER_MASKS

Rate = float
"""A fraction of the weights left that one pruning removes."""


class DataSection(Described):
    """`[data]`: see `tombola.run.Data` for what the names mean."""

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


class ModelSection(Described):
    """`[model]`: a network's name, and its options beside it."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class SearchSection(Described):
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
    """See `tombola.scopes`."""
    score: str = "magnitude"
    one_shot: bool = False
    """Prune the trained dense network once to each density, instead of in rounds of training."""
    leave_out: list[str] = []
    """Layers that are not pruned, by name or pattern."""

    @field_validator("score")
    @classmethod
    def _known_score(cls, score: str) -> str:
        if score not in SCORES:
            raise unknown("score", score, SCORES)
        return score

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
        if self.output_rate is not None or self.rates:
            name = "rates" if self.rates else "output_rate"
            if self.density is not None:
                raise ValueError(f"{name} goes with rate, not with density")
            if self.scope != "layer":
                raise ValueError(
                    f'{name} has no meaning with scope = "{self.scope}"; leave layers out with leave_out'
                )
        return self

    @property
    def round_rate(self) -> Rate:
        """The rate of one level. To keep density d after n levels, each keeps d^(1/n) of what is left: this is
        what "p^(1/n)% per round" (Frankle & Carbin 2019, section 1) means."""
        if self.density is not None:
            return 1.0 - float(self.density ** (1 / self.levels))
        assert self.rate is not None
        return self.rate

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


AUTO = "auto"


class RewindSection(Described):
    """`[rewind]`: what happens to the weights left after each pruning; see `tombola.studies.rewinding`."""

    to: Length | Literal["auto"] = Length()
    """The iteration k. `auto`: the smallest of `[stability]`'s candidates that is stable, in each replicate."""
    method: Literal["weights", "learning-rate", "fine-tuning"] = "weights"

    @field_validator("to", mode="before")
    @classmethod
    def _length_or_auto(cls, to: Any) -> Any:
        if to == AUTO:
            return to
        try:
            return Length.parse(to)
        except ValueError as error:
            raise ValueError(f'{error}, or "{AUTO}"') from None


class StabilitySection(Described):
    """`[stability]`: from which iterations on pairs of trainings are compared; see `tombola.studies.stability`."""

    candidates: list[Length] = Field(min_length=1)
    pairs: int = Field(default=1, ge=1)
    """How many other batch orders the dense network's is paired with."""
    points: int = Field(default=11, ge=3)
    """Where each line is evaluated, both ends included."""
    tolerance: float = Field(default=0.02, ge=0, lt=1)
    """The highest error barrier that counts as none: 2 points in Frankle et al. (2020, section 3)."""


class ControlSection(Described):
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


class Recipe(Described):
    """An experiment: everything a user decides."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the results folder: letters, digits, dots, dashes and underscores."""
    replicates: int = Field(default=5, ge=1, le=1000)
    seed: int = Field(default=0, ge=0)
    data: DataSection
    model: ModelSection
    training: Training
    search: SearchSection
    rewind: RewindSection = RewindSection()
    stability: StabilitySection | None = None
    controls: dict[str, ControlSection] = {}
    """See `tombola.studies.controls` for what there is."""
    verdict: Criteria = Criteria()

    @field_validator("controls", mode="before")
    @classmethod
    def _known_controls(cls, controls: Any) -> Any:
        for name in controls if isinstance(controls, dict) else ():
            if name not in CONTROLS:
                raise unknown("control", name, CONTROLS)
        return controls

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.verdict.beat not in CONTROLS:
            raise unknown("control", self.verdict.beat, CONTROLS)
        for name, control in self.controls.items():
            if control.draws > 1 and name.upper() not in Purpose.__members__:
                raise ValueError(f"controls.{name}: nothing in it is drawn; should be 0 or 1, not {control.draws}")
            highest = max(control.levels or [0])
            if highest > self.search.levels:
                raise ValueError(f"controls.{name}: there are {self.search.levels} levels, and none is {highest}")
            if name in OTHER_MASKS and self.rewind.method != "weights":
                raise ValueError(f'controls.{name}: goes with rewind.method = "weights", not "{self.rewind.method}"')
        if self.rewind.to == AUTO and (self.stability is None or self.rewind.method != "weights"):
            raise ValueError('rewind.to: "auto" goes with a section [stability] and method = "weights"')
        if self.rewind.method == "fine-tuning" and self.training.schedule == "cosine":
            raise ValueError(
                'rewind.method: "fine-tuning" goes on at the last learning rate, which a cosine leaves near 0'
            )
        if self.search.one_shot and "one_shot" in self.controls:
            raise ValueError("controls.one_shot: the search is one-shot itself")
        return self

    def controlled(self, level: int) -> bool:
        """Whether the control that tickets must be better than is trained at this level."""
        control = self.controls.get(self.verdict.beat)
        return control is not None and control.draws > 0 and (control.levels is None or level in control.levels)

    @property
    def rewound(self) -> bool:
        """Whether weights go back after pruning, to what they were before training or early in it."""
        return self.rewind.method == "weights"

    def resolved(self) -> dict[str, Any]:
        """The whole configuration, defaults included, as TOML values."""
        return self.model_dump(mode="json", exclude_none=True)


def recipes() -> dict[str, str]:
    """The recipes that come with tombola: their names and their text."""
    folder = resources.files("tombola.recipes")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def describe(text: str) -> str:
    """What a recipe is: the comment it begins with, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name, or in that TOML file, with `key=value` overrides.

    Raises `InputError` that names the mistake, where it is, and what would be right.
    """
    known = recipes()
    if name.endswith(".toml") or "/" in name:
        try:
            text = Path(name).read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"the recipe {name} cannot be read: {reason}") from None
    elif name in known:
        text = known[name]
    else:
        raise unknown("recipe", name, [*known, "path/to/recipe.toml"])
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name} is not valid TOML: {error}") from None
    for override in overrides:
        _override(table, override)
    return parse_recipe(table, source=name)


def parse_recipe(table: Mapping[str, Any], source: str) -> Recipe:
    """A recipe from TOML values; `source` is named in errors."""
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(map(_explain, error.errors()))}") from None


def _override(table: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in a table of TOML values. What is no TOML value is text; no value takes the key away."""
    key, equals, text = override.partition("=")
    try:
        parsed = tomllib.loads(f"{key} = 0")  # keys as TOML has them: dotted, quoted
        path = []
        while isinstance(parsed, dict):
            ((name, parsed),) = parsed.items()
            path.append(name)
        if not equals:
            raise ValueError
    except ValueError:
        raise InputError(f'--set {override}: should be key=value, such as "training.lr=0.01"') from None
    *sections, last = path
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override}: {section} is a value, not a section")
    if not text:
        table.pop(last, None)
        return
    try:
        table[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = text


def _explain(error: ErrorDetails) -> str:
    """One validation error in one line: where, what, and what would be right."""
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        section = f"key of [{'.'.join(path[:-1])}]" if path[:-1] else "key"
        return str(unknown(section, path[-1], _model(path[:-1]).model_fields))
    if error["type"] == "missing":
        return f'"{where}" is missing'
    if error["type"] == "model_type":
        return f"{where}: should be a section, [{where}], not {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        given = error["input"] if not isinstance(error["input"], dict | BaseModel) else None
        at = f"{where}: " if where else ""  # a check of the whole recipe says itself where
        return f"{at}{message}" + (f", not {given!r}" if given is not None and "not" not in message else "")
    if error["type"] == "literal_error":
        return f"{where}: {_choice(path, error['input'])}"
    return f"{where}: {message[0].lower()}{message[1:]}, not {error['input']!r}"


def _choice(path: Sequence[str], given: Any) -> str:
    field = _model(path[:-1]).model_fields[path[-1]]
    choices = [str(choice) for choice in get_args(field.annotation)]
    return str(unknown(path[-1], str(given), choices))


def _model(path: Sequence[str]) -> type[BaseModel]:
    """The model class of the section at `path` in a recipe."""
    model: Any = Recipe
    for name in path:
        if get_origin(model) is dict:  # of sections, by whatever name
            model = get_args(model)[1]
            continue
        model = model.model_fields[name].annotation
        if get_origin(model) is UnionType:  # a section, or none
            model = get_args(model)[0]
    section: type[BaseModel] = model
    return section
