"""Texts that take long to make, kept in the user's cache folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write

UNUSED = 30 * 86400
"""Seconds after which a text that was not used is deleted."""


def cached_text(kind: str, name: str, make: Callable[[], str]) -> str:
    """The text of this name in the folder `kind` of the cache; if it has none, what `make` returns, which is kept.
    `name` should contain all that the text depends on. Without a cache that can be written it is made every time."""
    path = Path(platformdirs.user_cache_dir("tombola")) / kind / name
    with suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
        os.utime(path)
        return text
    text = make()
    with suppress(OSError, InputError):
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
        _delete_unused(path.parent)
    return text


def _delete_unused(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file() and time.time() - path.stat().st_mtime > UNUSED:
            path.unlink(missing_ok=True)
