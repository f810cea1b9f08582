"""Objects by import path: `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from types import ModuleType
from typing import Any

from tombola.utils.errors import InputError
from tombola.utils.text import first_line


def import_object(what: str, path: str) -> Any:
    """The object at an import path. Raises `InputError` if it cannot be imported."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise InputError(f'{what}: should be an import path, "package.module:name", not "{path}"')
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # the module may raise anything
        raise InputError(f'{what}: cannot import "{path}": {first_line(error)}') from error
    return found


def source_hash(path: str, found: object) -> str | None:
    """A hash of the source text of the module named in `path` and, if it is another, of the module that defines
    `found`, the object there; None where no source text is available."""
    module = importlib.import_module(path.partition(":")[0])
    modules = [module]
    if inspect.isfunction(found) or inspect.isclass(found):  # not a functools.partial, say
        modules.append(inspect.getmodule(found) or module)
    source = "".join(map(_source, dict.fromkeys(modules)))
    return hashlib.sha256(source.encode()).hexdigest()[:32] if source else None


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # compiled, or interactive
        return ""
