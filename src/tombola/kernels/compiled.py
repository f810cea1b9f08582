"""Functions compiled by numba; their machine code is cached on disk."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import platformdirs

from tombola.kernels.linked import LinkedCompiler
from tombola.kernels.source_hash import kernel_hash

log = logging.getLogger(__name__)


@functools.cache
def cache_folder() -> Path | None:
    """The folder for machine code; None where it cannot be written."""
    folder = Path(platformdirs.user_cache_dir("tombola")) / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        log.warning("cannot cache compiled code in %s (%s): each process compiles again", folder, error.strerror)
        return None
    return folder


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` at its first call. It releases the interpreter's lock; division by zero gives inf.

    The order of floating-point operations is kept, so that equal inputs give equal bits. Only what Python calls is
    optimised, as a whole, and cached; functions that it calls are linked into it.
    """
    # numba checks the date of the function's own file, but not of the files whose functions are compiled into it:
    # so each module has a folder named by a hash of both.
    cache = cache_folder()
    folder = cache and cache / kernel_hash(function.__module__)
    options = {"nogil": True, "error_model": "numpy"}
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder or "")
    try:
        made: Any = numba.njit(**options, cache=folder is not None)(function)
    finally:
        numba.config.CACHE_DIR = before
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    linked = numba.njit(**options, **wrappers, pipeline_class=LinkedCompiler)(function)
    # What numba asks for when it compiles a call of this function.
    made.get_call_template, made.get_overload = linked.get_call_template, linked.get_overload
    compiled_function: Callable[..., Any] = made
    return compiled_function
