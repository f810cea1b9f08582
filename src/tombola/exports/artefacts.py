"""Artefacts: what a ticket can be shipped as. To add one, write a function here and name it in `ARTEFACTS`.

Each writes a file, named in `FILES`, and is measured as it is read back from that file. Only multiply-adds of graphs,
and the weights of ONNX files, are counted in the module that they were made of.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.exports.compaction import compact
from tombola.exports.measuring import BATCHES, Artefact, apart, layers, memory, multiply_adds, weights
from tombola.exports.resizing import resized
from tombola.tickets.ticket import Precision, Ticket
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.text import first_line

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
class Shipment:
    """What artefacts are made of."""

    ticket: Ticket
    network: nn.Module
    """The ticket's, with its trained weights: dense tensors full of zeros; in evaluation mode."""
    compact: nn.Module
    """The same without its dead units."""
    example: Tensor
    """A batch of inputs."""
    folder: Path
    threads: int = 1
    precision: Precision = "fp16"
    """Of the weights in the ticket file."""
    about: dict[str, Any] | None = None
    """What files that can hold it say of themselves, as JSON values."""

    @classmethod
    def of(cls, ticket: Ticket, network: nn.Module, example: Tensor, folder: Path, **options: Any) -> Shipment:
        """Of a ticket's network with its trained weights."""
        return cls(ticket, network, compact(network, example), example, folder, **options)


def dense(shipment: Shipment) -> Artefact:
    """The network in PyTorch and its checkpoint, as it would be without tombola."""
    path = shipment.folder / "dense.safetensors"
    state = shipment.network.state_dict()
    tensors = [*shipment.network.named_parameters(), *shipment.network.named_buffers()]  # shared ones once
    write_tensors(path, {name: tensor for name, tensor in tensors if name in state}, {})
    read = copy.deepcopy(shipment.network)
    read.load_state_dict(read_tensors(path)[0], strict=False)  # what is shared is there under one of its names
    return _module("dense PyTorch", path, read, shipment)


def dense_onnx(shipment: Shipment) -> Artefact:
    """The same in ONNX Runtime."""
    return _onnx("dense ONNX", "dense.onnx", shipment.network, shipment)


def ticket(shipment: Shipment) -> Artefact:
    """The ticket file: mask, start, and trained weights; in training or out of it, all else can be made of it."""
    path = shipment.folder / FILES["ticket"]
    shipment.ticket.save(path, trained=shipment.precision)
    read, left = Ticket.load(path), shipment.ticket.mask.count
    if shipment.precision == "none":
        return Artefact("ticket", left, _size(path), None, None, None, file=path.name)
    network = read.into(copy.deepcopy(shipment.network), trained=True)
    name = f"ticket, {shipment.precision}"
    return Artefact(name, left, _size(path), None, None, network, timed=False, file=path.name)


def compacted(shipment: Shipment) -> Artefact:
    """A `state_dict` of an ordinary smaller module."""
    path = shipment.folder / FILES["compact"]
    tensors = {name: tensor.clone() for name, tensor in shipment.compact.state_dict().items()}  # none is shared
    resized(shipment.network, tensors)  # before there is a file that nobody could load
    write_tensors(path, tensors, shipment.about or {})
    return _module("compact PyTorch", path, load_compact(path, shipment.network, shipment.example), shipment)


def exported(shipment: Shipment) -> Artefact:
    """The smaller module as a program of torch.export, which needs none of its code."""
    from tombola.exports.torch_export import read_exported, write_exported

    path = shipment.folder / FILES["exported"]
    write_exported(shipment.compact, shipment.example, path)
    read, done = read_exported(path), multiply_adds(shipment.compact, shipment.example)  # of the same graph
    names = {f"{layer}.weight" if layer else "weight" for layer in layers(shipment.compact)}
    stored = apart(parameter for name, parameter in read.named_parameters() if name in names)
    left = sum(weight.numel() for weight in stored)
    return Artefact("compact exported", left, _size(path), memory(read), done, read, file=path.name)


def onnx(shipment: Shipment) -> Artefact:
    """The smaller module in ONNX Runtime."""
    return _onnx("compact ONNX", FILES["onnx"], shipment.compact, shipment)


def sparse(shipment: Shipment) -> Artefact:
    """The sparse runtime: only the weights left."""
    from tombola.exports.graph import Untraceable
    from tombola.exports.runtime.network import SparseNetwork, sparse_network
    from tombola.exports.runtime.plan import Unplannable

    try:
        made = sparse_network(shipment.compact, shipment.example, shipment.threads)
    except (Unplannable, Untraceable) as error:
        instead = "tombola.sparse makes single layers sparse"
        raise InputError(f"the sparse runtime has no program for this network: {error}; {instead}") from error
    path = shipment.folder / FILES["sparse"]
    made.save(path, shipment.about)
    read = SparseNetwork.load(path, shipment.threads)
    return Artefact(
        *("sparse", read.weights, _size(path), memory(read), read.program.work, read),
        file=path.name,
        working=read.working(BATCHES[-1]),
    )


def csr(shipment: Shipment) -> Artefact:
    """Sparse matrices as plain arrays, for any other runtime."""
    from tombola.exports.csr import read_csr, write_csr

    path = shipment.folder / FILES["csr"]
    write_csr(shipment.network, path)
    left = sum(matrix.nnz for matrix in read_csr(path).values())
    with np.load(path) as arrays:
        held = sum(arrays[name].nbytes for name in arrays)
    return Artefact("CSR", left, _size(path), held, None, None, file=path.name)


def two_four(shipment: Shipment) -> Artefact:
    """Two of every four weights, packed as GPUs multiply them; where the mask has that structure."""
    from tombola.exports.two_four import is_two_four, read_two_four, write_two_four

    parameters = dict(shipment.network.named_parameters())
    if not any(
        is_two_four(parameters[name]) and kept.float().mean() > 0.4 for name, kept in shipment.ticket.mask.items()
    ):
        raise InputError('no layer keeps two of every four weights; search with structure = "2:4"')
    path = shipment.folder / FILES["two-four"]
    write_two_four(shipment.network, path)
    read = read_two_four(copy.deepcopy(shipment.network), path).float()
    weights = (parameters[name] for name in shipment.ticket.mask)
    stored = sum(weight.numel() // 2 if is_two_four(weight) else weight.numel() for weight in weights)
    return Artefact("2:4, fp16", stored, _size(path), None, None, read, timed=False, file=path.name)


ARTEFACTS: dict[str, Callable[[Shipment], Artefact]] = {
    "ticket": ticket,
    "compact": compacted,
    "exported": exported,
    "onnx": onnx,
    "sparse": sparse,
    "csr": csr,
    "two-four": two_four,
}
"""Each is given the shipment, writes a file to its folder, and raises `InputError` where that cannot be done."""


def load_compact(path: str | Path, network: nn.Module, example: Tensor | None = None) -> nn.Module:
    """The smaller network in a file of `compacted`, in evaluation mode; `network` has the architecture it is made of.

    `example` is a batch of inputs that `network` takes, on its device: both are run on it once, to see that layers
    fit each other, and that outputs are of the network's own shape. Without it only names, types and what sizes each
    layer by itself may have are checked, and that the last layer gives as many outputs as the network's.

    Raises `InputError` where the file is missing, damaged, of another architecture, or of one whose sizes it does not
    tell (see `sizes.resized`), and where a check fails.
    """
    try:
        state, _ = read_tensors(Path(path))
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (DamagedFile, OSError) as error:
        raise InputError(str(error)) from error
    smaller = resized(network, state).eval()
    if example is None:
        _check_last(path, network, smaller)
    else:
        _check_run(path, network, smaller, example)
    return smaller


def _check_last(path: str | Path, network: nn.Module, smaller: nn.Module) -> None:
    """Raise `InputError` where the last layer, by order of definition, gives less than the network's."""
    for name, layer in list(layers(network).items())[-1:]:
        own, found = len(layer.weight), len(layers(smaller)[name].weight)
        if found != own:
            raise InputError(
                f"{path}: the last layer {name} gives {found} outputs, and {own} in the network; if the outputs are "
                f"another layer's, give an example"
            )


def _check_run(path: str | Path, network: nn.Module, smaller: nn.Module, example: Tensor) -> None:
    """Raise `InputError` where layers do not fit each other, or outputs are of another shape than the network's."""
    with torch.no_grad():
        try:
            own = copy.deepcopy(network).eval()(example)
        except Exception as error:  # whatever a module of the user's does
            raise InputError(
                f"this network does not take an example of {tuple(example.shape)}: {first_line(error)}"
            ) from error
        try:
            found = smaller(example)
        except Exception as error:  # the same
            raise InputError(f"{path}: layers do not fit each other: {first_line(error)}") from error
    shapes = [tuple(out.shape) if isinstance(out, Tensor) else None for out in (found, own)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{path}: outputs are {shapes[0]}, and {shapes[1]} of the network")


def _module(name: str, path: Path, read: nn.Module, shipment: Shipment) -> Artefact:
    done = multiply_adds(read, shipment.example)
    return Artefact(name, weights(read), _size(path), memory(read), done, read, file=path.name)


def _onnx(name: str, file: str, network: nn.Module, shipment: Shipment) -> Artefact:
    """What ONNX Runtime makes of the numbers in the file once it has them, it does not tell."""
    from tombola.exports.onnx_file import read_onnx, stored, write_onnx

    path = shipment.folder / file
    write_onnx(network, shipment.example, path, {"tombola": json.dumps(shipment.about or {})})
    done, answers = multiply_adds(network, shipment.example), read_onnx(path, shipment.threads)
    return Artefact(name, weights(network), _size(path), stored(path), done, answers, file=path.name)


def _size(path: Path) -> int:
    return path.stat().st_size
