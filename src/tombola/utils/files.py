"""Atomic writes, lock files, and files of tensors: safetensors with a digest, never pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.processes import has_ended, process_name
from tombola.utils.text import first_line, one_line
from tombola.utils.workers import raise_if_cancelled

ABANDONED = 24 * 3600.0
"""Seconds after which what another machine was writing is taken to be left over."""


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises `InputError`, which names `path` and the reason, for every `OSError` in the block, which writes there:
    no permission, a file in place of a folder or the reverse, a full disk."""
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError)  # of `mkdir`, where a parent is a file
        reason = f"{error.filename} is not a folder" if in_the_way else error.strerror or first_line(error)
        raise InputError(f"{path} cannot be written: {reason}") from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path of the same name to write to, in a temporary folder, which replaces `path` at the end of
    the block. Missing folders are created.

    If the process is killed at any point, `path` has either its former content or all of the new one. Raises
    `InputError` if `path` cannot be written.
    """
    with writing(path), _temporary_for(Path(path)) as temporary:
        yield temporary


@contextmanager
def _temporary_for(path: Path) -> Iterator[Path]:
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not (path.is_file() or path.is_dir()):  # a device would be replaced by a file
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own, because libraries write further temporary files beside theirs; one for each thread.
    folder = path.with_name(f".{path.name}.{process_name()}-{threading.get_native_id()}.tmp")
    folder.mkdir(exist_ok=True)
    temporary = folder / path.name
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        if os.name == "posix":  # elsewhere folders cannot be opened, and renames are durable without this
            parent = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_temporary(paths: Iterable[Path]) -> None:
    """Remove what processes left that were killed in `atomic_write` of these paths, but not what one that may still
    run, here or on another machine, is writing. Each folder is listed once."""
    targets = set(paths)
    for folder in {path.parent for path in targets}:
        for temporary in folder.glob(".*.tmp"):
            if not _left_over(temporary, targets):
                continue
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:  # of earlier versions
                temporary.unlink(missing_ok=True)


def _left_over(temporary: Path, targets: Collection[Path]) -> bool:
    """Whether `atomic_write` of one of `targets` made it, and its process has ended."""
    name, _, number = temporary.name.removeprefix(".").removesuffix(".tmp").rpartition(".")
    if temporary.parent / name in targets:
        return True  # of an earlier version, which named no machine, and wrote only what it had claimed
    name, _, host = name.rpartition(".")
    process = f"{host}.{number.partition('-')[0]}"
    return temporary.parent / name in targets and (has_ended(process) or _age(temporary) > ABANDONED)


def _age(path: Path) -> float:
    """The seconds since it was changed."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its process has just removed it
        return 0.0


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write named tensors, and JSON values `about` them, to one safetensors file, atomically. Raises `InputError` if
    it cannot be written."""
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about, sort_keys=True)
    # A single entry of metadata, because safetensors writes several in no fixed order.
    metadata = {"tombola": json.dumps({"digest": digest(contents, text), "about": text})}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:  # not `save`, which holds the interpreter's lock all the time
            safetensors.torch.save_file(contents, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(one_line(error)) from error
        temporary.chmod(mode)  # the library replaces the file by one that only its owner may read


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_tensors`: the tensors, and the values about them.

    Raises `FileNotFoundError` if the file is missing, `DamagedFile` if its content is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with interrupts_deferred(), safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, ValueError, LookupError, AttributeError, RuntimeError, TypeError) as error:
        raise DamagedFile(f"{path} is damaged or not a safetensors file: {one_line(error)}") from error
    if "tombola" not in metadata:
        raise DamagedFile(f"{path} was not written by tombola: its header has no digest")
    try:
        header = json.loads(metadata["tombola"])
        text, written = header["about"], header["digest"]
        about, found = json.loads(text), digest(tensors, text)
    except (ValueError, KeyError, TypeError, RuntimeError):  # RuntimeError: too deeply nested JSON
        raise DamagedFile(f"{path} is damaged: its header cannot be read") from None
    if found != written:
        raise DamagedFile(f"{path} is damaged: its content does not match its digest")
    if not isinstance(about, dict):
        raise DamagedFile(f"{path} was not written by tombola: its header is not a table")
    return tensors, about


def read_about(path: str | Path) -> dict[str, Any]:
    """The values about the tensors of such a file, of which only the header is read.

    Raises `FileNotFoundError` if the file is missing, `DamagedFile` if its header is not one of `write_tensors`, or
    if the file does not end where the header says. Values of tensors are not checked.
    """
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            start, size = 8 + length, os.fstat(file.fileno()).st_size
            if start > size:
                raise DamagedFile(f"{path} is damaged: it ends within its header")
            header = json.loads(file.read(length))
            about = json.loads(json.loads(header.pop("__metadata__")["tombola"])["about"])
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise DamagedFile(f"{path} is damaged: its header cannot be read") from None
    if start + end != size or not isinstance(about, dict):
        raise DamagedFile(f"{path} is damaged: its content does not match its header")
    return about


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Within it, Ctrl-C waits: `torch.asarray`, which safetensors calls, turns a `KeyboardInterrupt` into a
    `ValueError`, and a file that was being read would count as damaged."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # Python raises nothing here
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *call: received.append(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for call in received[:1]:
            before(*call)


def digest(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """A hash of the names, dtypes, shapes and values of `tensors`, and of `about`: 64 hexadecimal digits."""
    sha = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
        sha.update(flat.view(torch.uint8).numpy().data)  # NumPy does not have all of torch's dtypes
    return sha.hexdigest()


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path` in this block; the operating system releases it when the process dies.

    Waiting for it is interrupted when the worker thread is cancelled.
    """
    lock = filelock.FileLock(path)
    while not lock.is_locked:
        raise_if_cancelled()
        with suppress(filelock.Timeout):
            lock.acquire(timeout=0.5)
    try:
        yield
    finally:
        lock.release()
