"""Mask: which weights are kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from tombola.pruning.layers import by_layer, layer_rows
from tombola.pruning.prunable_layers import find_layers
from tombola.utils.errors import InputError
from tombola.utils.html_table import html_table
from tombola.utils.text import plural

State = dict[str, Tensor]
"""The `state_dict` of a module."""


def prunable(network: nn.Module, include: Sequence[str] = (), leave_out: Sequence[str] = ()) -> list[str]:
    """The names of the parameters that can be pruned, in the order of `named_parameters`.

    These are the weight matrices of linear, bilinear and convolutional layers, of `nn.LSTM`, `GRU` and `RNN`, of
    `nn.MultiheadAttention`, of Hugging Face's `Conv1D`, and three-dimensional parameters of other modules, such as
    stacked experts, unless they are named as embeddings, positions, biases and the like. `include` adds parameters by
    name or pattern; by pattern only those with two or more dimensions. Biases and normalisation are never pruned
    otherwise (Frankle & Carbin 2019, section 1 and appendix G), nor are weights of `nn.Embedding`, whatever layers
    they are tied to. A parameter that several layers share is named once.

    Raises `InputError` for a weight that cannot be pruned, for example as it is computed from other parameters, as
    with weight norm, unless `leave_out` matches it; and for names in `include` that match no parameter.
    """
    return list(dict.fromkeys(layer.parameter for layer in find_layers(network, include, leave_out)))


class Mask(Mapping[str, Tensor]):
    """Maps the name of a parameter to a bool tensor of its shape, True where the weight is kept.

    A mask is immutable. Masks that keep the same weights are equal and have the same hash.

    >>> mask = Mask({"fc.weight": torch.tensor([[True, False], [True, True]])})
    >>> mask.count, mask.size, mask.density
    (3, 4, 0.75)
    """

    def __init__(self, kept: Mapping[str, Tensor]) -> None:
        for name, tensor in kept.items():
            if tensor.dtype != torch.bool:
                raise TypeError(f"a mask needs bool tensors; {name} is {tensor.dtype}")
        self._kept = {name: tensor.detach().cpu().clone() for name, tensor in kept.items()}

    @classmethod
    def full(cls, network: nn.Module, include: Sequence[str] = (), leave_out: Sequence[str] = ()) -> Mask:
        """The mask of the dense network: every weight that can be pruned is kept. The options, and the errors raised,
        are those of `prunable`; `InputError` too for a network without weights, on torch's meta device."""
        names = prunable(network, include, leave_out)
        parameters = dict(network.named_parameters())
        if on_meta := [name for name in names if parameters[name].is_meta]:
            raise InputError(f"model: {on_meta[0]} is on the meta device, without values: load its weights first")
        return cls({name: torch.ones(parameters[name].shape, dtype=torch.bool) for name in names})

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @cached_property
    def layers(self) -> dict[str, Tensor]:
        """The kept weights by layer: views of those by parameter (see `tombola.pruning.layers`)."""
        return by_layer(self)

    def with_layers(self, layers: Mapping[str, Tensor]) -> Mask:
        """The mask in which these layers keep these weights; the others stay as they are."""
        kept = {}
        for name, tensor in self.items():
            parts = [layers.get(part, self.layers[part]) for part in layer_rows(name, tuple(tensor.shape))]
            kept[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
        return Mask(kept)

    @property
    def counts(self) -> dict[str, int]:
        """The number of kept weights of each layer."""
        return {name: int(kept.sum()) for name, kept in self.layers.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer, kept or pruned."""
        return {name: kept.numel() for name, kept in self.layers.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter."""
        return {name: tuple(kept.shape) for name, kept in self.items()}

    @cached_property
    def count(self) -> int:
        """The number of kept weights."""
        return sum(self.counts.values())

    @cached_property
    def size(self) -> int:
        """The number of prunable weights of the dense network."""
        return sum(self.sizes.values())

    @property
    def density(self) -> float:
        """The fraction of weights kept, from 0 to 1."""
        return self.count / self.size

    @property
    def empty_layers(self) -> list[str]:
        """Layers without any kept weight; with one, the network has collapsed."""
        return [name for name, count in self.counts.items() if count == 0]

    def __and__(self, other: Mask) -> Mask:
        return self._combine(other, torch.logical_and)

    def __or__(self, other: Mask) -> Mask:
        return self._combine(other, torch.logical_or)

    def __sub__(self, other: Mask) -> Mask:
        return self._combine(other, lambda a, b: a & ~b)

    def __le__(self, other: Mask) -> bool:
        """Whether `other` keeps every weight that this mask keeps."""
        return (self - other).count == 0

    def _combine(self, other: Mask, operator: Callable[[Tensor, Tensor], Tensor]) -> Mask:
        if self.shapes != other.shapes:
            raise ValueError("masks of different networks cannot be combined")
        return Mask({name: operator(kept, other[name]) for name, kept in self.items()})

    def apply_(self, network: nn.Module) -> None:
        """Set the pruned weights of `network` to zero, in place; kept weights keep their bits."""
        parameters = dict(network.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, kept in self.items():
                parameters[name].masked_fill_(~kept.to(parameters[name].device), 0)

    @cached_property
    def digest(self) -> str:
        """A hash of the names, shapes and kept weights: 32 hexadecimal digits."""
        sha = hashlib.sha256()
        for name, kept in sorted(self.items()):
            sha.update(f"{name}{tuple(kept.shape)}".encode())
            sha.update(pack_bits(kept).numpy().tobytes())
        return sha.hexdigest()[:32]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Mask({self.count:,} of {plural(self.size, 'weight')} in {plural(len(self.layers), 'layer')})"

    def _repr_html_(self) -> str:
        rows = [(name, f"{count:,}", f"{self.sizes[name]:,}") for name, count in self.counts.items()]
        return html_table(("layer", "weights left", "of"), rows, before=repr(self), left=("layer",))

    def __reduce__(self) -> tuple[object, ...]:
        # One bit per weight, as plain bytes: torch would send tensors to another process through shared memory,
        # with one open file each.
        packed = {n: (pack_bits(kept).numpy().tobytes(), tuple(kept.shape)) for n, kept in self.items()}
        return _unpickle, (packed,)


def _unpickle(packed: dict[str, tuple[bytes, tuple[int, ...]]]) -> Mask:
    kept = {}
    for name, (bits, shape) in packed.items():
        kept[name] = unpack_bits(torch.frombuffer(bytearray(bits), dtype=torch.uint8), shape)
    return Mask(kept)


def pack_bits(kept: Tensor) -> Tensor:
    """Pack a bool tensor of n entries into uint8 of length ceil(n / 8), the first entry in the highest bit."""
    return torch.from_numpy(np.packbits(kept.numpy().reshape(-1)))


def unpack_bits(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `pack_bits`: a bool tensor of `shape`. Raises `ValueError` for a wrong number of bytes."""
    size = math.prod(shape)
    if bits.numel() != (size + 7) // 8:
        raise ValueError(f"{bits.numel()} bytes cannot hold a mask of {size} weights")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=size).astype(bool).reshape(shape))
