"""Networks by name. To add one, write its factory in a file here and name it in `MODELS`."""

from __future__ import annotations

import functools
import inspect
import threading
from typing import Any

import torch
from pydantic import ConfigDict, NonNegativeInt, ValidationError, validate_call
from torch import nn

from tombola.utils.errors import InputError, unknown
from tombola.utils.text import first_line
from tombola.zoo.models import from_timm, imported
from tombola.zoo.models.conv import conv
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.imported import Factory
from tombola.zoo.models.initialise import reorder
from tombola.zoo.models.lenet5 import lenet_5
from tombola.zoo.models.mlp import lenet_300_100, mlp
from tombola.zoo.models.resnet import resnet, resnet_18, resnet_20
from tombola.zoo.models.supermask import supermask
from tombola.zoo.models.vgg import vgg
from tombola.zoo.models.vit import vit

MODELS: dict[str, Factory] = {
    "lenet-300-100": lenet_300_100,
    "mlp": mlp,
    "lenet-5": lenet_5,
    "conv-2": functools.partial(conv, 2),
    "conv-4": functools.partial(conv, 4),
    "conv-6": functools.partial(conv, 6),
    "resnet": resnet,
    "resnet-18": resnet_18,
    "resnet-20": resnet_20,
    "vgg-11": functools.partial(vgg, 11),
    "vgg-16": functools.partial(vgg, 16),
    "vgg-19": functools.partial(vgg, 19),
    "vit": vit,
}
"""Each is called with the shape of an example, the number of classes and the options, as keywords."""


def _supermask(
    inputs: tuple[int, ...],
    classes: int,
    of: str,
    keep: dict[str, NonNegativeInt],
    options: dict[str, Any] | None = None,
    source: str | None = None,
) -> nn.Module:
    """The network `of` with its `options` and its `source` (see `Network`), as a supermask."""
    return supermask(
        make(Network(name=of, options=options or {}, source=source, inputs=inputs, classes=classes)), keep
    )


WRAPPERS: dict[str, Factory] = {"supermask": _supermask}
"""The same for networks made of another: studies describe these, recipes name the other."""


_LOCK = threading.Lock()


def describe(name: str, options: dict[str, Any], inputs: tuple[int, ...], classes: int) -> Network:
    """The network of that name: one of `MODELS`, `timm:NAME`, or an import path `package.module:factory`.

    Raises `InputError` for an unknown name or unknown options.
    """
    factory, source = _find(name, options)
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
        built = make(network)
    if start.reuse is not None:
        reorder(built, start.reuse)
    if start.like is not None:
        _take(built, build(start.model_copy(update={"network": start.like, "like": None})))
    return built


def _take(network: nn.Module, other: nn.Module) -> None:
    """Give `network` whatever the `other` has of the same name and shape."""
    own, others = network.state_dict(), other.state_dict()
    fitting = {name: value for name, value in others.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(own | fitting)


def _find(name: str, options: dict[str, Any]) -> tuple[Factory, str | None]:
    """What makes the network of that name, and what stands for its source text, where it is not part of tombola."""
    if name.startswith(from_timm.PREFIX):
        return from_timm.find(name)
    if ":" in name:
        return imported.find(name)
    return _named(name, options), None


def make(network: Network) -> nn.Module:
    """What `network` describes, its weights drawn from torch's global generator. Raises as `build` does."""
    if network.name.startswith(from_timm.PREFIX):
        return from_timm.make(network)
    if ":" in network.name:
        return imported.make(network)
    return _make_named(network)


def _named(name: str, options: dict[str, Any]) -> Factory:
    factory = (MODELS | WRAPPERS).get(name)
    if factory is None:
        raise unknown("network", name, [*MODELS, "package.module:factory", "timm:NAME"])
    known = [option for option in inspect.signature(factory).parameters if option not in ("inputs", "classes")]
    for option in options:
        if option not in known:
            raise unknown(f'option of network "{name}"', option, known)
    return factory


def _make_named(network: Network) -> nn.Module:
    factory = _named(network.name, network.options)
    try:
        make = validate_call(config=ConfigDict(strict=True, allow_inf_nan=False))(factory)
        return make(inputs=network.inputs, classes=network.classes, **network.options)
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(map(str, problem["loc"]))
        given = "" if problem["type"].startswith("missing") else f", not {problem['input']!r}"
        raise InputError(f'model.{option}: {problem["msg"]}{given} (an option of network "{network.name}")') from None
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:  # what torch says of sizes beyond reason
        raise InputError(
            f'model.name: "{network.name}" cannot be made with these options: {first_line(error)}'
        ) from error
