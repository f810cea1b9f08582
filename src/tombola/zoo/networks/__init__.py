"""Networks by name. To add one, write its factory in a file here and name it in `NETWORKS`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

import torch
from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from tombola.errors import InputError, unknown
from tombola.run import Network, Start
from tombola.zoo.networks.initialise import reorder
from tombola.zoo.networks.mlp import lenet_300_100, mlp

Factory = Callable[..., nn.Module]

NETWORKS: dict[str, Factory] = {"lenet-300-100": lenet_300_100, "mlp": mlp}
"""Each is called with the shape of an example, the number of classes and the options, as keywords."""


_LOCK = threading.Lock()


def describe(name: str, options: dict[str, Any], inputs: tuple[int, ...], classes: int) -> Network:
    """The network of that name: one of `NETWORKS`, or an import path `package.module:factory`.

    Raises `InputError` for an unknown name or unknown options.
    """
    factory, source = _imported(name) if ":" in name else (_named(name, options), None)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f'model.name: "{name}" cannot be called: {error}') from error
    own = {n: value for n, value in options.items() if n not in parameters or value != parameters[n].default}
    return Network(name=name, options=own, source=source, inputs=inputs, classes=classes)


def build(start: Start) -> nn.Module:
    """The network of `start` with its initial weights, drawn by its seed; on the CPU, in training mode.

    Modules draw from torch's global generator, so that is seeded for the duration and put back afterwards.
    Raises `InputError` for an unknown network or wrong options.
    """
    network = start.network
    with _LOCK, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(start.seed)
        built = _build_imported(network) if ":" in network.name else _build_named(network)
    if start.reuse is not None:
        reorder(built, start.reuse)
    return built


def _named(name: str, options: dict[str, Any]) -> Factory:
    if name not in NETWORKS:
        raise unknown("network", name, [*NETWORKS, "package.module:factory"])
    known = [option for option in inspect.signature(NETWORKS[name]).parameters if option not in ("inputs", "classes")]
    for option in options:
        if option not in known:
            raise unknown(f'option of network "{name}"', option, known)
    return NETWORKS[name]


def _build_named(network: Network) -> nn.Module:
    factory = _named(network.name, network.options)
    try:
        make = validate_call(config=ConfigDict(strict=True))(factory)
        return make(inputs=network.inputs, classes=network.classes, **network.options)
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(map(str, problem["loc"]))
        given = "" if problem["type"].startswith("missing") else f", not {problem['input']!r}"
        raise InputError(f'model.{option}: {problem["msg"]}{given} (an option of network "{network.name}")') from None


def _imported(path: str) -> tuple[Factory, str | None]:
    """A class or function by import path, and a hash of the source text of its module."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
        factory = getattr(module, name)
    except Exception as error:
        raise InputError(f'model.name: cannot import "{path}": {_line(error)}') from error
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):  # compiled, or typed in
        return factory, None
    return factory, hashlib.sha256(source.encode()).hexdigest()[:32]


def _build_imported(network: Network) -> nn.Module:
    factory, source = _imported(network.name)
    if source != network.source:
        raise InputError(f'model.name: the source of "{network.name}" has changed since this run was described')
    try:
        inspect.signature(factory).bind(**network.options)
        made = factory(**network.options)
    except Exception as error:
        raise InputError(f'model.name: cannot call "{network.name}": {_line(error)}') from error
    if not isinstance(made, nn.Module):
        raise InputError(f'model.name: "{network.name}" made a {type(made).__name__}, not a torch.nn.Module')
    return made


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
