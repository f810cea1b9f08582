"""Procedure: a hash that stands for a function of the user's, so that a changed one is not taken for the same."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

_LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platlib", "purelib"))
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Path, np.generic, torch.dtype, torch.device)


def digest(*things: object) -> str:
    """32 hexadecimal digits for functions and values.

    Of functions and classes of the user's own it sees the source text (the compiled code, where there is none), the
    defaults, and what they refer to: other functions, numbers, strings, containers, arrays and tensors, these with
    their content. Libraries count by name and version, other objects by their class.
    """
    sha = hashlib.sha256()
    for part in _parts(list(things), {}):
        sha.update(part.encode() if isinstance(part, str) else part)
        sha.update(b"\0")
    return sha.hexdigest()[:32]


def _parts(thing: Any, seen: dict[int, object]) -> Iterator[str | bytes]:
    """What the hash is made of; whatever was `seen` already counts once."""
    if isinstance(thing, _PLAIN):
        yield f"{type(thing).__name__} {thing!r}"
        return
    if id(thing) in seen:
        return
    seen[id(thing)] = thing  # kept alive, so that no other thing is given its id
    if isinstance(thing, torch.Tensor | np.ndarray):
        yield from _array(thing)
    elif isinstance(thing, Mapping):
        for key, value in thing.items():
            yield from _parts(key, seen)
            yield from _parts(value, seen)
    elif isinstance(thing, list | tuple | set | frozenset):
        items = sorted(thing, key=repr) if isinstance(thing, set | frozenset) else thing
        yield type(thing).__name__
        for item in items:
            yield from _parts(item, seen)
    elif isinstance(thing, functools.partial):
        yield from _parts([thing.func, thing.args, thing.keywords], seen)
    elif isinstance(thing, MethodType):
        yield from _parts([thing.__func__, thing.__self__], seen)
    elif isinstance(thing, ModuleType):
        yield f"{thing.__name__} {getattr(thing, '__version__', '')}"
    elif inspect.isroutine(thing) or isinstance(thing, type):
        yield from _code(thing, seen)
    else:
        yield from _code(type(thing), seen)
        if not _of_a_library(type(thing)):
            yield from _parts(getattr(thing, "__dict__", {}), seen)


def _array(values: torch.Tensor | np.ndarray[Any, Any]) -> Iterator[str | bytes]:
    yield f"{values.dtype} {tuple(values.shape)}"
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    yield repr(values.tolist()) if values.dtype.hasobject else np.ascontiguousarray(values).tobytes()


def _code(thing: Any, seen: dict[int, object]) -> Iterator[str | bytes]:
    """A function or class."""
    name = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', thing)}"
    if _of_a_library(thing):
        top = sys.modules.get(str(thing.__module__).partition(".")[0])
        yield f"{name} {getattr(top, '__version__', '')}"
        return
    yield thing.__qualname__
    try:
        yield inspect.getsource(thing)
    except (OSError, TypeError):  # typed in, or compiled
        if isinstance(thing, FunctionType):
            yield from _compiled(thing.__code__)
    if isinstance(thing, FunctionType):
        yield from _parts([thing.__defaults__, thing.__kwdefaults__, *_referred_to(thing)], seen)
    elif isinstance(thing, type):
        yield from _parts([member for member in vars(thing).values() if isinstance(member, FunctionType)], seen)


def _referred_to(function: FunctionType) -> Iterator[Any]:
    """What a function's names stand for, those in functions within it too."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not given a value yet
            yield cell.cell_contents
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield function.__globals__[name]


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _compiled(code: CodeType) -> Iterator[str | bytes]:
    yield code.co_code
    for constant in code.co_consts:
        yield from _compiled(constant) if isinstance(constant, CodeType) else [repr(constant)]


def _of_a_library(thing: Callable[..., Any]) -> bool:
    module = sys.modules.get(str(getattr(thing, "__module__", None)))
    if module is None or module.__name__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return file is None or str(Path(file).resolve()).startswith(_LIBRARIES) or module.__name__.startswith("tombola.")
