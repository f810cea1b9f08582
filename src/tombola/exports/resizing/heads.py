"""The attributes of attention modules that are made of linear layers, when they lose whole heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
"""Names under which modules keep their number of heads; the shapes of queries, keys and values depend on it."""
SIZES = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim", "dim_head")
"""Names under which modules keep the number of entries of one head."""
WIDTHS = ("all_head_size", "split_size", "inner_dim", "attn_dim")
"""Names under which modules keep the number of entries of all heads together."""
SHARED = "num_key_value_groups"
"""The name under which modules keep how many heads share keys and values."""


def head_attributes(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The attributes that say how many heads an attention module has when its weights get these shapes.

    `shapes` are those of all tensors in it, by name. None if its projections would lose parts of a head. A module
    without heads has no such attributes, and of modules with heads only the innermost count.
    """
    if not _has_heads(module) or any(_has_heads(inside) for inside in module.modules() if inside is not module):
        return {}
    projections = list(_outputs(module, shapes))
    heads, width = _heads_and_width(module)
    queries = next(((a, b) for a, b in projections if heads and a in (width, 2 * width, 3 * width)), None)
    if queries is None:
        return {}
    before, after = queries
    if heads * after % before:
        return None
    kept, new_width = heads * after // before, width * after // before
    attributes = {name: kept for name in COUNTS if getattr(module, name, None) == heads}
    attributes |= {name: new_width for name in WIDTHS if getattr(module, name, None) == width}
    keys = _heads_of_keys(module, projections, heads, width // heads)
    if keys is None:
        return attributes
    if not keys or kept % keys:
        return None
    attributes |= {"num_key_value_heads": keys} if hasattr(module, "num_key_value_heads") else {}
    return attributes | {SHARED: kept // keys}


def _heads_of_keys(module: nn.Module, projections: list[tuple[int, int]], heads: int, size: int) -> int | None:
    """How many heads keys and values have now, if fewer than queries (grouped-query attention)."""
    groups = getattr(module, SHARED, 1)
    former = heads // groups * size
    return None if groups == 1 else next((after // size for before, after in projections if before == former), None)


def _has_heads(module: nn.Module) -> bool:
    return _attribute(module, (*COUNTS, SHARED)) is not None


def _attribute(module: nn.Module, names: tuple[str, ...]) -> str | None:
    values = ((name, getattr(module, name, None)) for name in names)
    return next((name for name, value in values if type(value) is int and value > 0), None)


def _heads_and_width(module: nn.Module) -> tuple[int, int]:
    """The number of heads, and of the entries of all together, which the last projection reads. Zeros if unknown."""
    count, size = _attribute(module, COUNTS), _attribute(module, SIZES)
    if count is not None and size is not None:
        return getattr(module, count), getattr(module, count) * getattr(module, size)
    linear = [one for one in module.modules() if isinstance(one, nn.Linear)]
    width = linear[-1].in_features if 0 < len(linear) <= 4 else 0  # of more, some are not attention's
    heads = getattr(module, count) if count is not None else width // getattr(module, size) if size is not None else 0
    return (heads, width) if heads and width % heads == 0 else (0, 0)


def _outputs(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    """The outputs of each linear layer in a module, before and after, in the order of definition."""
    for path, inside in module.named_modules():
        if isinstance(getattr(inside, "weight", None), Tensor) and f"{path}.weight" in shapes:
            if isinstance(inside, nn.Linear):
                yield inside.out_features, shapes[f"{path}.weight"][0]
            elif type(inside).__name__ == "Conv1D":
                yield int(inside.nf), shapes[f"{path}.weight"][1]
