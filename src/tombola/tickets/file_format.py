"""The ticket file: converts tickets to tensors and back; docs/reference/ticket-file.md describes the format.

Files are untrusted. Numbers of weights, shapes and names are checked before memory is allocated for them. Nothing
that a file names is imported, and its JSON is decompressed only up to a limit.
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
"""The version of the file format. Files of version 1 can still be read."""

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The types that trained weights can be stored in."""

MAX_FILE_BYTES = 2**32
MAX_HEADER_BYTES = 2**24  # of the safetensors header
MAX_RECORD_BYTES = 2**20  # of the record as JSON, provenance included
MAX_JSON_DEPTH = 64  # of lists and objects in the record
MAX_WEIGHTS = 2**30  # prunable weights, kept or not
MIN_WEIGHT_LIMIT = 2**25
"""A file of any size may have this many prunable weights, because weights drawn from a seed, and masks of layers that
are kept whole, take no space in it."""
WEIGHTS_PER_BYTE = 2**10
"""The number of additional prunable weights allowed for each byte of its tensors. A random mask with density 0.06%
has this many."""
MAX_LAYERS = 2**11
MAX_NAMES = 2**16
MAX_DIMS = 8
MAX_NAME_LENGTH = 512


@dataclass
class TicketParts:
    """The content of a ticket file."""

    mask: Mask
    start: State | None
    """The initial weights, if the file stores them by value; None if it has their `digest`."""
    digest: str | None
    """The digest of the initial weights, if they are `drawn` from a seed."""
    drawn: Start | None
    trained: State | None
    precision: str
    """The precision of `trained`: a key of `PRECISIONS`, or `none` without trained weights."""
    provenance: dict[str, Any]
    format: int = FORMAT


def kept_values(state: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """A state without its pruned weights: only the kept weights of masked layers, in row-major order."""
    # Copied, because tensors in one file may not share memory, and layers may share weights.
    return {name: (t[mask[name]] if name in mask else t.clone()).detach().cpu() for name, t in state.items()}


def to_tensors(parts: TicketParts) -> dict[str, Tensor]:
    """A ticket as the tensors of its file. Raises `InputError` for one that is too large or has invalid names."""
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
    if len(text) > MAX_RECORD_BYTES:
        raise InputError(f"the provenance is too long: {len(text):,} bytes; at most {MAX_RECORD_BYTES:,} are allowed")
    tensors = {"record": _bytes(zlib.compress(text, 9)), "mask": _bytes(b"".join(codes.values()))}
    if parts.start is not None:
        tensors |= {f"start/{name}": tensor for name, tensor in kept_values(parts.start, parts.mask).items()}
    if parts.trained is not None:
        for name, t in kept_values(parts.trained, parts.mask).items():
            tensors[f"trained/{name}"] = _rounded(name, t, parts.precision) if t.is_floating_point() else t
    try:
        from_tensors(tensors)  # every file that is written can be read
    except DamagedFile as error:
        raise InputError(f"this ticket cannot be saved: {error}") from error
    return tensors


def _bytes(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)


def _rounded(name: str, tensor: Tensor, precision: str) -> Tensor:
    rounded = tensor.to(PRECISIONS[precision])
    if bool((rounded.isinf() & tensor.isfinite()).any()):
        raise InputError(f'trained: {name} has values out of range for {precision}; use "bf16" or "fp32"')
    return rounded


def read(path: Path) -> tuple[TicketParts, int]:
    """The content of a ticket file, and its size in bytes.

    Raises `FileNotFoundError`, or `DamagedFile` for anything but a complete ticket of a known format.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    for part, length, limit in (("file", size, MAX_FILE_BYTES), ("header", min(header, size - 8), MAX_HEADER_BYTES)):
        if length > limit:
            raise DamagedFile(f"{path} is not a valid ticket: its {part} has {length:,} bytes, more than {limit:,}")
    tensors, about = read_tensors(path)
    version = about.get("format", 0)
    try:
        _require(type(version) is int and version >= 1, "it has no valid format version")
        _require(version <= FORMAT, f"a newer tombola wrote it; this one reads tickets up to format {FORMAT}")
        return _from_version_1(tensors, about) if version == 1 else from_tensors(tensors), size
    except DamagedFile as error:
        raise DamagedFile(f"{path} is not a valid ticket: {error}") from error


def from_tensors(tensors: dict[str, Tensor]) -> TicketParts:
    """The ticket in the tensors of a file. Raises `DamagedFile` if they are not a valid ticket."""
    record = _record(_content(tensors, "record"))
    mask = _mask(record["mask"], _content(tensors, "mask"), sum(tensor.nbytes for tensor in tensors.values()))
    names, digest, precision = record["names"], record["start"], record["trained"]
    _require(isinstance(names, list) and len(names) <= MAX_NAMES, "`names` is not a valid list")
    _check_names(names)
    _require(digest is None or (isinstance(digest, str) and len(digest) == 64), "the digest of `start` is invalid")
    _require(precision in ["none", *PRECISIONS], "the precision of its trained weights is invalid")
    kinds = [kind for kind, stored in (("start", digest is None), ("trained", precision != "none")) if stored]
    _require(bool(names) == bool(kinds) and (not names or mask.keys() <= set(names)), "`names` is inconsistent")
    named = {f"{kind}/{name}" for kind in kinds for name in names}
    _require(tensors.keys() == {"record", "mask"} | named, "its tensors do not match the names in its record")
    start, trained = (
        _unpacked({name: tensors[f"{kind}/{name}"] for name in names}, mask) if kind in kinds else None
        for kind in ("start", "trained")
    )
    if trained is not None:
        dtypes = {tensor.dtype for tensor in trained.values() if tensor.is_floating_point()}
        _require(dtypes <= {PRECISIONS[precision]}, "its trained weights do not have the stated precision")
        trained = {name: t.float() if t.is_floating_point() else t for name, t in trained.items()}
    drawn = None if record["drawn"] is None else _parsed_start(record["drawn"])
    _require(digest is None or drawn is not None, "its initial weights are neither stored nor described")
    _require(isinstance(record["provenance"], dict), "its provenance is invalid")
    return TicketParts(mask, start, digest, drawn, trained, precision, record["provenance"])


def _from_version_1(tensors: dict[str, Tensor], about: dict[str, Any]) -> TicketParts:
    """Version 1: weights by value, masks of one bit per weight, provenance in the header."""
    provenance = about.get("provenance")
    _require(isinstance(provenance, dict) and _is_shallow(provenance), "its provenance is invalid")
    by_kind: dict[str, set[str]] = {"mask": set(), "shape": set(), "kept": set(), "whole": set()}
    for kind, slash, name in (entry.partition("/") for entry in tensors):
        _require(kind in by_kind and bool(slash), "it has unexpected tensors")
        by_kind[kind].add(name)
    masked = by_kind["mask"]
    _require(masked == by_kind["shape"] == by_kind["kept"] and not masked & by_kind["whole"], "tensors are missing")
    _check_names([*masked, *by_kind["whole"]])
    weights = 0
    for name in masked:
        shape, bits = tensors[f"shape/{name}"], tensors[f"mask/{name}"]
        _require(shape.dtype == torch.int64 and shape.dim() == 1 and bits.dtype == torch.uint8, "a type is invalid")
        size = _layer_size(shape.tolist())
        weights += size
        _require(bits.numel() == (size + 7) // 8, "a mask has the wrong length")
        _require(size % 8 == 0 or int(bits[-1]) & (1 << -size % 8) - 1 == 0, "a mask has nonzero padding bits")
    _require(weights > 0, "it has no prunable weights")
    state, mask = packing.unpack(tensors)
    assert isinstance(provenance, dict)
    try:
        drawn = _parsed_start(provenance["run"]["start"])
    except (KeyError, TypeError, DamagedFile):
        drawn = None
    return TicketParts(mask, state, None, drawn, None, "none", provenance, 1)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DamagedFile(message)


def _content(tensors: Mapping[str, Tensor], name: str) -> bytes:
    tensor = tensors.get(name)
    _require(tensor is not None and tensor.dtype == torch.uint8 and tensor.dim() == 1, f"it has no valid {name}")
    assert tensor is not None
    return tensor.numpy().tobytes()


def _record(code: bytes) -> dict[str, Any]:
    """The record, decompressed and parsed."""
    try:
        decompressor = zlib.decompressobj()
        text = decompressor.decompress(code, MAX_RECORD_BYTES + 1)
        complete = decompressor.eof and not decompressor.unused_data and len(text) <= MAX_RECORD_BYTES
        _require(complete, f"its record is incomplete, or longer than {MAX_RECORD_BYTES:,} bytes")
        record = json.loads(text.decode())
    except (zlib.error, ValueError, RecursionError) as error:
        raise error if isinstance(error, DamagedFile) else DamagedFile("its record cannot be read") from None
    _require(isinstance(record, dict) and _is_shallow(record), "its record is not a JSON object, or nested too deep")
    parts = {"mask", "names", "start", "drawn", "trained", "provenance"}
    _require(record.keys() == parts, "its record has missing or unknown parts")
    return dict(record)


def _is_shallow(value: Any) -> bool:
    """Whether a JSON value is nested at most `MAX_JSON_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [v for v in level if isinstance(v, dict | list)]
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v)]
    return not level


def _mask(rows: Any, codes: bytes, file: int) -> Mask:
    """The mask, from [name, shape, weights left, bytes of code] for each layer, and the codes of all layers."""
    _require(isinstance(rows, list) and len(rows) <= MAX_LAYERS, "its mask is not a list, or has too many layers")
    _require(all(isinstance(row, list) and len(row) == 4 for row in rows), "its mask has an invalid layer")
    names, shapes, counts, lengths = zip(*rows, strict=True) if rows else ((), (), (), ())
    _check_names(names)
    sizes = [_layer_size(shape) for shape in shapes]
    weights, limit = sum(sizes), min(MAX_WEIGHTS, MIN_WEIGHT_LIMIT + WEIGHTS_PER_BYTE * file)
    _require(0 < weights <= limit, f"it has {weights:,} prunable weights; from 1 to {limit:,} are allowed")
    _require(all(type(n) is int and 0 <= n <= MAX_WEIGHTS for n in (*counts, *lengths)), "its mask is invalid")
    _require(sum(lengths) == len(codes), "the code of its mask has the wrong length")
    kept = {}
    for row, size, end in zip(rows, sizes, accumulate(lengths), strict=True):
        name, shape, count, length = row
        kept[name] = torch.from_numpy(decode(codes[end - length : end], size, count)).view(shape)
    return Mask(kept)


def _check_names(names: Any) -> None:
    """Refuse names that are not unique, or that `torch.nn.Module.named_parameters` could not return."""
    for name in names:
        valid = isinstance(name, str) and name.isprintable() and len(name) <= MAX_NAME_LENGTH and all(name.split("."))
        _require(valid, "it has an invalid parameter name")
    _require(len(set(names)) == len(names), "it has a duplicate name")


def _layer_size(shape: Any) -> int:
    """The number of weights of a layer of this shape."""
    valid = isinstance(shape, list) and len(shape) <= MAX_DIMS
    _require(valid and all(type(n) is int and 0 <= n <= MAX_WEIGHTS for n in shape), "a layer has an invalid shape")
    _require(math.prod(n or 1 for n in shape) <= MAX_WEIGHTS, f"a layer has more than {MAX_WEIGHTS:,} weights")
    return math.prod(shape)


def _unpacked(packed: dict[str, Tensor], mask: Mask) -> State:
    """The whole state, from its `kept_values`."""
    try:
        return {name: packing.scatter_kept(t, mask[name]) if name in mask else t for name, t in packed.items()}
    except (ValueError, RuntimeError):
        raise DamagedFile("the number of its weights does not match its mask") from None


def _parsed_start(start: Any) -> Start:
    try:
        return Start.model_validate_json(json.dumps(start))
    except (ValidationError, ValueError):
        raise DamagedFile("the description of its initial weights is invalid") from None
