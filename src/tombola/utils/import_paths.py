"""Objects by import path: `package.module:name`."""

from __future__ import annotations

import importlib
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
