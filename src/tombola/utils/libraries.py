"""Libraries: optional dependencies, and versions."""

from __future__ import annotations

import functools
import importlib
from importlib import metadata
from typing import Any

from tombola.utils.errors import InputError
from tombola.utils.text import first_line


def require(module: str, extra: str) -> Any:
    """Import `module`, a dependency of this `extra`. Raises `InputError` with the command that installs it,
    or the reason why it could not be imported."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library for other versions of its dependencies may raise anything
        if isinstance(error, ImportError) and error.name == library:
            raise InputError(f"this needs {library}: pip install 'tombola[{extra}]'") from None
        raise InputError(f"this needs {library}, which cannot be imported: {first_line(error)}") from error


def versions() -> dict[str, str]:
    """The versions of tombola and of the libraries that results depend on."""
    return {name: _version(name) for name in ("tombola", "torch", "numpy")}


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed. The package is not imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def documentation_url() -> str | None:
    """The address of tombola's documentation, as the installed package has it; None if it has none."""
    urls = metadata.metadata("tombola").get_all("Project-URL") or []
    named = dict(url.partition(", ")[::2] for url in urls)
    return named.get("Documentation")


@functools.cache
def _version(library: str) -> str:
    """It takes a millisecond to look up, and cannot change while the library is imported."""
    return metadata.version(library)
