"""The user's own networks, by the import path of a factory: `package.module:factory`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object, source_hash
from tombola.utils.text import first_line
from tombola.zoo.models.description import Network

Factory = Callable[..., nn.Module]


def find(path: str) -> tuple[Factory, str | None]:
    """The class or function at an import path, and a hash of the source text of the named module and, if it is
    another, of the module that defines the factory; None where no source text is available.

    Raises `InputError` if it cannot be imported.
    """
    factory = import_object("model.name", path)
    return factory, source_hash(path, factory)


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
