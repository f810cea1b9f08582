"""What goes wrong through the user's input, said in one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what, where, and what would be right.

    The command line prints it and exits with status 2; nobody needs a traceback to fix a typing error.
    """


class DamagedFile(ValueError):
    """A file of ours cannot be read back as it was written: truncated, altered, or not ours at all."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not among the `known` ones; near names are suggested first.

    >>> str(unknown("optimizer", "adm", ["adam", "sgd"]))
    'unknown optimizer "adm": did you mean "adam"? (known: adam, sgd)'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f': did you mean "{near[0]}"?' if near else ""
    listed = f"known: {', '.join(names)}" if names else "there are none"
    return InputError(f'unknown {what} "{name}"{hint} ({listed})')
