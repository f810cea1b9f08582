"""The reference of recipes: every section and key, from the models that check recipes."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tombola.experiments.margin import Margin
from tombola.experiments.recipe import Recipe
from tombola.experiments.recipe_index_contents import CHOICES as CHOICES_BY_NAME
from tombola.experiments.sections import DataSection, SearchSection
from tombola.pruning.options import PruningOptions
from tombola.studies.controls import CONTROLS
from tombola.utils.duration import Duration
from tombola.zoo.datasets.description import Data

DESCRIBED_BY: Mapping[type, type] = {SearchSection: PruningOptions, DataSection: Data}
"""Sections whose keys are described where they are used."""

CHOICES = {key: CHOICES_BY_NAME[key] for key in ("search.scope", "search.score", "search.method", "verdict.control")}
"""Values of keys that accept no others than these names."""

_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def recipe_keys() -> str:
    """Every section of a recipe as a heading, its purpose and a table of its keys."""
    sections = {name: model for name, field in Recipe.model_fields.items() if (model := _section(field.annotation))}
    single = [name for name in Recipe.model_fields if name not in sections]
    parts = ["## Before all sections", _table(Recipe, "", single)]
    for name, model in sections.items():
        needed = "" if not Recipe.model_fields[name].is_required() else " Required."
        title, about = f"## `[{name}]`", _summary(model, name) + needed
        if name == "baseline":
            rows = ["Keys are those of `[training]`; each value is a list, such as `lr = [0.01, 0.1]`."]
        elif name == "controls":
            named = ", ".join(f"`{control}`" for control in CONTROLS)
            rows = [f"Keys are the names of controls: {named}. Each has these values:", _table(model, name)]
        else:
            rows = [_table(model, name)]
        parts += [title, about, *rows]
    text = "\n\n".join(parts)
    return re.sub(r"docs/((?:how-to|explanation|reference)/([\w-]+)\.md)", r"[\2](../\1)", text)


def keys() -> Iterator[tuple[str, str]]:
    """(section, key) of every key, the section empty for those outside of sections."""
    for name, field in Recipe.model_fields.items():
        model = _section(field.annotation)
        yield from [("", name)] if model is None else [(name, key) for key in model.model_fields]


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model of a section: itself, or optional, or the values of a table."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not Duration:
        return annotation
    found = (model for part in get_args(annotation) if (model := _section(part)))
    return next(found, None) if get_origin(annotation) in (Union, types.UnionType, dict) else None


def _table(model: type[BaseModel], section: str, names: list[str] | None = None) -> str:
    rows = ["| key | type | default | meaning |", "|-|-|-|-|"]
    for name in names or model.model_fields:
        field = model.model_fields[name]
        path = f"{section}.{name}" if section else name
        cells = [f"`{name}`", _type(field, path), _default(field), _meaning(model, name)]
        rows.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    if model.model_config.get("extra") == "allow" and section == "model":
        rows.append("| … | | | Options of the network, such as `widths = [300, 100]`. |")
    return "\n".join(rows)


def _type(field: FieldInfo, path: str) -> str:
    if path in CHOICES:
        return ", ".join(f'`"{choice}"`' for choice in CHOICES[path])
    limits = [
        f"{sign} {getattr(limit, bound):g}"
        for limit in field.metadata
        for bound, sign in _LIMITS.items()
        if hasattr(limit, bound)
    ]
    return ", ".join([_described_type(field.annotation), *limits])


def _described_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _described_type(arguments[0])
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_described_type(part) for part in arguments if part is not type(None))
    if origin in (list, tuple):
        return f"list of: {_described_type(arguments[0])}"
    if origin is dict:
        return f"table of: {_described_type(arguments[1])}"
    known = {
        int: "integer",
        float: "number",
        bool: "`true` or `false`",
        str: "string",
        Duration: "length",
        Margin: "number or percentage",
    }
    return known.get(annotation, "table")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple | list):
        return f"`{list(default)}`"
    text = str(default)
    return f'`"{text}"`' if isinstance(default, str | Duration) else f"`{text}`"


def _meaning(model: type, name: str) -> str:
    """What the docstring below the field says, in its class or in one that it is derived from or described by."""
    for cls in (*model.__mro__, DESCRIBED_BY.get(model)):
        if cls is not None and (found := _docstrings(cls).get(name)):
            return found
    return ""


def _summary(model: type, section: str) -> str:
    text = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    text = re.sub(rf"^`\[\w+\]`[:.]?\s*|^One of `\[{section}\]`: ", "", text)
    return text[:1].upper() + text[1:]


@cache
def _docstrings(cls: type) -> dict[str, str]:
    """The docstrings of a class's fields."""
    if not cls.__module__.startswith("tombola"):
        return {}
    found = _package()[f"{cls.__module__.removeprefix('tombola.')}.{cls.__qualname__}"]
    return {
        name: each.docstring.value for name, each in found.members.items() if not each.is_alias and each.docstring
    }


@cache
def _package() -> griffe.Module:
    package = griffe.load("tombola", resolve_aliases=False)
    assert isinstance(package, griffe.Module)
    return package
