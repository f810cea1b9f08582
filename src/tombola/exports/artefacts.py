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

from tombola.exports.artefact_files import FILES
from tombola.exports.benchmark import (
    BATCH_SIZES,
    Artefact,
    Predict,
    count_multiply_adds,
    count_weights,
    distinct,
    memory_bytes,
)
from tombola.exports.compaction import compact
from tombola.exports.examples import Examples
from tombola.exports.resizing import load_resized
from tombola.pruning.layers import Layer
from tombola.pruning.output_layers import trace_output_layers
from tombola.pruning.prunable_layers import default_layers
from tombola.tickets.precision import Precision
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.model_inputs import Inputs, call_checked, clone, tensors
from tombola.utils.network_copy import copy_network


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
    calibration: Examples | None = None
    """What the ranges of int8 are measured on."""
    calibration_given: bool = False
    """The user gave it, so int8 without it would not be what was asked for."""
    about: dict[str, Any] | None = None
    """Metadata for the files that can hold them, as JSON values."""

    @classmethod
    def of(cls, ticket: Ticket, network: nn.Module, example: Inputs, folder: Path, **options: Any) -> ExportContext:
        """For a ticket's network with its trained weights."""
        return cls(ticket, network, compact(network, example), example, folder, **options)


def dense(context: ExportContext) -> Artefact:
    """The ticket's weights stored densely, zeros included: in PyTorch, as they would be without tombola."""
    path = context.folder / "dense.safetensors"
    return _module("ticket, dense PyTorch", path, _stored(context.network, path), context)


def dense_onnx(context: ExportContext) -> Artefact:
    """The same in ONNX Runtime."""
    return _onnx("ticket, dense ONNX", "dense.onnx", context.network, context)


def dense_on_gpu(context: ExportContext) -> Artefact:
    """The same in float16 on the GPU, which 2:4 weights are compared with there."""
    from tombola.exports.two_four import in_half

    path = context.folder / "dense-fp16.safetensors"
    read = _stored(copy_network(context.network).half(), path)
    done, memory = count_multiply_adds(context.network, context.example), memory_bytes(read)
    predict = in_half(read.to("cuda"))
    return _artefact("ticket, dense fp16, GPU", path, count_weights(read), memory, done, predict, device="cuda")


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
    names = {layer.parameter for layer in default_layers(context.compact)}
    weights = distinct(parameter for name, parameter in read.named_parameters() if name in names)
    count = sum(weight.numel() for weight in weights)
    return _artefact("compact exported", path, count, memory_bytes(read), done, read)


def onnx(context: ExportContext) -> Artefact:
    """The smaller module in ONNX Runtime."""
    return _onnx("compact ONNX", FILES["onnx"], context.compact, context)


def int8(context: ExportContext) -> Artefact:
    """The smaller module in ONNX Runtime, its weights in 8 bits."""
    from tombola.exports.int8 import quantise
    from tombola.exports.onnx_file import initializer_bytes, read_onnx

    path, whole = context.folder / FILES["int8"], context.folder / FILES["onnx"]
    if not whole.exists():
        whole = context.folder / "float32.onnx"  # not kept
        _write_onnx(context.compact, whole, context)
    note = quantise(whole, path, context.example, context.calibration, must_calibrate=context.calibration_given)
    weights, done = count_weights(context.compact), count_multiply_adds(context.compact, context.example)
    read = read_onnx(path, context.threads)
    return _artefact("compact int8", path, weights, initializer_bytes(path), done, read, note=note)


def sparse(context: ExportContext) -> Artefact:
    """The sparse runtime: only the kept weights."""
    from tombola.exports.runtime.network import SparseNetwork, sparse_network
    from tombola.kernels.plans.plan import UnsupportedNetwork
    from tombola.kernels.plans.steps import TracingError

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
    kept, layers = sum(matrix.nnz for matrix in read_csr(path).values()), default_layers(context.network)
    with np.load(path) as arrays:
        memory = sum(arrays[name].nbytes for name in arrays)
        whole = sum(arrays[name].size for name in {layer.parameter for layer in layers} & {*arrays})
    return _artefact("CSR", path, kept + whole, memory)


def two_four(context: ExportContext) -> Artefact:
    """Two of every four weights, packed; for masks with that structure. Run by sparse kernels where a GPU has them,
    otherwise by dense ones, and not timed."""
    from tombola.exports.two_four import in_half, is_two_four, read_two_four, semi_structured, write_two_four

    parameters = dict(context.network.named_parameters())
    if not any(
        is_two_four(parameters[name]) and kept.float().mean() > 0.4 for name, kept in context.ticket.mask.items()
    ):
        raise InputError('no layer keeps two of every four weights; search with structure = "2:4"')
    path = context.folder / FILES["two-four"]
    write_two_four(context.network, path)
    read = read_two_four(copy_network(context.network), path)
    tensors, _ = read_tensors(path)
    parts = (tensors.get(f"values/{name}", tensors.get(f"whole/{name}")) for name in context.ticket.mask)
    stored = sum(part.numel() for part in parts if part is not None)
    try:
        predict = in_half(semi_structured(read))
        call_checked(predict, clone(context.example))
    except InputError as error:
        return _artefact("2:4, fp16", path, stored, predict=read, timed=False, note=f"not timed: {error}")
    return _artefact("2:4, fp16, GPU", path, stored, predict=predict, device="cuda")


ARTEFACTS: dict[str, Callable[[ExportContext], Artefact]] = {
    "ticket": ticket,
    "compact": compacted,
    "exported": exported,
    "onnx": onnx,
    "int8": int8,
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


def _stored(network: nn.Module, path: Path) -> nn.Module:
    """A copy of `network` with its weights as read from a file that they are written to."""
    state = network.state_dict()
    tensors = [*network.named_parameters(), *network.named_buffers()]  # shared ones once
    write_tensors(path, {name: tensor for name, tensor in tensors if name in state}, {})
    read = copy_network(network)
    read.load_state_dict(read_tensors(path)[0], strict=False)  # a shared tensor has only one of its names
    return read


def _onnx(name: str, file: str, network: nn.Module, context: ExportContext) -> Artefact:
    """Memory is that of the numbers in the file: ONNX Runtime does not tell how it holds them."""
    from tombola.exports.onnx_file import initializer_bytes, read_onnx

    path = context.folder / file
    _write_onnx(network, path, context)
    done, read = count_multiply_adds(network, context.example), read_onnx(path, context.threads)
    return _artefact(name, path, count_weights(network), initializer_bytes(path), done, read)


def _write_onnx(network: nn.Module, path: Path, context: ExportContext) -> None:
    from tombola.exports.onnx_file import write_onnx

    write_onnx(network, context.example, path, {"tombola": json.dumps(context.about or {})})


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
