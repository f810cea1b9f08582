"""Recipe: an experiment as validated TOML, and every mistake in one named with what would be right."""

from __future__ import annotations

import itertools
import logging
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from tombola.experiments.method_options import (
    IN_TRAINING,
    SECTIONS,
    EarlyBirdSection,
    EdgePopupSection,
    GradualSection,
    RiglSection,
    SetSection,
)
from tombola.experiments.sections import (
    AUTO,
    FORMER_VERDICT_KEYS,
    ControlSection,
    DataSection,
    ModelSection,
    RewindSection,
    SearchSection,
    StabilitySection,
    TransferSection,
    VerdictSection,
)
from tombola.runs.training import Training
from tombola.studies.controls import CONTROLS, OTHER_MASKS
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError, unknown
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose

log = logging.getLogger(__name__)


class Recipe(FrozenModel):
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
    transfer: TransferSection | None = None
    gradual: GradualSection | None = None
    set: SetSection | None = None
    rigl: RiglSection | None = None
    early_bird: EarlyBirdSection | None = None
    edge_popup: EdgePopupSection | None = None
    verdict: VerdictSection = VerdictSection()

    @field_validator("controls", mode="before")
    @classmethod
    def _known_controls(cls, controls: Any) -> Any:
        for name in controls if isinstance(controls, dict) else ():
            if name not in CONTROLS:
                raise unknown("control", name, CONTROLS)
        return controls

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.verdict.control not in CONTROLS:
            raise unknown("control", self.verdict.control, CONTROLS)
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
        if self.search.at_once and "one_shot" in self.controls:
            raise ValueError("controls.one_shot: the search is one-shot itself")
        if "rewound" in self.controls and self.rewound:
            raise ValueError("controls.rewound: these tickets are rewound themselves")
        if self.transfer and max(self.transfer.levels or [0]) > self.search.levels:
            raise ValueError(f"transfer.levels: there are {self.search.levels} levels, and none is higher")
        if self.transfer and (self.rewind.to != Duration() or self.rewind.method != "weights"):
            raise ValueError('transfer: is from initial weights; goes with rewind.to = "0it" and method = "weights"')
        self._check_method()
        return self

    def _check_method(self) -> None:
        """Refuse what does not go with the search's method."""
        search, method = self.search, self.search.method
        for other, section in SECTIONS.items():
            if getattr(self, section) is not None and method != other:
                raise ValueError(f'{section}: goes with search.method = "{other}", not "{method}"')
        if method not in SECTIONS:
            return
        for where, what, right in (
            ("search.levels", search.levels, 1),
            ("rewind.to", str(self.rewind.to), "0it"),
            ("rewind.method", self.rewind.method, "weights"),
        ):
            if what != right:
                raise ValueError(f'{where}: should be {right} with search.method = "{method}", not {what}')
        if method in ("set", "rigl", "edge-popup"):
            for key, right in (("score", "magnitude"), ("structure", "weights")):
                if getattr(search, key, right) != right:
                    raise ValueError(f'search.{key}: has no meaning with search.method = "{method}"')
            if search.rounds is not None:
                raise ValueError(f'search.rounds: has no meaning with search.method = "{method}"')
        if method == "edge-popup" and search.scope == "global":
            raise ValueError('search.scope: search.method = "edge-popup" needs a number for each layer: layer or erk')

    def controlled(self, level: int) -> bool:
        """Whether the control that tickets must be better than is trained at this level."""
        control = self.controls.get(self.verdict.control)
        return control is not None and control.draws > 0 and (control.levels is None or level in control.levels)

    @property
    def rewound(self) -> bool:
        """Whether weights go back after pruning, to what they were before training or early in it."""
        return self.no_ticket is None

    @property
    def no_ticket(self) -> str | None:
        """Why nothing that the search finds is a lottery ticket, in a few words; None where it may be."""
        if self.search.method in IN_TRAINING:
            return "mask changed while training"
        if self.early_bird is not None and self.early_bird.go_on:
            return "weights not rewound"
        return None if self.rewind.method == "weights" else "trained longer"

    def resolved(self) -> dict[str, Any]:
        """The whole configuration, defaults included, as TOML values."""
        return self.model_dump(mode="json", exclude_none=True)


def recipes() -> dict[str, str]:
    """The recipes that come with tombola: their names and their text."""
    folder = resources.files("tombola.experiments.recipes")
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
    recipe = parse_recipe(table, source=name)
    for former in FORMER_VERDICT_KEYS.keys() & table.get("verdict", {}).keys():
        log.warning("%s: verdict.%s is called verdict.%s now", name, former, FORMER_VERDICT_KEYS[former])
    return recipe


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
