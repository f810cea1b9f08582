"""Attention heads."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.pruning.structures.unit_structure import NO_UNIT, UnitStructure
from tombola.utils.errors import InputError, unknown


@dataclass(frozen=True)
class Heads:
    """Describes attention modules: the names of their layers, and the number of heads. A name may be a pattern
    (`encoder.*.query`) that matches one layer in each attention module, in the network's order.

    >>> Heads(12, query="*.self.query", key="*.self.key", value="*.self.value", output="*.attention.output.dense")
    ... # doctest: +ELLIPSIS
    Heads(...)
    """

    count: int
    """The number of heads of each module."""
    output: str
    """The output projection: [width, heads × d]."""
    query: str | None = None
    """The projections to queries, keys and values: [heads × d, width] each."""
    key: str | None = None
    value: str | None = None
    qkv: str | None = None
    """Instead of these three, one projection: [3 × heads × d, width]."""

    def __call__(self, network: nn.Module) -> UnitStructure:
        """A unit is a head: its rows of the projections to queries, keys and values, and its columns of the output
        projection (Michel et al. 2019, section 2). Raises `InputError` for names that match no layer, and for layers
        of other shapes, as in grouped-query attention.
        """
        given = [self.query, self.key, self.value] if self.qkv is None else [self.qkv]
        if None in given:
            raise InputError("structure: Heads needs query, key and value, or qkv")
        inward = [_match_linear(network, pattern) for pattern in given if pattern is not None]
        outward = _match_linear(network, self.output)
        if any(len(layers) != len(outward) for layers in inward):
            names = ", ".join(map(str, given))
            raise InputError(f"structure: {names} and {self.output} match different numbers of layers")
        parameters = dict(network.named_parameters())
        ids: dict[str, Tensor] = {}
        for index, (output, *projections) in enumerate(zip(outward, *inward, strict=True)):
            heads = index * self.count + torch.arange(self.count)
            ids[output] = _ids_by_row(heads, parameters[output].t(), output).t()
            _check_rows(parameters[output], [parameters[name] for name in projections], output)
            for name in projections:
                ids[name] = _ids_by_row(heads.repeat(3) if self.qkv else heads, parameters[name], name)
        return UnitStructure({name: ids[name] for name in parameters if name in ids}, "heads")


def heads(network: nn.Module) -> UnitStructure:
    """The heads of every module that has linear layers `qkv` and `proj`, and their number as `heads` or `num_heads`:
    those of the `vit` here and in timm. Raises `InputError` if there is no such module; `Heads` describes others.
    """
    found: dict[str, Tensor] = {}
    first = 0
    for name, module in network.named_modules():
        count = getattr(module, "heads", getattr(module, "num_heads", None))
        parts = [getattr(module, part, None) for part in ("qkv", "proj")]
        if isinstance(count, int) and all(isinstance(part, nn.Linear) for part in parts):
            prefix = f"{name}." if name else ""
            units = Heads(count, output=f"{prefix}proj", qkv=f"{prefix}qkv")(network)
            found |= {layer: torch.where(ids == NO_UNIT, NO_UNIT, ids + first) for layer, ids in units.ids.items()}
            first += count
    if not found:
        advice = "describe others with tombola.pruning.structures.Heads"
        raise InputError(f"structure: found no attention module with layers qkv and proj; {advice}")
    return UnitStructure(found, "heads")


def _check_rows(output: Tensor, projections: list[Tensor], name: str) -> None:
    """Refuse attention whose heads share rows of a projection, such as grouped-query attention."""
    layer, width, rows = name.removesuffix(".weight"), output.shape[1], [len(weight) for weight in projections]
    if len(rows) == 3 and rows[0] != rows[1]:
        found = f"the keys of {layer} have {rows[1]} rows, but the queries {rows[0]}"
        raise InputError(f"structure: {found}; heads that share keys cannot be pruned")
    what, right = ("values", width) if len(rows) == 3 else ("qkv", 3 * width)
    if rows[-1] != right:
        raise InputError(
            f"structure: {what} should have {right} rows, as {layer} has {width} columns, not {rows[-1]}"
        )


def _ids_by_row(units: Tensor, weight: Tensor, name: str) -> Tensor:
    """The unit of each weight, if each unit has equally many consecutive rows: int64 of the weight's shape."""
    if weight.dim() != 2 or len(weight) % len(units):
        layer = name.removesuffix(".weight")
        raise InputError(f"structure: {layer}, of {len(weight)} rows, cannot have {len(units)} equal parts")
    return units.repeat_interleave(len(weight) // len(units)).unsqueeze(1).expand(weight.shape)


def _match_linear(network: nn.Module, pattern: str) -> list[str]:
    """The names of the weights of linear layers that the pattern matches."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    matching = [name for name in layers if name == pattern] or fnmatch.filter(layers, pattern)
    if not matching:
        raise InputError(f"structure: {unknown('linear layer', pattern, layers)}")
    return [f"{name}.weight" for name in matching]
