"""torch.export: a network as a graph for any batch size, in a file that needs none of its code."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from tombola.exports.agreement import TOLERANCE
from tombola.exports.plain_outputs import with_plain_outputs
from tombola.pruning.hold import check_held
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.model_inputs import (
    Inputs,
    arguments,
    batch_size,
    call,
    call_checked,
    check_batch,
    is_batched,
    map_tensors,
    rows,
    scores_index,
    tensors,
)
from tombola.utils.network_copy import copy_network
from tombola.utils.text import first_line


def write_exported(network: nn.Module, example: Inputs, path: str | Path) -> float:
    """Write what `network` computes in eval mode to `path`, for batches of any size.

    `example` is a batch of inputs on the CPU, numbers as float32: a tensor, a tuple of positional arguments, or a
    dict of keyword arguments; the file takes its inputs in the same form. The outputs of the file are compared with
    the network's; the largest absolute difference is returned. Raises `InputError` if torch cannot export the
    network, or outputs differ by more than `TOLERANCE` of the largest; then nothing is written.
    """
    model = on_cpu(network)
    program, file = exported(model, example), io.BytesIO()
    try:
        with suppress_output():
            torch.export.save(program, file)
        read = _load(file.getvalue())
    except Exception as error:  # of outputs of a class that torch cannot write
        raise InputError(f"torch.export cannot write this network: {first_line(error)}") from error
    difference = largest_difference(model, read, example, "torch.export")
    with atomic_write(path) as temporary:
        temporary.write_bytes(file.getvalue())
    return difference


def read_exported(path: str | Path) -> nn.Module:
    """The network in a file of `write_exported`: a module that takes and returns the same, in eval mode.

    torch unpickles parts of such a file if the file says so: only read files you trust.
    Raises `InputError` if the file is missing, or torch cannot read it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return _load(content)
    except Exception as error:  # torch may raise anything
        raise InputError(f"{path} is damaged or not an exported program: {first_line(error)}") from error


def _load(content: bytes) -> nn.Module:
    with suppress_output():
        return torch.export.load(io.BytesIO(content)).module()


def on_cpu(network: nn.Module) -> nn.Module:
    """A copy of `network` on the CPU and in eval mode, without gradients, that returns its `plain` outputs. Raises
    `InputError` if a held weight that is pruned is not zero."""
    check_held(network)
    return with_plain_outputs(copy_network(network).cpu().eval().requires_grad_(False))


def exported(model: nn.Module, example: Inputs) -> ExportedProgram:
    """What `model` (of `on_cpu`) computes as a graph for any batch size. Raises `InputError` if torch cannot."""
    check_example(model, example)
    # Two examples, because torch takes a batch of one for a constant; zeros, because torch writes them to the file.
    positional, named = arguments(map_tensors(torch.zeros_like, rows(example, [0, 0])))
    try:
        shapes = _dynamic_shapes(inspect.signature(model.forward).bind(*positional, **named).arguments)
        with suppress_output():
            return torch.export.export(model, positional, named, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise InputError(
            f"torch.export cannot export this network for any batch size: {first_line(error)}"
        ) from error


def _dynamic_shapes(given: dict[str, Any]) -> Any:
    """The axes of each argument of a forward pass that have any size: the batch's, of two examples here."""
    batch = Dim("batch")

    def axes(leaf: Any) -> dict[int, Dim] | None:
        return {0: batch} if isinstance(leaf, Tensor) and is_batched(leaf, 2) else None

    return pytree.tree_map(axes, dict(given))


def check_example(model: nn.Module, example: Inputs) -> None:
    """Raise `InputError` unless `example` is a batch on the CPU, and `model` returns a row for each example."""
    check_batch(example, "example:")
    outputs = call_checked(model, example)
    if scores_index(outputs, batch_size(example)) is None:
        what = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"the network should return tensors with a row for each example, not {what}")


@torch.no_grad()
def largest_difference(model: nn.Module, other: Callable[..., Any], example: Inputs, name: str) -> float:
    """The largest absolute difference of the outputs of `model` and `other`, for one, two and all of `example`.
    Raises `InputError` if it is more than `TOLERANCE` times the largest output, or shapes differ.
    """
    largest = 0.0
    for batch in (rows(example, [0]), rows(example, [0, 0]), example):
        size, expected = batch_size(batch), [*tensors(call(model, batch))]
        try:
            outputs = [*tensors(call(other, batch))]
        except Exception as error:
            raise InputError(f"{name} cannot take a batch of {size}: {first_line(error)}") from error
        if len(outputs) != len(expected):
            raise InputError(f"{name} returns {len(outputs)} tensors, but PyTorch {len(expected)}")
        for one, another in zip(expected, outputs, strict=True):
            largest = max(largest, _difference(one, another, name, size))
    return largest


def _difference(expected: Tensor, outputs: Tensor, name: str, size: int) -> float:
    """The largest difference of one output for a batch of this size. Raises `InputError` if it is too large."""
    if not expected.isfinite().all():
        raise InputError(
            f"the outputs of PyTorch are not finite for a batch of {size}, so they cannot be compared with those of "
            f"{name}: nothing was written"
        )
    if outputs.shape != expected.shape:
        difference = torch.inf
    else:
        wide = torch.complex128 if expected.is_complex() else torch.float64
        difference = (expected.to(wide) - outputs.to(wide)).abs().amax().item() if expected.numel() else 0.0
    scale = expected.abs().max().item() if expected.numel() and expected.dtype != torch.bool else 1.0
    if not difference <= TOLERANCE * scale:  # true for NaN
        raise InputError(
            f"{name} and PyTorch differ by {difference:.1g} for a batch of {size}, with outputs up to {scale:.1g}: "
            "nothing was written; is the forward pass random?"
        )
    return difference


@contextlib.contextmanager
def suppress_output() -> Iterator[None]:
    """Suppress logs, warnings and prints of this process: torch's exporters produce many."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
