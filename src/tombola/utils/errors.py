"""Errors that are reported to the user in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from tombola.utils.text import plural

SHOWN = 5
"""How many failures a message lists."""


class InputError(ValueError):
    """Invalid input by the user. The message is one line: what is invalid, where, and what would be valid.

    The command line prints it without a traceback and exits with status 2.
    """


class TrainingsFailed(RuntimeError):
    """Trainings failed as often as they were tried; everything else is finished."""

    def __init__(self, failed: Sequence[str], tries: int) -> None:
        """`failed` says of each training which it was, and why it failed."""
        more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
        super().__init__(f"{plural(len(failed), 'training')} failed {tries} times: {'; '.join(failed[:SHOWN])}{more}")
        self.failed = list(failed)


class Unreachable(RuntimeError):
    """What an experiment needs cannot be reached any more. The message is one line."""


class DamagedFile(ValueError):
    """A file is truncated, altered, or was not written by tombola."""


def unknown(what: str, name: object, known: Iterable[str]) -> InputError:
    """An `InputError` for a name, or what should be one, that is not one of `known`; it suggests the nearest one.

    >>> str(unknown("optimizer", "adm", ["adam", "sgd"]))
    'unknown optimizer "adm": did you mean "adam"? (known: adam, sgd)'
    """
    names = sorted(known)
    if not isinstance(name, str):
        given = " ".join(repr(name).split())
        return InputError(f"{what}: should be one of {', '.join(names)}, not {given}")
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f': did you mean "{near[0]}"?' if near else ""
    listed = f"known: {', '.join(names)}" if names else "there are none"
    return InputError(f'unknown {what} "{name}"{hint} ({listed})')
