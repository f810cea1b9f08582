"""Code outside tombola that a ticket names by import path: `package.module:name`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object


def named_functions(ticket: Ticket) -> dict[str, str]:
    """The functions that the ticket was found with (`model`, `train`, `evaluate` and `test`), as named in its
    provenance; empty if it was found in another way. The names are untrusted."""
    recipe = ticket.provenance.get("recipe")
    functions = recipe.get("functions") if isinstance(recipe, Mapping) else None
    if not isinstance(functions, Mapping):
        return {}
    roles = ("model", "train", "evaluate", "test")
    return {role: functions[role] for role in roles if isinstance(functions.get(role), str)}


def import_named(role: str, path: str, trust: bool) -> Any:
    """Import the object that a file names by import path. Raises `InputError` if the path is not an import path, if
    it cannot be imported, and without `trust`."""
    if ":" not in path:
        raise InputError(
            f'its {role} "{path}" cannot be imported: it was defined in a script or notebook, or is an object; '
            "define a function in a module, and search again"
        )
    require_trust(f'its {role} "{path}"', trust)
    return import_object(f"its {role}", path)


def require_trust(what: str, trust: bool) -> None:
    """Raises `InputError` without `trust`."""
    if not trust:
        raise InputError(
            f"{what} is code from outside tombola, which would be imported and run; if you know that code and trust "
            "the file, say --trust"
        )
