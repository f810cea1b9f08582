"""torch.export: a network as a graph for any batch size, in a file that needs none of its code."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tombola.exports.compaction import TOLERANCE
from tombola.pruning.hold import check_held
from tombola.utils.errors import InputError
from tombola.utils.files import atomic_write
from tombola.utils.text import first_line


def write_exported(network: nn.Module, example: Tensor, path: str | Path) -> float:
    """Write what `network` computes in eval mode to `path`, for batches of any size.

    `example` is a batch of inputs, float32 on the CPU. The outputs of the file are compared with the network's; the
    largest absolute difference is returned. Raises `InputError` if torch cannot export the network, or outputs differ
    by more than `TOLERANCE` of the largest; then nothing is written.
    """
    model = on_cpu(network)
    file = io.BytesIO()
    with suppress_output():
        torch.export.save(exported(model, example), file)
    difference = largest_difference(model, _load(file.getvalue()), example, "torch.export")
    with atomic_write(path) as temporary:
        temporary.write_bytes(file.getvalue())
    return difference


def read_exported(path: str | Path) -> nn.Module:
    """The network in a file of `write_exported`: a module that maps a batch of inputs to outputs, in eval mode.

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
    """A copy of `network` on the CPU and in eval mode, without gradients. Raises `InputError` if a held weight that
    is pruned is not zero."""
    check_held(network)
    return copy.deepcopy(network).cpu().eval().requires_grad_(False)


def exported(model: nn.Module, example: Tensor) -> ExportedProgram:
    """What `model` (of `on_cpu`) computes as a graph for any batch size. Raises `InputError` if torch cannot."""
    check_example(model, example)
    # Two examples, because torch takes a batch of one for a constant; zeros, because torch writes them to the file.
    batch = torch.zeros(2, *example.shape[1:])
    try:
        with suppress_output():
            return torch.export.export(model, (batch,), dynamic_shapes=({0: Dim("batch")},), strict=False)
    except Exception as error:
        raise InputError(
            f"torch.export cannot export this network for any batch size: {first_line(error)}"
        ) from error


def check_example(model: nn.Module, example: Tensor) -> None:
    """Raise `InputError` unless `example` is a batch, and `model` returns one tensor with a row for each example."""
    if example.dim() < 2 or not len(example) or example.dtype != torch.float32 or example.device.type != "cpu":
        what = f"{tuple(example.shape)}, {example.dtype} on {example.device}"
        raise InputError(f"example: should be a batch of inputs, float32 on the CPU, not {what}")
    try:
        with torch.no_grad():
            outputs = model(example)
    except Exception as error:
        raise InputError(
            f"this network does not take an example of {tuple(example.shape)}: {first_line(error)}"
        ) from error
    if not isinstance(outputs, Tensor) or not outputs.numel() or outputs.dim() == 0 or len(outputs) != len(example):
        what = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InputError(f"the network should return one tensor with a row for each example, not {what}")


def largest_difference(model: nn.Module, other: Callable[[Tensor], Tensor], example: Tensor, name: str) -> float:
    """The largest absolute difference of the outputs of `model` and `other`, for one, two and all of `example`.
    Raises `InputError` if it is more than `TOLERANCE` times the largest output, or shapes differ.
    """
    largest = 0.0
    for batch in (example[:1], example[:1].expand(2, *example.shape[1:]).contiguous(), example):
        with torch.no_grad():
            expected = model(batch)
            try:
                outputs = other(batch)
            except Exception as error:
                raise InputError(f"{name} cannot take a batch of {len(batch)}: {first_line(error)}") from error
        if not expected.isfinite().all():
            raise InputError(
                f"the outputs of PyTorch are not finite for a batch of {len(batch)}, so they cannot be compared with "
                f"those of {name}: nothing was written"
            )
        same = outputs.shape == expected.shape
        difference = (expected - outputs).abs().max().item() if same else torch.inf
        scale = expected.abs().max().item()
        if not difference <= TOLERANCE * scale:  # true for NaN
            raise InputError(
                f"{name} and PyTorch differ by {difference:.1g} for a batch of {len(batch)}, with outputs up to "
                f"{scale:.1g}: nothing was written; is the forward pass random?"
            )
        largest = max(largest, difference)
    return largest


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
