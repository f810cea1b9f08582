"""Networks: described by name, and built from their description. To add one, list its factory in `MODELS`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, ValidationError, validate_call
from torch import nn

from tombola.utils.errors import InputError, unknown
from tombola.utils.random_state import preserve_rng_state
from tombola.utils.text import first_line
from tombola.zoo.models import from_timm, import_path
from tombola.zoo.models.conv import conv
from tombola.zoo.models.description import Network, Start
from tombola.zoo.models.import_path import Factory
from tombola.zoo.models.initialise import reorder
from tombola.zoo.models.lenet5 import lenet_5
from tombola.zoo.models.mlp import lenet_300_100, mlp
from tombola.zoo.models.reparametrization import reparametrize
from tombola.zoo.models.resnet import resnet, resnet_18, resnet_20
from tombola.zoo.models.resnet_imagenet import resnet_50
from tombola.zoo.models.vgg import vgg
from tombola.zoo.models.vit import vit

__all__ = ["MODELS", "build", "describe", "make"]

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
    "resnet-50": resnet_50,
    "vgg-11": functools.partial(vgg, 11),
    "vgg-16": functools.partial(vgg, 16),
    "vgg-19": functools.partial(vgg, 19),
    "vit": vit,
}
"""Each is called with keywords: `inputs`, the shape of an example; `classes`, their number; and the options."""


def describe(name: str, options: dict[str, Any], inputs: tuple[int, ...], classes: int) -> Network:
    """The network of that name: one of `MODELS`, `timm:NAME`, or an import path `package.module:factory`. Raises
    `InputError` for an unknown name or unknown options."""
    factory, source = _find(name, options)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise InputError(f'model.name: "{name}" cannot be called: {error}') from error
    own = {n: value for n, value in options.items() if n not in parameters or value != parameters[n].default}
    return Network(name=name, options=own, source=source, inputs=inputs, classes=classes)


def build(start: Start) -> nn.Module:
    """The network of `start` with its initial weights, drawn with its seed; on the CPU, in training mode.

    Modules draw from torch's global generator: it is seeded here, and its former state is restored afterwards.
    Raises `InputError` for an unknown network or invalid options.
    """
    network = start.network
    with preserve_rng_state():
        torch.default_generator.manual_seed(start.seed)
        built = make(network)
    if start.reuse is not None:
        reorder(built, start.reuse)
    if start.like is not None:
        _copy_matching(built, build(start.model_copy(update={"network": start.like, "like": None})))
    return built


def make(network: Network) -> nn.Module:
    """The described network, its weights drawn from torch's global generator. Raises `InputError` as `build` does."""
    if network.name.startswith(from_timm.PREFIX):
        return from_timm.make(network)
    if ":" in network.name:
        return import_path.make(network)
    return _make_from_zoo(network)


def _make_supermask(
    inputs: tuple[int, ...],
    classes: int,
    of: str,
    keep: dict[str, NonNegativeInt],
    options: dict[str, Any] | None = None,
    source: str | None = None,
) -> nn.Module:
    """The network named `of`, with its `options` and `source` (see `Network`), as a supermask: edge-popup, with the
    name and options that it has in the keys of stored runs."""
    layers = {name: {"keep": count} for name, count in keep.items()}
    return _make_parametrized(inputs, classes, of, "edge-popup", layers, options, source)


def _make_parametrized(
    inputs: tuple[int, ...],
    classes: int,
    of: str,
    by: str,
    layers: dict[str, dict[str, Any]],
    options: dict[str, Any] | None = None,
    source: str | None = None,
) -> nn.Module:
    """The network named `of`, with its `options` and `source` (see `Network`), reparametrized."""
    inner = Network(name=of, options=options or {}, source=source, inputs=inputs, classes=classes)
    return reparametrize(make(inner), by, layers)


def _make_rescaled(
    inputs: tuple[int, ...],
    classes: int,
    of: str,
    factors: dict[str, PositiveFloat],
    options: dict[str, Any] | None = None,
    source: str | None = None,
) -> nn.Module:
    """The network named `of`, with its `options` and `source` (see `Network`), the weights named in `factors`
    multiplied by these."""
    network = make(Network(name=of, options=options or {}, source=source, inputs=inputs, classes=classes))
    with torch.no_grad():
        for name, factor in factors.items():
            network.get_parameter(name).mul_(factor)
    return network


WRAPPERS: dict[str, Factory] = {
    "supermask": _make_supermask,
    "parametrized": _make_parametrized,
    "rescaled": _make_rescaled,
}
"""Networks made from another network. Only studies describe them; a recipe names the inner network."""


def describe_parametrized(network: Network, by: str, layers: Mapping[str, Mapping[str, Any]]) -> Network:
    """`network`, with the weights named in `layers` computed by a parametrization of `PARAMETRIZATIONS` with these
    options; see `reparametrize`."""
    if by == "edge-popup":
        return _describe_wrapped("supermask", network, keep={name: each["keep"] for name, each in layers.items()})
    return _describe_wrapped("parametrized", network, by=by, layers={n: dict(each) for n, each in layers.items()})


def describe_rescaled(network: Network, factors: Mapping[str, float]) -> Network:
    """`network`, with the initial weights named in `factors` multiplied by these positive numbers."""
    return _describe_wrapped("rescaled", network, factors={**factors})


def _describe_wrapped(wrapper: str, network: Network, **options: Any) -> Network:
    """The network of `WRAPPERS` that is made from `network`, with these options."""
    options |= {"of": network.name, "options": network.options or None, "source": network.source}
    return describe(wrapper, options, network.inputs, network.classes)


def _copy_matching(network: nn.Module, other: nn.Module) -> None:
    """Copy into `network` every tensor of `other` with the same name and shape."""
    own, others = network.state_dict(), other.state_dict()
    matching = {name: value for name, value in others.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict(own | matching)


def _find(name: str, options: dict[str, Any]) -> tuple[Factory, str | None]:
    """The factory of the network, and its `Network.source`."""
    if name.startswith(from_timm.PREFIX):
        return from_timm.find(name)
    if ":" in name:
        return import_path.find(name)
    return _find_in_zoo(name, options), None


def _find_in_zoo(name: str, options: dict[str, Any]) -> Factory:
    factory = (MODELS | WRAPPERS).get(name)
    if factory is None:
        raise unknown("network", name, [*MODELS, "package.module:factory", "timm:NAME"])
    known = [option for option in inspect.signature(factory).parameters if option not in ("inputs", "classes")]
    for option in options:
        if option not in known:
            raise unknown(f'option of network "{name}"', option, known)
    return factory


@functools.cache
def _validated(factory: Factory) -> Factory:
    """`factory`, checking the types of its options. Cached, as setting this up takes as long as a small network."""
    return validate_call(config=ConfigDict(strict=True, allow_inf_nan=False))(factory)


def _make_from_zoo(network: Network) -> nn.Module:
    factory = _validated(_find_in_zoo(network.name, network.options))
    try:
        return factory(inputs=network.inputs, classes=network.classes, **network.options)
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(map(str, problem["loc"]))
        given = "" if problem["type"].startswith("missing") else f", not {problem['input']!r}"
        raise InputError(f'model.{option}: {problem["msg"]}{given} (an option of network "{network.name}")') from None
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:  # sizes that torch cannot allocate
        raise InputError(
            f'model.name: "{network.name}" cannot be made with these options: {first_line(error)}'
        ) from error
