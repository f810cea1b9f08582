"""Networks by name. To add one, write its factory in a file here and name it in `NETWORKS`."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable

import torch
from pydantic import ConfigDict, ValidationError, validate_call
from torch import nn

from tombola.errors import InputError, unknown
from tombola.run import Network, Start
from tombola.zoo.networks.mlp import lenet_300_100, mlp

Factory = Callable[..., nn.Module]

NETWORKS: dict[str, Factory] = {"lenet-300-100": lenet_300_100, "mlp": mlp}
"""Each is called with the shape of an example, the number of classes and the options, as keywords."""

_global_generator = threading.Lock()


def build(start: Start) -> nn.Module:
    """The network of `start` with its initial weights, drawn by its seed; on the CPU, in training mode.

    Modules draw from torch's global generator, so that is seeded for the duration and put back afterwards.
    Raises `InputError` for an unknown network or wrong options.
    """
    make = _imported if ":" in start.network.name else _named
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(start.seed)
        return make(start.network)


def _named(network: Network) -> nn.Module:
    """A network of the zoo."""
    if network.name not in NETWORKS:
        raise unknown("network", network.name, NETWORKS)
    factory = NETWORKS[network.name]
    options = [name for name in inspect.signature(factory).parameters if name not in ("inputs", "classes")]
    for option in network.options:
        if option not in options:
            raise unknown(f'option of network "{network.name}"', option, options)
    try:
        make = validate_call(config=ConfigDict(strict=True))(factory)
        return make(inputs=network.inputs, classes=network.classes, **network.options)
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(map(str, problem["loc"]))
        raise InputError(f'model.{option}: {problem["msg"]} (an option of network "{network.name}")') from None


def _imported(network: Network) -> nn.Module:
    """The user's own network, by the import path of a class or function that is called with the options."""
    path = network.name
    module, _, name = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
        inspect.signature(factory).bind(**network.options)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(f'model.name: cannot call "{path}": {error}') from error
    made = factory(**network.options)
    if not isinstance(made, nn.Module):
        raise InputError(f'model.name: "{path}" made a {type(made).__name__}, not a torch.nn.Module')
    return made
