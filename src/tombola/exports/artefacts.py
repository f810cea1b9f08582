"""Artefacts: what a ticket can be exported as. To add one, write a function here and name it in `ARTEFACTS`.

Each function writes a file, named in `FILES`, and returns what was read back from it. Only multiply-adds of graphs,
and the weights of ONNX files, are counted in the module that they were made of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from tombola.exports.benchmark import (
    BATCH_SIZES,
    Artefact,
    Predict,
    count_multiply_adds,
    count_weights,
    distinct,
    memory_bytes,
    weighted_layers,
)
from tombola.exports.compaction import compact
from tombola.exports.resizing import load_resized
from tombola.pruning.layers import Layer
from tombola.pruning.output_layers import trace_output_layers
from tombola.pruning.prunable_layers import default_layers
from tombola.tickets.ticket import Precision, Ticket
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.model_inputs import Inputs, call_checked, clone, tensors
from tombola.utils.network_copy import copy_network

FILES = {
    "ticket": "ticket.safetensors",
    "compact": "compact.safetensors",
    "exported": "compact.pt2",
    "onnx": "compact.onnx",
    "sparse": "sparse.safetensors",
    "csr": "csr.npz",
    "two-four": "two-four.safetensors",
}
"""The file of each of the `ARTEFACTS`."""


@dataclass(frozen=True)
class ExportContext:
    """What artefacts are made of."""

    ticket: Ticket
    network: nn.Module
    """The ticket's network with its trained weights: dense tensors with zeros, in evaluation mode."""
    compact: nn.Module
    """The same without its dead units."""
    example: Inputs
    """A batch of inputs."""
    folder: Path
    threads: int = 1
    precision: Precision = "fp16"
    """Of the weights in the ticket file."""
    about: dict[str, Any] | None = None
    """Metadata for the files that can hold them, as JSON values."""

    @classmethod
    def of(cls, ticket: Ticket, network: nn.Module, example: Inputs, folder: Path, **options: Any) -> ExportContext:
        """For a ticket's network with its trained weights."""
        return cls(ticket, network, compact(network, example), example, folder, **options)


def dense(context: ExportContext) -> Artefact:
    """The network in PyTorch and its checkpoint, as they would be without tombola."""
    path = context.folder / "dense.safetensors"
    state = context.network.state_dict()
    tensors = [*context.network.named_parameters(), *context.network.named_buffers()]  # shared ones once
    write_tensors(path, {name: tensor for name, tensor in tensors if name in state}, {})
    read = copy_network(context.network)
    read.load_state_dict(read_tensors(path)[0], strict=False)  # a shared tensor has only one of its names
    return _module("dense PyTorch", path, read, context)


def dense_onnx(context: ExportContext) -> Artefact:
    """The dense network in ONNX Runtime."""
    return _onnx("dense ONNX", "dense.onnx", context.network, context)


def ticket(context: ExportContext) -> Artefact:
    """The ticket file: mask, initial and trained weights. All other artefacts can be made of it."""
    path = context.folder / FILES["ticket"]
    context.ticket.save(path, trained=context.precision)
    read, kept = Ticket.load(path), context.ticket.mask.count
    if context.precision == "none":
        return _artefact("ticket", path, kept)
    network = read.into(copy_network(context.network), trained=True)
    return _artefact(f"ticket, {context.precision}", path, kept, predict=network, timed=False)


def compacted(context: ExportContext) -> Artefact:
    """The `state_dict` of an ordinary smaller module."""
    path = context.folder / FILES["compact"]
    tensors = {name: tensor.clone() for name, tensor in context.compact.state_dict().items()}  # none is shared
    load_resized(context.network, tensors)  # raises before a file is written that cannot be loaded
    write_tensors(path, tensors, context.about or {})
    return _module("compact PyTorch", path, load_compact(path, context.network, context.example), context)


def exported(context: ExportContext) -> Artefact:
    """The smaller module as a program of torch.export, which needs none of its code."""
    from tombola.exports.torch_export import read_exported, write_exported

    path = context.folder / FILES["exported"]
    write_exported(context.compact, context.example, path)
    read, done = read_exported(path), count_multiply_adds(context.compact, context.example)  # the same graph
    names = {f"{layer}.weight" if layer else "weight" for layer in weighted_layers(context.compact)}
    weights = distinct(parameter for name, parameter in read.named_parameters() if name in names)
    count = sum(weight.numel() for weight in weights)
    return _artefact("compact exported", path, count, memory_bytes(read), done, read)


def onnx(context: ExportContext) -> Artefact:
    """The smaller module in ONNX Runtime."""
    return _onnx("compact ONNX", FILES["onnx"], context.compact, context)


def sparse(context: ExportContext) -> Artefact:
    """The sparse runtime: only the kept weights."""
    from tombola.exports.runtime.network import SparseNetwork, sparse_network
    from tombola.exports.runtime.plan import UnsupportedNetwork
    from tombola.exports.runtime.steps import TracingError

    try:
        made = sparse_network(context.compact, context.example, context.threads)
    except (UnsupportedNetwork, TracingError) as error:
        raise InputError(
            f"the sparse runtime does not support this network: {error}; tombola.sparse makes single layers sparse"
        ) from error
    path = context.folder / FILES["sparse"]
    made.save(path, context.about)
    read = SparseNetwork.load(path, context.threads)
    working, done = read.working(BATCH_SIZES[-1]), read.program.multiply_adds
    return _artefact("sparse", path, read.weights, memory_bytes(read), done, read, working=working)


def csr(context: ExportContext) -> Artefact:
    """Sparse matrices as plain arrays, for any other runtime."""
    from tombola.exports.csr import read_csr, write_csr

    path = context.folder / FILES["csr"]
    write_csr(context.network, path)
    kept = sum(matrix.nnz for matrix in read_csr(path).values())
    with np.load(path) as arrays:
        memory = sum(arrays[name].nbytes for name in arrays)
    return _artefact("CSR", path, kept, memory)


def two_four(context: ExportContext) -> Artefact:
    """Two of every four weights, packed as GPUs multiply them; for masks with that structure."""
    from tombola.exports.two_four import is_two_four, read_two_four, write_two_four

    parameters = dict(context.network.named_parameters())
    if not any(
        is_two_four(parameters[name]) and kept.float().mean() > 0.4 for name, kept in context.ticket.mask.items()
    ):
        raise InputError('no layer keeps two of every four weights; search with structure = "2:4"')
    path = context.folder / FILES["two-four"]
    write_two_four(context.network, path)
    read = read_two_four(copy_network(context.network), path).float()
    weights = (parameters[name] for name in context.ticket.mask)
    stored = sum(weight.numel() // 2 if is_two_four(weight) else weight.numel() for weight in weights)
    return _artefact("2:4, fp16", path, stored, predict=read, timed=False)


ARTEFACTS: dict[str, Callable[[ExportContext], Artefact]] = {
    "ticket": ticket,
    "compact": compacted,
    "exported": exported,
    "onnx": onnx,
    "sparse": sparse,
    "csr": csr,
    "two-four": two_four,
}
"""Each function writes a file to the folder of the context; raises `InputError` if it cannot."""


def load_compact(path: str | Path, network: nn.Module, example: Inputs | None = None) -> nn.Module:
    """The smaller network in a file of `compacted`, in evaluation mode; `network` has the original architecture.

    Copies of both are run once on `example`, a batch of inputs on its device (a tensor, a tuple of positional
    arguments, or a dict of keyword arguments), to compare the shapes of outputs. Without it, only names, dtypes, the
    sizes of each layer, and the number of outputs of the output layers are checked. Raises
    `InputError` if the file is missing, damaged, of another architecture (see `load_resized`), or fails a check.
    """
    try:
        state, _ = read_tensors(Path(path))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (DamagedFile, OSError) as error:
        raise InputError(str(error)) from error
    smaller = load_resized(network, state).eval()
    if example is not None:
        _check_outputs(path, network, smaller, example)
        return smaller
    before, after = ({layer.name: layer for layer in default_layers(each)} for each in (network, smaller))
    for name in _output_layers(network, list(before.values())):
        own, found = before[name].shape[0], after[name].shape[0]
        if found != own:
            raise InputError(
                f"{path}: the output layer {before[name].label} has {found} outputs instead of {own}; if it is not "
                "the output of the network, give an example"
            )
    return smaller


def _output_layers(network: nn.Module, layers: list[Layer]) -> Iterable[str]:
    """The names of the output layers; of a network that cannot be traced, the last in the order of definition."""
    try:
        return trace_output_layers(network, layers)
    except InputError:
        return [layer.name for layer in layers[-1:]]


def _check_outputs(path: str | Path, network: nn.Module, smaller: nn.Module, example: Inputs) -> None:
    own = call_checked(copy_network(network).eval(), clone(example))
    try:
        found = call_checked(copy_network(smaller), clone(example))
    except InputError as error:
        raise InputError(f"{path}: layers do not fit each other: {error}") from error
    shapes = [[tuple(tensor.shape) for tensor in tensors(outputs)] for outputs in (found, own)]
    if shapes[0] != shapes[1]:
        said = [str(each[0]) if len(each) == 1 else str(each) for each in shapes]
        raise InputError(f"{path}: outputs have shape {said[0]} instead of {said[1]}")


def _module(name: str, path: Path, read: nn.Module, context: ExportContext) -> Artefact:
    done = count_multiply_adds(copy_network(read), context.example)  # a copy: the network may keep feature maps
    return _artefact(name, path, count_weights(read), memory_bytes(read), done, read)


def _onnx(name: str, file: str, network: nn.Module, context: ExportContext) -> Artefact:
    """Memory is that of the numbers in the file: ONNX Runtime does not tell how it holds them."""
    from tombola.exports.onnx_file import initializer_bytes, read_onnx, write_onnx

    path = context.folder / file
    write_onnx(network, context.example, path, {"tombola": json.dumps(context.about or {})})
    done, read = count_multiply_adds(network, context.example), read_onnx(path, context.threads)
    return _artefact(name, path, count_weights(network), initializer_bytes(path), done, read)


def _artefact(
    name: str,
    path: Path,
    weights: int,
    memory: int | None = None,
    multiply_adds: int | None = None,
    predict: Predict | None = None,
    **more: Any,
) -> Artefact:
    size = path.stat().st_size
    return Artefact(name, weights, size, memory, multiply_adds, predict, file=path.name, **more)
