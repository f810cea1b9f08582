"""Networks from outside: factories by import path, `package.module:factory`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.zoo.models.description import Network

Factory = Callable[..., nn.Module]


def find(path: str) -> tuple[Factory, str | None]:
    """A class or function by import path, and a hash of the source text of its module: of the one that is named,
    and of the one that it comes from, where that is another.

    Raises `InputError` where there is none.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, name)
    except Exception as error:
        raise InputError(f'model.name: cannot import "{path}": {first_line(error)}') from error
    modules = [module]
    if inspect.isfunction(factory) or inspect.isclass(factory):  # others are of functools, or the like
        modules.append(inspect.getmodule(factory) or module)
    source = "".join(map(_source, dict.fromkeys(modules)))
    return factory, hashlib.sha256(source.encode()).hexdigest()[:32] if source else None


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):  # compiled, or typed in
        return ""


def make(network: Network) -> nn.Module:
    """Call the factory with the options of `network`.

    Raises `InputError` where that fails, and where its source text is not the one described.
    """
    factory, source = find(network.name)
    if source != network.source:
        raise InputError(f'model.name: the source of "{network.name}" has changed since this run was described')
    return call(factory, network.name, network.options)


def call(factory: Factory, name: str, options: dict[str, Any]) -> nn.Module:
    """What `factory`, known as `name`, makes of `options`.

    Raises `InputError` where it does not take them, or makes no module.
    """
    try:
        inspect.signature(factory).bind(**options)
        made: Any = factory(**options)
    except Exception as error:
        raise InputError(f'model.name: cannot call "{name}": {first_line(error)}') from error
    if not isinstance(made, nn.Module):
        raise InputError(f'model.name: "{name}" made a {type(made).__name__}, not a torch.nn.Module')
    return made
