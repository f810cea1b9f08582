"""Layer: a weight matrix as scores, scopes and structures see it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

Shape = tuple[int, ...]

Kind = Literal[
    "linear",  # [out, in]
    "convolution",  # [out, in / groups, *kernel]
    "transposed convolution",  # [in, out / groups, *kernel]
    "Conv1D",  # of Hugging Face: [in, out]
    "projection",  # the query, key or value of attention: [out, in]
    "recurrent",  # of an LSTM, GRU or RNN: [gates × hidden, in]
    "bilinear",  # [out, in, in]
    "stacked matrices",  # such as the experts of a mixture: [matrices, rows, columns]
    "embedding",  # [entries, features]
    "other",
]

_PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class Layer:
    """A weight matrix: a parameter, or some of its rows."""

    name: str
    """As in scores, scopes and structures: the parameter's name, or `attention.query.weight` for a part of
    `attention.in_proj_weight`."""
    parameter: str
    shape: Shape
    kind: Kind
    module: nn.Module
    """The module that owns the parameter."""
    attribute: str
    """The parameter's name in that module."""
    aliases: tuple[str, ...] = ()
    """Further names of the parameter, of layers that share it."""

    @property
    def label(self) -> str:
        """Its name as users write it."""
        return display_name(self.name)

    @property
    def names(self) -> list[str]:
        """All names that options may give it, its label first."""
        return list(dict.fromkeys(n for name in (self.name, self.parameter, *self.aliases) for n in names_of(name)))


def layer_rows(parameter: str, shape: Shape) -> dict[str, slice]:
    """The layers of a parameter, by name, and their rows.

    A parameter is one layer, except the fused projection of `nn.MultiheadAttention`, `in_proj_weight` of shape
    (3 × features, features): its query, key and value are three.
    """
    owner, _, attribute = parameter.rpartition(".")
    if attribute != "in_proj_weight" or len(shape) != 2 or shape[0] != 3 * shape[1]:
        return {parameter: slice(None)}
    prefix, size = f"{owner}." if owner else "", shape[1]
    return {f"{prefix}{part}.weight": slice(i * size, (i + 1) * size) for i, part in enumerate(_PROJECTIONS)}


def by_layer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the name of a parameter -> views of them by the name of a layer."""
    return {
        layer: tensor if rows == slice(None) else tensor[rows]
        for name, tensor in tensors.items()
        for layer, rows in layer_rows(name, tuple(tensor.shape)).items()
    }


def display_name(layer: str) -> str:
    """A layer's name as users write it, without `.weight`."""
    return layer.removesuffix(".weight")


def names_of(parameter: str) -> list[str]:
    """The names that options may give a parameter, the one to show first."""
    return list(dict.fromkeys((display_name(parameter), parameter)))


def matching(pattern: str, named: Mapping[str, Sequence[str]]) -> list[str]:
    """The keys of those that have the name `pattern`; else those inside the module of that name, or with a name that
    matches it as in `fnmatch`. `named` has the names of each key."""
    exact = [key for key, names in named.items() if pattern in names]
    return exact or [
        key
        for key, names in named.items()
        if any(name.startswith(f"{pattern}.") or fnmatch.fnmatch(name, pattern) for name in names)
    ]


def outputs_first(weight: Tensor, layer: Layer) -> Tensor:
    """A weight of the layer, or anything of its shape, with the axis of outputs first: [out, in, ...]; or back."""
    if layer.kind == "Conv1D":
        return weight.t()
    if layer.kind == "transposed convolution":  # [in, out / groups, *kernel] <-> [out, in / groups, *kernel]
        assert isinstance(layer.module, _ConvTransposeNd)
        return weight.reshape(layer.module.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    return weight
