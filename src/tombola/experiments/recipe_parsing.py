"""Reading recipes: TOML files, overrides of their values, and messages for invalid ones."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tombola.utils.errors import InputError, unknown


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. Raises `InputError` if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in a table of TOML values. A value that is not valid TOML is taken as text; an empty one
    removes the key.

    Raises `InputError` if the override has another form.
    """
    key, equals, text = override.partition("=")
    try:
        parsed = tomllib.loads(f"{key} = 0")  # keys may be dotted and quoted
        path = []
        while isinstance(parsed, dict):
            ((name, parsed),) = parsed.items()
            path.append(name)
        if not equals:
            raise ValueError
    except ValueError:
        raise InputError(f'--set {override!r}: should be key=value, such as "training.lr=0.01"') from None
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


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All errors in one line: where, what, and what would be valid."""
    return "; ".join(_explain(details, model) for details in error.errors())


def _explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    path = [str(part) for part in error["loc"]]
    where = ".".join(path)
    if error["type"] == "extra_forbidden":
        section = f"key of [{'.'.join(path[:-1])}]" if path[:-1] else "key"
        return str(unknown(section, path[-1], _section_model(model, path[:-1]).model_fields))
    if error["type"] == "missing":
        return f'"{where}" is missing'
    if error["type"] == "model_type":
        return f"{where}: should be a section, [{where}], not {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        given = error["input"] if not isinstance(error["input"], dict | BaseModel) else None
        if given is None:  # a check of a whole section names the key itself
            name = re.match(r"unknown (\w+) ", message)
            if name and name[1] in getattr(_section_model(model, path), "model_fields", ()):
                message = f"{name[1]}: {message}"
        key = given is None and re.match(r"\w+: ", message)
        at = "" if not where else f"{where}." if key else f"{where}: "
        complete = given is None or "not" in message or message.startswith("unknown ")
        return f"{at}{message}" if complete else f"{at}{message}, not {given!r}"
    if error["type"] == "literal_error":
        field = _section_model(model, path[:-1]).model_fields[path[-1]]
        choices = [str(choice) for choice in get_args(field.annotation)]
        return f"{where}: {unknown(path[-1], str(error['input']), choices)}"
    return f"{where}: {message[0].lower()}{message[1:]}, not {error['input']!r}"


def _section_model(model: Any, path: Sequence[str]) -> type[BaseModel]:
    """The model class of the section at `path`."""
    for name in path:
        if get_origin(model) is dict:  # sections with free names
            model = get_args(model)[1]
            continue
        model = model.model_fields[name].annotation
        if get_origin(model) is UnionType:  # an optional section
            model = get_args(model)[0]
    section: type[BaseModel] = model
    return section
