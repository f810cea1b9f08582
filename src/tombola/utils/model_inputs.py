"""Inputs and outputs of a network: a tensor, or several in a tuple or dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tombola.utils.errors import InputError
from tombola.utils.random_state import seeded
from tombola.utils.text import first_line

Inputs = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""A batch of examples as a network takes it: a tensor, a tuple of positional arguments, or a dict of keyword
arguments. Tensors are batched along their first axis; other arguments are passed on."""


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments of a network. Raises `InputError` for other inputs."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, tuple):
        return tuple(inputs), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    raise InputError(
        "example: should be a tensor, a tuple of positional arguments or a dict of keyword arguments, "
        f"not {type(inputs).__name__}"
    )


def call(network: Callable[..., Any], inputs: Inputs) -> Any:
    """What `network` returns for `inputs`."""
    positional, named = arguments(inputs)
    return network(*positional, **named)


@torch.no_grad()
def call_checked(network: Callable[..., Any], inputs: Inputs) -> Any:
    """The same without gradients and without a change of random states. Raises `InputError` if the network does not
    take these inputs."""
    try:
        with seeded(0):
            return call(network, inputs)
    except InputError:
        raise
    except Exception as error:  # a user's module may raise anything
        shapes = map_tensors(lambda tensor: tuple(tensor.shape), inputs)
        raise InputError(f"this network does not take an example of {shapes}: {first_line(error)}") from error


def map_tensors(function: Callable[[Tensor], Any], inputs: Inputs) -> Any:
    """`inputs` with `function` applied to every tensor."""
    nested = dict(inputs) if isinstance(inputs, Mapping) else inputs
    return pytree.tree_map_only(Tensor, function, nested)


def tensors(values: Any) -> Iterator[Tensor]:
    """The tensors in inputs or outputs, in their order."""
    for leaf in pytree.tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):  # of a class that torch does not know
            yield from tensors(list(leaf.values()))
        elif is_dataclass(leaf):
            yield from tensors([getattr(leaf, field.name) for field in fields(leaf)])


def batch_size(inputs: Inputs) -> int:
    """The number of examples: the first axis of the first tensor. Raises `InputError` if there is none."""
    arguments(inputs)
    for tensor in tensors(inputs):
        if tensor.dim():
            return len(tensor)
    raise InputError("example: has no tensor with a batch axis")


def map_batched(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Any:
    """`inputs` with `function` applied to every tensor that has a row for each example."""
    count = batch_size(inputs)
    return map_tensors(lambda tensor: function(tensor) if is_batched(tensor, count) else tensor, inputs)


def is_batched(tensor: Tensor, count: int) -> bool:
    """Whether a tensor has a row for each of `count` examples."""
    return tensor.dim() > 0 and len(tensor) == count


def rows(inputs: Inputs, which: slice | Tensor | list[int]) -> Any:
    """The examples of these indices, contiguous."""
    return map_batched(lambda tensor: tensor[which].contiguous(), inputs)


def batches_like(inputs: Inputs) -> Iterator[Any]:
    """Batches of as many examples, of two and of one. Numbers are normally distributed; integers, which may be
    indices, are those of rows of `inputs`. They are the same in each call."""
    count, generator = batch_size(inputs), torch.Generator().manual_seed(0)
    for size in sorted({count, 2, 1} - {0}):
        yield map_batched(lambda tensor, size=size: _like(tensor, size, generator), inputs)  # type: ignore[misc]


def _like(tensor: Tensor, size: int, generator: torch.Generator) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        wide = torch.complex64 if tensor.is_complex() else torch.promote_types(tensor.dtype, torch.float32)
        return torch.randn(size, *tensor.shape[1:], dtype=wide, generator=generator).to(tensor)
    if not len(tensor):
        return tensor.new_zeros(size, *tensor.shape[1:])
    return tensor[torch.randint(len(tensor), (size,), generator=generator).to(tensor.device)]


def scores_index(outputs: Any, count: int) -> int | None:
    """Which of the `tensors` in the outputs for `count` examples has the class scores: that of the name `logits`,
    otherwise the first with a row for each example; None if there is none."""
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    batched = [index for index, tensor in enumerate(tensors(outputs)) if is_batched(tensor, count)]
    named = [index for index, tensor in enumerate(tensors(outputs)) if tensor is logits and index in batched]
    return next(iter((*named, *batched)), None)


def check_batch(inputs: Inputs, name: str) -> None:
    """Raise `InputError` unless `inputs` are at least one example on the CPU, numbers as float32, all tensors with
    the same first axis."""
    count = batch_size(inputs)
    for tensor in tensors(inputs):
        number = tensor.is_floating_point() or tensor.is_complex()
        if (number and tensor.dtype != torch.float32) or tensor.device.type != "cpu":
            raise InputError(f"{name} should be torch.float32 on the CPU, not {tensor.dtype} on {tensor.device}")
        lone = isinstance(inputs, Tensor) and number
        if tensor.dim() < 1 + lone or not tensor.numel():
            raise InputError(f"{name} should be (N, *inputs), not {tuple(tensor.shape)}")
        if len(tensor) != count:
            raise InputError(f"{name} has {count} rows in one tensor, but {len(tensor)} in another")


def describe(inputs: Inputs) -> str:
    """The types and shapes of a batch, such as `float32 (N, 6)`, by name if there are several."""
    if isinstance(inputs, Tensor):
        return f"{str(inputs.dtype).removeprefix('torch.')} ({', '.join(['N', *map(str, inputs.shape[1:])])})"
    named = dict(inputs) if isinstance(inputs, Mapping) else dict(enumerate(inputs))
    parts = [(name, [*tensors(value)]) for name, value in named.items()]
    return "; ".join(f"{name}: {', '.join(map(describe, found))}" for name, found in parts if found)


def clone(inputs: Inputs) -> Any:
    """A copy that a network may change in place."""
    return map_tensors(Tensor.clone, inputs)


def to_device_of(network: nn.Module, inputs: Inputs) -> Any:
    """`inputs` on the device of the network's first parameter."""
    device = next((parameter.device for parameter in network.parameters()), None)
    return inputs if device is None else map_tensors(lambda tensor: tensor.to(device), inputs)
