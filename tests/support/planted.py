"""Plants a bug in a module that is in use, and removes it again."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any


@contextlib.contextmanager
def planted(module_name: str, old: str, new: str) -> Iterator[None]:
    """Within it the functions of the module do what they would do with `new` in place of `old` in its source.

    Only bodies of functions and methods may change: their code is exchanged, so every reference to them sees it.
    Raises `AssertionError` unless `old` occurs.
    """
    module = importlib.import_module(module_name)
    path = Path(inspect.getfile(module))
    source = path.read_text()
    assert old in source, f"{module_name} has no {old!r}"
    changed = ModuleType(module_name)
    changed.__file__, changed.__package__ = module.__file__, module.__package__
    exec(compile(source.replace(old, new), str(path), "exec"), vars(changed))
    live, other = _functions(module, module_name), _functions(changed, module_name)
    before = {name: function.__code__ for name, function in live.items()}
    differing = [name for name in live if name in other and before[name] != other[name].__code__]
    assert differing, f"{module_name}: nothing has changed"
    try:
        for name in differing:
            live[name].__code__ = other[name].__code__
        yield
    finally:
        for name in differing:
            live[name].__code__ = before[name]


def _functions(owner: Any, module_name: str, prefix: str = "") -> dict[str, FunctionType]:
    """The functions and methods that a module or class defines, by qualified name, without their decorators."""
    found: dict[str, FunctionType] = {}
    for name, value in vars(owner).items():
        if isinstance(value, type):
            if value.__module__ == module_name and value.__qualname__ == prefix + name:
                found |= _functions(value, module_name, f"{prefix}{name}.")
        elif (function := _bare(value)) is not None and function.__module__ == module_name:
            found[prefix + name] = function
    return found


def _bare(value: Any) -> FunctionType | None:
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    value = inspect.unwrap(getattr(value, "__func__", value))
    return value if isinstance(value, FunctionType) else None
