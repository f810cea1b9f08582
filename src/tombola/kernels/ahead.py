"""Compiling before the first call: in another process, which can be ended, and once for all that share a cache."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numba
from numba.core import types

from tombola.kernels.compiled import cache_folder
from tombola.utils.files import file_lock
from tombola.utils.workers import raise_if_cancelled, start_process

log = logging.getLogger(__name__)

SECONDS = 25
"""That it takes, about."""

Call = tuple[Any, tuple[Any, ...]]
"""A compiled function and the arguments of a call."""


def compile_ahead(*calls: Call) -> None:
    """Compile the functions of these calls for the types of their arguments, unless the cache has them.

    They are compiled in another process, because Ctrl-C does not end LLVM's work in this one, which waits; so do all
    others that need to compile. Without a cache folder, or if that process fails, the calls themselves compile.
    """
    folder = cache_folder()
    signatures = [(function, tuple(numba.typeof(value) for value in arguments)) for function, arguments in calls]
    if folder is None or multiprocessing.current_process().daemon or not _missing(signatures):
        return
    with file_lock(folder / "compiling.lock"):
        missing = _missing(signatures)
        if missing:
            log.info("compiling the kernels for this processor, once: about %d seconds", SECONDS)
            _compile_in_process(missing)


def is_cached(function: Any, signature: tuple[types.Type, ...]) -> bool:
    """Whether a call of `function` with arguments of these types compiles nothing."""
    if signature in function.overloads:
        return True
    files, context = function._cache._cache_file, function.targetctx
    context.refresh()
    name = files._load_index().get(function._cache._index_key(signature, context.codegen()))
    return name is not None and Path(files._data_path(name)).is_file()


def _missing(signatures: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return [(function, signature) for function, signature in signatures if not is_cached(function, signature)]


def _compile_in_process(missing: Sequence[tuple[Any, Any]]) -> None:
    named = [(function.__module__, function.__name__, signature) for function, signature in missing]
    process = start_process(_compile, named)
    try:
        while process.is_alive():
            raise_if_cancelled()
            process.join(0.1)
    finally:
        process.kill()
        process.join()


def _compile(functions: Sequence[tuple[str, str, tuple[types.Type, ...]]]) -> None:
    """Compile functions, given by module, name and types of arguments, into the cache."""
    for module, name, signature in functions:
        function: Any = getattr(importlib.import_module(module), name)
        function.compile(signature)
