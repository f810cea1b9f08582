"""Examples: what artefacts are measured on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.utils.errors import InputError
from tombola.utils.import_paths import import_object
from tombola.utils.model_inputs import Inputs, batch_size, check_batch, rows, tensors
from tombola.utils.text import first_line


@dataclass(frozen=True)
class Examples:
    """The examples that artefacts are measured on. Raises `InputError` if they are invalid."""

    x: Inputs
    """Inputs on the CPU, (N, *inputs), N at least 1: a tensor, a tuple of positional arguments, or a dict of keyword
    arguments. Numbers are float32; integers, such as the ids of tokens, and bools keep their type."""
    y: Tensor | None = None
    """Labels, int64 on the CPU, from 0: (N,); None if there are none."""
    what: str = "made up"
    """Where they are from."""
    inputs: str = ""
    """How inputs were scaled, in words."""

    def __post_init__(self) -> None:
        check_batch(self.x, "examples: x")
        if (y := self.y) is None:
            return
        if y.dtype != torch.int64 or y.device.type != "cpu":
            raise InputError(f"examples: y should be torch.int64 on the CPU, not {y.dtype} on {y.device}")
        if y.shape != (len(self),):
            raise InputError(f"examples: y should be ({len(self)},), one for each of x, not {tuple(y.shape)}")
        if int(y.min()) < 0:
            raise InputError(f"examples: y should be whole numbers from 0, not {int(y.min())}")

    def __len__(self) -> int:
        return batch_size(self.x)


def spread(available: int, count: int) -> Tensor:
    """The indices of `count` examples at equal distances, for they may be sorted; all if there are no more."""
    return torch.linspace(0, available - 1, min(count, available), dtype=torch.float64).round().long()


def sample(examples: Examples, count: int) -> Examples:
    """`count` of the examples, at equal distances; all if there are no more."""
    chosen = spread(len(examples), count)
    return replace(examples, x=rows(examples.x, chosen), y=None if examples.y is None else examples.y[chosen])


def count_shared(some: Examples, others: Examples) -> int:
    """How many of `some` have exactly the same inputs as one of the `others`."""
    known = set(_digests(others))
    return sum(digest in known for digest in _digests(some))


def _digests(examples: Examples) -> list[bytes]:
    """A hash of the inputs of each example."""
    arrays = [tensor.numpy() for tensor in tensors(examples.x)]
    return [hashlib.sha256(b"".join(array[n].tobytes() for array in arrays)).digest() for n in range(len(examples))]


def read_examples(source: str, option: str = "--examples") -> Examples:
    """The examples in an `.npz` file with arrays `x` and, if there are labels, `y`; or at an import path,
    `package.module:name`: `Examples`, inputs, a tuple (inputs, labels), or a function that returns one of these.
    Raises `InputError`, which names the `option`, if there are none."""
    if source.endswith(".npz"):
        return _from_npz(Path(source), option)
    found = import_object(option, source)
    try:
        found = found() if callable(found) else found
    except Exception as error:  # a user's function may raise anything
        raise InputError(f'{option}: "{source}" failed: {first_line(error)}') from error
    if isinstance(found, Examples):
        return found
    x, y = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    return _made(option, source, x, y, f"the examples of {source}")


def _from_npz(path: Path, option: str) -> Examples:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("x", "y") if name in file}
            if "x" not in arrays:
                raise InputError(f"{option}: {path} has no array x; it should have x and, if there are labels, y")
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{option}: {path} cannot be read as an .npz file: {first_line(error)}") from error
    x, y = tensors["x"], tensors.get("y")
    x = x.float() if x.is_floating_point() else x
    return _made(option, str(path), x, None if y is None else y.long(), path.name)


def _made(option: str, source: str, x: Any, y: Any, what: str) -> Examples:
    """Raises `InputError`, which names the option, if they are invalid."""
    try:
        if not isinstance(y, Tensor | None):
            raise InputError(f"labels should be a tensor, not {type(y).__name__}")
        return Examples(x, y, what=what)
    except InputError as error:
        raise InputError(f"{option}: {source}: {error}") from error
