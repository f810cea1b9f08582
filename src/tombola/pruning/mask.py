"""Mask: which weights are kept."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tombola.utils.errors import InputError

State = dict[str, Tensor]
"""The `state_dict` of a module."""


def prunable(network: nn.Module) -> list[str]:
    """The names of the weights that can be pruned, in the order of the modules; the last is the output layer.

    These are the weights of linear and convolutional layers. Biases and normalisation are never pruned
    (Frankle & Carbin 2019, section 1 and appendix G). A weight that several layers share is named once.
    Raises `InputError` if a layer's weight is computed from other parameters, as with weight norm.
    """
    parameters = dict(network.named_parameters())
    all_names = dict(network.named_parameters(remove_duplicate=False))
    names = []
    for layer, module in network.named_modules():
        if isinstance(module, nn.Linear | _ConvNd):
            name = f"{layer}.weight" if layer else "weight"
            if name not in all_names:
                raise InputError(f"model: {name} is computed from other parameters; only plain weights can be pruned")
            if name in parameters:
                names.append(name)
    return names


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
    def full(cls, network: nn.Module) -> Mask:
        """The mask of the dense network: every prunable weight is kept."""
        return cls({n: torch.ones_like(network.get_parameter(n), dtype=torch.bool) for n in prunable(network)})

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def counts(self) -> dict[str, int]:
        """The number of kept weights of each layer."""
        return {name: int(kept.sum()) for name, kept in self.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of weights of each layer, kept or pruned."""
        return {name: kept.numel() for name, kept in self.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each layer's weight."""
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
        parameters = dict(network.named_parameters())
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
        layers = ", ".join(f"{name} {count}/{self.sizes[name]}" for name, count in self.counts.items())
        return f"Mask({self.count}/{self.size}: {layers})"

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
