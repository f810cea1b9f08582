"""The ticket file: what a ticket is as tensors, and back; docs/ticket-file.md has the format.

A file may come from anybody. What it claims is checked before anything is made of it: how many weights, of what
shapes, with what names. Nothing that it names is imported, and its JSON is unpacked up to a limit.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from tombola.pruning.mask import Mask, State
from tombola.runs import sparse_state as packing
from tombola.tickets.mask_codec import decode, encode
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors
from tombola.zoo.models.description import Start

FORMAT = 2
"""The version of the file format. Files of version 1 can be read."""

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What trained weights are stored in."""

MOST_BYTES = 2**32
"""Of a file."""
MOST_HEADER = 2**24
"""Bytes of the safetensors header."""
MOST_RECORD = 2**20
"""Bytes of the record, as JSON: provenance included."""
DEEPEST = 64
"""How deep lists and objects are nested in it."""
MOST_WEIGHTS = 2**30
"""That can be pruned, kept or not."""
WEIGHTS_IN_ANY = 2**25
"""So many of them may be in a file of any size: initial weights that are drawn take no room in it, and nor do the
masks of layers that are kept whole."""
WEIGHTS_PER_BYTE = 2**10
"""And so many more for each byte of its tensors. Random masks have as many at a density of 0.06%."""
MOST_LAYERS = 2**11
MOST_NAMES = 2**16
MOST_AXES = 8
LONGEST_NAME = 512


@dataclass
class Parts:
    """What a ticket file holds. Of `start` and `digest` one is None."""

    mask: Mask
    start: State | None
    """The weights it starts from, where they are there by value."""
    digest: str | None
    """What stands for them, where they are drawn."""
    drawn: Start | None
    trained: State | None
    precision: str
    """Of `trained`, as in `PRECISIONS`; `none` where there are none."""
    provenance: dict[str, Any]
    format: int = FORMAT


def values(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """A state without what is pruned: of masked layers the weights that are left, in row-major order."""
    # Copied, because tensors in one file may not share memory, and layers may share weights.
    return {name: (t[mask[name]] if name in mask else t.clone()).detach().cpu() for name, t in state.items()}


def to_tensors(parts: Parts) -> dict[str, Tensor]:
    """A ticket as the tensors of its file.

    Raises `InputError` for a ticket that no file can hold: too large, or with names that parameters cannot have.
    """
    codes = {name: encode(kept.reshape(-1).numpy()) for name, kept in parts.mask.items()}
    record = {
        "mask": [[n, list(k.shape), int(k.sum()), len(codes[n])] for n, k in parts.mask.items()],
        "names": list(next((state for state in (parts.start, parts.trained) if state is not None), [])),
        "start": parts.digest,
        "drawn": parts.drawn and parts.drawn.model_dump(mode="json", exclude_defaults=True),
        "trained": parts.precision,
        "provenance": parts.provenance,
    }
    text = json.dumps(record, separators=(",", ":")).encode()
    if len(text) > MOST_RECORD:
        raise InputError(f"the ticket's provenance is too long: {len(text):,} bytes of {MOST_RECORD:,}")
    tensors = {"record": _bytes(zlib.compress(text, 9)), "mask": _bytes(b"".join(codes.values()))}
    if parts.start is not None:
        tensors |= {f"start/{name}": tensor for name, tensor in values(parts.start, parts.mask).items()}
    if parts.trained is not None:
        dtype = PRECISIONS[parts.precision]
        for name, tensor in values(parts.trained, parts.mask).items():
            tensors[f"trained/{name}"] = _rounded(name, tensor, dtype) if tensor.is_floating_point() else tensor
    try:
        from_tensors(tensors)  # what is written can be read
    except DamagedFile as error:
        raise InputError(f"this ticket cannot be saved: {error}") from error
    return tensors


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)


def _rounded(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = tensor.to(dtype)
    if bool((rounded.isinf() & tensor.isfinite()).any()):
        kind = next(kind for kind, of in PRECISIONS.items() if of == dtype)
        raise InputError(f'trained: {name} has numbers that {kind} cannot hold; should be "bf16" or "fp32"')
    return rounded


def read(path: Path) -> tuple[Parts, int]:
    """What is in a ticket file, and how many bytes it has.

    Raises `FileNotFoundError`, or `DamagedFile` for anything that is no whole ticket of a format known here.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size > MOST_BYTES:
        raise DamagedFile(f"{path} is too large for a ticket: {size:,} bytes, where {MOST_BYTES:,} are possible")
    if MOST_HEADER < header <= size - 8:
        raise DamagedFile(f"{path} is no ticket: its header has {header:,} bytes, where {MOST_HEADER:,} are possible")
    tensors, about = read_tensors(path)
    version = about.get("format")
    if type(version) is not int or version < 1:
        raise DamagedFile(f"{path} is not a ticket of a format this version reads")
    if version > FORMAT:
        raise DamagedFile(f"{path} was written by a newer tombola; this one reads tickets up to format {FORMAT}")
    try:
        return _from_format_1(tensors, about) if version == 1 else from_tensors(tensors), size
    except DamagedFile as error:
        raise DamagedFile(f"{path} is no ticket: {error}") from error


def from_tensors(tensors: dict[str, Tensor]) -> Parts:
    """The ticket in the tensors of a file. Raises `DamagedFile` where they are none."""
    record = _record(_code(tensors, "record"))
    mask = _mask(record["mask"], _code(tensors, "mask"), sum(tensor.nbytes for tensor in tensors.values()))
    names, digest, precision = record["names"], record["start"], record["trained"]
    _require(isinstance(names, list) and len(names) <= MOST_NAMES, "its list of names is none")
    _require_names(names)
    _require(digest is None or (isinstance(digest, str) and len(digest) == 64), "the digest of its start is none")
    _require(precision in ["none", *PRECISIONS], "the precision of its trained weights is none")
    kinds = [kind for kind, there in (("start", digest is None), ("trained", precision != "none")) if there]
    _require(bool(names) == bool(kinds) and (not names or mask.keys() <= set(names)), "its names do not agree")
    _require(
        tensors.keys() == {"record", "mask", *(f"{kind}/{name}" for kind in kinds for name in names)},
        "its tensors are not those that its record names",
    )
    start, trained = (
        _spread({name: tensors[f"{kind}/{name}"] for name in names}, mask) if kind in kinds else None
        for kind in ("start", "trained")
    )
    if trained is not None:
        dtypes = {tensor.dtype for tensor in trained.values() if tensor.is_floating_point()}
        _require(dtypes <= {PRECISIONS[precision]}, "its trained weights are not of the precision that it says")
        trained = {name: t.float() if t.is_floating_point() else t for name, t in trained.items()}
    drawn = None if record["drawn"] is None else _described(record["drawn"])
    _require(digest is None or drawn is not None, "its start is neither there nor described")
    _require(isinstance(record["provenance"], dict), "its provenance is none")
    return Parts(mask, start, digest, drawn, trained, precision, record["provenance"])


def _from_format_1(tensors: dict[str, Tensor], about: dict[str, Any]) -> Parts:
    """Version 1: weights by value, masks a bit for each weight, provenance in the header."""
    provenance = about.get("provenance")
    _require(isinstance(provenance, dict) and _shallow(provenance), "its provenance is none")
    by_kind: dict[str, set[str]] = {"mask": set(), "shape": set(), "kept": set(), "whole": set()}
    for entry in tensors:
        kind, slash, name = entry.partition("/")
        _require(kind in by_kind and bool(slash), "it has tensors that no ticket has")
        by_kind[kind].add(name)
    masked = by_kind["mask"]
    _require(masked == by_kind["shape"] == by_kind["kept"] and not masked & by_kind["whole"], "a part is missing")
    _require_names([*masked, *by_kind["whole"]])
    weights = 0
    for name in masked:
        shape, bits = tensors[f"shape/{name}"], tensors[f"mask/{name}"]
        _require(shape.dtype == torch.int64 and shape.dim() == 1 and bits.dtype == torch.uint8, "a type is wrong")
        size = _size(shape.tolist())
        weights += size
        _require(bits.numel() == (size + 7) // 8, "a mask has a wrong length")
        _require(size % 8 == 0 or int(bits[-1]) & (1 << -size % 8) - 1 == 0, "a mask has bits that mean nothing")
    _require(weights > 0, "it has no weights that can be pruned")
    state, mask = packing.unpack(tensors)
    assert isinstance(provenance, dict)
    run = provenance.get("run")
    try:
        drawn = _described(run.get("start")) if isinstance(run, dict) else None
    except DamagedFile:
        drawn = None
    return Parts(mask, state, None, drawn, None, "none", provenance, 1)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise DamagedFile(otherwise)


def _code(tensors: Mapping[str, Tensor], name: str) -> bytes:
    tensor = tensors.get(name)
    _require(tensor is not None and tensor.dtype == torch.uint8 and tensor.dim() == 1, f"it has no {name}")
    assert tensor is not None
    return tensor.numpy().tobytes()


def _record(code: bytes) -> dict[str, Any]:
    """The record, unpacked."""
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(code, MOST_RECORD + 1)
        whole = unpacking.eof and not unpacking.unused_data
        _require(whole and len(text) <= MOST_RECORD, f"its record is not whole, or longer than {MOST_RECORD:,} bytes")
        record = json.loads(text.decode())
    except (zlib.error, ValueError, RecursionError) as error:
        raise error if isinstance(error, DamagedFile) else DamagedFile("its record cannot be read") from None
    _require(isinstance(record, dict) and _shallow(record), "its record is none, or too deep")
    parts = {"mask", "names", "start", "drawn", "trained", "provenance"}
    _require(record.keys() == parts, "its record has other parts than a ticket's")
    return dict(record)


def _shallow(value: Any) -> bool:
    """Whether JSON is not nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [v for v in level if isinstance(v, dict | list)]
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return not level


def _mask(rows: Any, codes: bytes, file: int) -> Mask:
    """The mask, from the record's [name, shape, weights left, bytes of code] for each layer, and all their codes."""
    _require(isinstance(rows, list) and len(rows) <= MOST_LAYERS, "its layers are none, or too many")
    _require(all(isinstance(row, list) and len(row) == 4 for row in rows), "a layer of it is none")
    names, shapes, counts, lengths = zip(*rows, strict=True) if rows else ((), (), (), ())
    _require_names(names)
    sizes = [_size(shape) for shape in shapes]
    weights, most = sum(sizes), min(MOST_WEIGHTS, WEIGHTS_IN_ANY + WEIGHTS_PER_BYTE * file)
    _require(0 < weights <= most, f"it has {weights:,} weights that can be pruned, where {most:,} are possible")
    _require(all(type(n) is int and 0 <= n <= MOST_WEIGHTS for n in (*counts, *lengths)), "a layer of it is none")
    _require(sum(lengths) == len(codes), "the code of its mask has a wrong length")
    kept = {}
    for row, size, end in zip(rows, sizes, accumulate(lengths), strict=True):
        name, shape, count, length = row
        kept[name] = torch.from_numpy(decode(codes[end - length : end], size, count)).view(shape)
    return Mask(kept)


def _require_names(names: Any) -> None:
    """Names are such as `torch.nn.Module.named_parameters` gives, and none comes twice."""
    for name in names:
        _require(
            isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_NAME and all(name.split(".")),
            "it has a name that no parameter has",
        )
    _require(len(set(names)) == len(names), "it has a name twice")


def _size(shape: Any) -> int:
    """How many weights a layer of that shape has."""
    _require(isinstance(shape, list) and len(shape) <= MOST_AXES, "a layer has a shape that is none")
    _require(all(type(n) is int and 0 <= n <= MOST_WEIGHTS for n in shape), "a layer has a shape that is none")
    _require(math.prod(n or 1 for n in shape) <= MOST_WEIGHTS, f"a layer has more than {MOST_WEIGHTS:,} weights")
    return math.prod(shape)


def _spread(packed: dict[str, Tensor], mask: Mask) -> State:
    """The state that `values` made small."""
    try:
        return {name: packing.spread(t, mask[name]) if name in mask else t for name, t in packed.items()}
    except (ValueError, RuntimeError):
        raise DamagedFile("it has not as many weights as its mask keeps") from None


def _described(start: Any) -> Start:
    try:
        return Start.model_validate_json(json.dumps(start))
    except (ValidationError, ValueError):
        raise DamagedFile("the description of its start is none") from None
