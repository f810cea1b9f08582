"""Files that are either whole or not there, and tensors in them: safetensors with a digest, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tombola.utils.errors import DamagedFile
from tombola.utils.text import one_line


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to; at the end it takes the place of `path`, at once and for good.

    Whatever kills the process, `path` holds either what it held before or all of what was written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporary(folder: Path, prefix: str = ".") -> None:
    """Remove what processes that were killed in the middle of `atomic_write` left behind; only where none writes
    now."""
    for left_behind in folder.glob(f"{prefix}*.tmp"):
        left_behind.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renames are durable without it
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write named tensors, and what they are about as JSON values, to one safetensors file, atomically."""
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about, sort_keys=True)
    # One entry of metadata: several would be written in an order that changes from time to time.
    metadata = {"tombola": json.dumps({"digest": digest(contents, text), "about": text})}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(contents, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises `FileNotFoundError` when there is no file, `DamagedFile` when a byte of it is not as it was written.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, ValueError, LookupError, AttributeError, RuntimeError, TypeError) as error:
        raise DamagedFile(f"{path} is damaged or not a safetensors file: {one_line(error)}") from error
    if "tombola" not in metadata:
        raise DamagedFile(f"{path} was not written by tombola: its header has no digest")
    try:
        header = json.loads(metadata["tombola"])
        text, written = header["about"], header["digest"]
        about = json.loads(text)
        found = digest(tensors, text)
    except (ValueError, KeyError, TypeError, RuntimeError):  # among the last, JSON that is nested too deeply
        raise DamagedFile(f"{path} is damaged: its header cannot be read") from None
    if found != written:
        raise DamagedFile(f"{path} is damaged: its content does not match its digest")
    if not isinstance(about, dict):
        raise DamagedFile(f"{path} was not written by tombola: its header says nothing")
    return tensors, about


def digest(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """64 hexadecimal digits that stand for the names, types, shapes and values of `tensors`, and for `about`."""
    sha = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
        sha.update(flat.view(torch.uint8).numpy().tobytes())  # NumPy does not know all of torch's numbers
    return sha.hexdigest()
