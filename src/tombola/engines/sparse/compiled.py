"""Compiled: functions that numba turns into machine code, which is kept on disk for next time."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import platformdirs

log = logging.getLogger(__name__)


_SOURCES = sorted(Path(__file__).parent.glob("*.py"))

KERNELS = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:8]
"""Stands for the content of all these sources: other kernels may round otherwise and take another time."""


def _cache() -> Path | None:
    """A folder for the machine code of just these sources; None where nothing can be written.

    numba compares the date of the file a function is in. It does not see that another file changed whose functions
    were compiled into it, and in a checkout such files change: so the folder is named by the content of them all.
    """
    folder = Path(platformdirs.user_cache_dir("tombola")) / "kernels" / KERNELS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        log.warning("machine code cannot be kept in %s (%s): it is compiled anew each time", folder, error.strerror)
        return None
    return folder


_FOLDER = _cache()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` when it is first called. It runs without the interpreter's lock; division by zero gives inf.

    The order of floating-point operations is as written, so that the same input gives the same bits.
    """
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_FOLDER or "")
    try:
        made: Callable[..., Any] = numba.njit(nogil=True, error_model="numpy", cache=_FOLDER is not None)(function)
    finally:
        numba.config.CACHE_DIR = before
    return made
