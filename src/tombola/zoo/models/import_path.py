"""The user's own networks, by the import path of a factory: `package.module:factory`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object
from tombola.utils.text import first_line
from tombola.zoo.models.description import Network

Factory = Callable[..., nn.Module]


def find(path: str) -> tuple[Factory, str | None]:
    """The class or function at an import path, and a hash of the source text of the named module and, if it is
    another, of the module that defines the factory; None where no source text is available.

    Raises `InputError` if it cannot be imported.
    """
    factory = import_object("model.name", path)
    module = importlib.import_module(path.partition(":")[0])
    modules = [module]
    if inspect.isfunction(factory) or inspect.isclass(factory):  # not a functools.partial, say
        modules.append(inspect.getmodule(factory) or module)
    source = "".join(map(_source, dict.fromkeys(modules)))
    return factory, hashlib.sha256(source.encode()).hexdigest()[:32] if source else None


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # compiled, or interactive
        return ""


def make(network: Network) -> nn.Module:
    """Call the factory with the options of `network`. Raises `InputError` if that fails, and if its source text is
    not the one described."""
    factory, source = find(network.name)
    if source != network.source:
        raise InputError(f'model.name: the source of "{network.name}" has changed since this run was described')
    return call(factory, network.name, network.options)


def call(factory: Factory, name: str, options: dict[str, Any]) -> nn.Module:
    """The module that `factory`, called `name` in messages, makes with `options`. Raises `InputError` if it does not
    take these options or does not return a module."""
    try:
        inspect.signature(factory).bind(**options)
        made: Any = factory(**options)
    except Exception as error:
        raise InputError(f'model.name: cannot call "{name}": {first_line(error)}') from error
    if not isinstance(made, nn.Module):
        raise InputError(f'model.name: "{name}" returned {type(made).__name__}, not a torch.nn.Module')
    return made
