"""Attention heads."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.pruning.structures.unit_structure import NONE, UnitStructure
from tombola.utils.errors import InputError, unknown


@dataclass(frozen=True)
class Heads:
    """Which layers make attention, and of how many heads. Names of layers or patterns (`encoder.*.query`); a pattern
    that matches several layers describes as many attentions, matched in the network's order.

    >>> Heads(12, query="*.self.query", key="*.self.key", value="*.self.value", output="*.attention.output.dense")
    ... # doctest: +ELLIPSIS
    Heads(...)
    """

    count: int
    """How many heads an attention has."""
    output: str
    """The projection that heads are joined by: [width, heads × d]."""
    query: str | None = None
    """The projection to queries: [heads × d, width]; so for keys and values."""
    key: str | None = None
    value: str | None = None
    qkv: str | None = None
    """Instead of these three: one projection to all of them, [3 × heads × d, width]."""

    def __call__(self, network: nn.Module) -> UnitStructure:
        """Each head's rows of the projections to queries, keys and values, and its columns of the output projection
        (Michel et al. 2019, section 2). Raises `InputError` for names that match no layer, or layers of other shapes,
        as those of grouped-query attention are.
        """
        given = [self.query, self.key, self.value] if self.qkv is None else [self.qkv]
        if None in given:
            raise InputError("structure: heads have a query, a key and a value, or qkv for all of them")
        inward = [_layers(network, pattern) for pattern in given if pattern is not None]
        outward = _layers(network, self.output)
        if any(len(layers) != len(outward) for layers in inward):
            raise InputError(
                f"structure: {', '.join(map(str, given))} and {self.output} match different numbers of layers"
            )
        parameters = dict(network.named_parameters())
        ids: dict[str, Tensor] = {}
        for index, (output, *projections) in enumerate(zip(outward, *inward, strict=True)):
            heads = index * self.count + torch.arange(self.count)
            ids[output] = _spread(heads, parameters[output].t(), output).t()
            _check(parameters[output], [parameters[name] for name in projections], output)
            for name in projections:
                ids[name] = _spread(heads.repeat(3) if self.qkv else heads, parameters[name], name)
        order = list(parameters)
        return UnitStructure({name: ids[name] for name in sorted(ids, key=order.index)}, "heads")


def heads(network: nn.Module) -> UnitStructure:
    """The heads of every module that has linear layers `qkv` and `proj`, and their number in `heads` or `num_heads`:
    those of the `vit` here and of timm's. Raises `InputError` where there is none; then `Heads` says where they are.
    """
    found: dict[str, Tensor] = {}
    first = 0
    for name, module in network.named_modules():
        count = getattr(module, "heads", getattr(module, "num_heads", None))
        parts = [getattr(module, part, None) for part in ("qkv", "proj")]
        if isinstance(count, int) and all(isinstance(part, nn.Linear) for part in parts):
            prefix = f"{name}." if name else ""
            units = Heads(count, output=f"{prefix}proj", qkv=f"{prefix}qkv")(network)
            found |= {layer: torch.where(ids == NONE, NONE, ids + first) for layer, ids in units.ids.items()}
            first += count
    if not found:
        raise InputError(
            "structure: there is no attention module with layers qkv and proj; give "
            "tombola.pruning.structures.Heads the names of its layers"
        )
    return UnitStructure(found, "heads")


def _check(output: Tensor, projections: list[Tensor], name: str) -> None:
    """Refuse attention whose heads do not each have rows of their own in all projections: grouped queries, say."""
    layer, width, rows = name.removesuffix(".weight"), output.shape[1], [len(weight) for weight in projections]
    if len(rows) == 3 and rows[0] != rows[1]:
        raise InputError(
            f"structure: beside {layer} keys have other heads than queries, {rows[1]} rows and {rows[0]}; "
            "heads that share keys cannot be pruned"
        )
    if (rows[2] if len(rows) == 3 else rows[0] / 3) != width:
        what = "values have" if len(rows) == 3 else "qkv, for three parts alike, has"
        raise InputError(f"structure: {what} {rows[-1]} rows, which do not fit the {width} columns of {layer}")


def _spread(units: Tensor, weight: Tensor, name: str) -> Tensor:
    """Rows of a weight shared out among units, as many to each: int64 of its shape."""
    if weight.dim() != 2 or len(weight) % len(units):
        layer = name.removesuffix(".weight")
        raise InputError(f"structure: {layer}, of {len(weight)} rows, is not made of {len(units)} equal parts")
    return units.repeat_interleave(len(weight) // len(units)).unsqueeze(1).expand(weight.shape)


def _layers(network: nn.Module, pattern: str) -> list[str]:
    """The weights of linear layers of this name or pattern."""
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    matching = [name for name in layers if name == pattern] or fnmatch.filter(layers, pattern)
    if not matching:
        raise InputError(f"structure: {unknown('linear layer', pattern, layers)}")
    return [f"{name}.weight" for name in matching]
