"""Extras: libraries that only some users need."""

from __future__ import annotations

import importlib
from typing import Any

from tombola.utils.errors import InputError
from tombola.utils.text import first_line


def require(module: str, extra: str) -> Any:
    """Import `module`, which comes with the extra of that name.

    Raises `InputError` that says what to install, or why what is installed cannot be imported.
    """
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library made for other versions raises whatever it stumbles over
        if isinstance(error, ImportError) and error.name == library:
            raise InputError(f"this needs {library}: pip install 'tombola[{extra}]'") from None
        raise InputError(f"this needs {library}, which cannot be imported: {first_line(error)}") from error
