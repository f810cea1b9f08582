"""Networks from timm, PyTorch image models (https://github.com/huggingface/pytorch-image-models): `timm:NAME`."""

from __future__ import annotations

import difflib
import functools
import importlib
from typing import Any

from torch import nn

from tombola.utils.errors import InputError
from tombola.utils.text import first_line
from tombola.zoo.models.description import Network
from tombola.zoo.models.image_shape import ImageShape
from tombola.zoo.models.import_path import Factory, call

PREFIX = "timm:"


def find(name: str) -> tuple[Factory, str]:
    """timm's factory for `name`, and timm's version as `Network.source`. Raises `InputError` if timm is not installed
    or has no such network."""
    timm = _timm(name)
    wanted = name.removeprefix(PREFIX)
    known = timm.list_models()
    if wanted.partition(".")[0] not in known:  # after the dot: which pretrained weights
        near = difflib.get_close_matches(wanted, known, n=5)
        hint = f": did you mean {', '.join(near)}?" if near else ""
        raise InputError(f'model.name: timm {timm.__version__} has no network "{wanted}"{hint}')
    return functools.partial(timm.create_model, wanted), f"timm {timm.__version__}"


def make(network: Network) -> nn.Module:
    """Call timm's factory with the options of `network`; `num_classes` and `in_chans` default to those of the data.
    The network adds the channel axis to examples of shape (height, width).

    Raises `InputError` if that fails, and if timm's version is not the one described.
    """
    factory, source = find(network.name)
    if source != network.source:
        raise InputError(
            f'model.name: "{network.name}" was described with {network.source}, but {source} is installed'
        )
    images = ImageShape.of(network.inputs, network.name)
    sizes = {"num_classes": network.classes, "in_chans": images.channels}
    made = call(factory, network.name, sizes | network.options)
    if images.flat:
        # An additional first layer would rename all parameters, so that timm could not load them.
        made.register_forward_pre_hook(_add_channel, with_kwargs=True)
    return made


def _add_channel(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (args[0].unsqueeze(1), *args[1:]), kwargs
    return args, kwargs | {"x": kwargs["x"].unsqueeze(1)}


def _timm(name: str) -> Any:
    try:
        timm = importlib.import_module("timm")
    except Exception as error:  # a torchvision built for another torch raises various errors
        if isinstance(error, ImportError) and error.name == "timm":
            raise InputError(f'model.name: "{name}" needs timm: pip install "tombola[timm]"') from None
        raise InputError(f'model.name: "{name}" needs timm, which cannot be imported: {first_line(error)}') from error
    if not hasattr(timm, "create_model"):
        place = next(iter(getattr(timm, "__path__", ())), timm)  # a folder called timm, say
        raise InputError(f'model.name: "{name}" needs timm, but {place} is a different package')
    return timm
