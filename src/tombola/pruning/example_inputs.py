"""Example inputs: a batch that a network takes, found where none is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tombola.pruning.prunable_layers import is_conv1d
from tombola.pruning.scores.inputs import generators, repeatable
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs, call_checked, map_tensors
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import seeded

_SIDES = (32, 28, 64, 224, 16, 8)
"""Widths of images, and lengths of signals, that are tried."""
_LENGTH = 8
"""Of sequences."""
_LAYERS = 10
"""How many layers are asked for inputs that suit them."""


def first_inputs(data: Iterable[Any] | None) -> Inputs | None:
    """The inputs of the first batch, if it is a pair (inputs, targets) or a dict; otherwise None, also of an
    iterator, which would lose it. Random states are restored."""
    if data is None or isinstance(data, Iterator):
        return None
    with seeded(0, generators(data)):
        batch = next(iter(repeatable(data)()), None)
    if isinstance(batch, Mapping):
        return {name: value for name, value in batch.items() if name not in ("label", "labels")}
    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[0], Tensor | Mapping):
        found: Inputs = batch[0]
        return found
    return None


def plausible_inputs(network: nn.Module) -> Inputs:
    """A batch that the network takes: what it says itself, as models of Hugging Face and Lightning may, or what suits
    one of its first layers. Raises `InputError` if it takes none of those tried."""
    copied = copy_network(network).eval()
    for inputs in itertools.chain(_described(network), _by_layers(network)):
        try:
            call_checked(copied, inputs)
        except InputError:
            continue
        return inputs
    raise InputError("example: is needed, for the structure of this network: give a batch of its inputs, example=x")


def _described(network: nn.Module) -> Iterator[Inputs]:
    """What a model of Hugging Face or Lightning says of its inputs."""
    if (array := getattr(network, "example_input_array", None)) is not None:
        yield array
    config, dummy = getattr(network, "config", None), getattr(network, "dummy_inputs", None)
    image = [getattr(config, name, None) for name in ("num_channels", "image_size")]
    if isinstance(image[0], int):
        sides = [image[1]] if isinstance(image[1], int) else _SIDES
        yield from ({"pixel_values": torch.zeros(2, image[0], side, side)} for side in sides)
    if isinstance(dummy, Mapping):
        tokens = getattr(config, "vocab_size", None)
        yield map_tensors(
            lambda tensor: tensor % tokens if isinstance(tokens, int) and not tensor.is_floating_point() else tensor,
            dummy,
        )


def _by_layers(network: nn.Module) -> Iterator[Tensor]:
    """What suits one of the first layers: which one reads the inputs is not known."""
    found = (tensors for module in network.modules() if (tensors := [*_suiting(module)]))
    for tensors in itertools.islice(found, _LAYERS):
        yield from tensors


def _suiting(layer: nn.Module) -> Iterator[Tensor]:
    """Inputs of a layer, of several shapes; none if it is no layer whose inputs are known."""
    match layer:
        case _ConvNd():
            axes = len(layer.kernel_size)
            yield from (torch.zeros(2, layer.in_channels, *[side] * axes) for side in _SIDES)
        case nn.Linear():
            yield from _vectors(layer.in_features)
            side = round(layer.in_features**0.5)
            yield torch.zeros(2, side, side)  # images that are flattened
        case nn.Embedding() | nn.EmbeddingBag():
            yield torch.arange(2 * _LENGTH).view(2, _LENGTH) % layer.num_embeddings
        case nn.RNNBase() | nn.RNNCellBase():
            yield from reversed([*_vectors(layer.input_size)])
        case nn.MultiheadAttention():
            yield from reversed([*_vectors(layer.embed_dim)])
        case _ if is_conv1d(layer):
            yield from _vectors(len(layer.get_parameter("weight")))


def _vectors(size: int) -> Iterator[Tensor]:
    yield torch.zeros(2, size)
    yield torch.zeros(2, _LENGTH, size)
