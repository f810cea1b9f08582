"""SparseNetwork: a module that stores and multiplies only the weights left; for inference, on a CPU."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tombola.engines.sparse.products import Floats
from tombola.exports.agreement import disagreement
from tombola.exports.graph import graph_of
from tombola.exports.runtime.kernels import run_at
from tombola.exports.runtime.plan import Unplannable, plan_of
from tombola.exports.runtime.program import ARRAYS, Program, whole
from tombola.exports.runtime.tuning import tuned
from tombola.pruning.hold import release
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors

FORMAT = 1
"""The version of the file format."""

_NOTHING = np.empty(0, np.float32)

ALONE = 2_000_000
"""Multiply-adds that take about as long as it takes to wake another thread: for less none is woken."""


class SparseNetwork(nn.Module):
    """A whole network as one compiled program: float32, on the CPU, without gradients.

    Its buffers are the program's arrays, so `state_dict`, `torch.save` and safetensors hold everything. It can be
    called from several threads at once.
    """

    threads: int
    """How many threads work on the examples of a batch, if there is enough to do."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        """Raises `DamagedFile` where the program would read or write outside of its room, `InputError` for a number
        of threads that is none."""
        super().__init__()
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InputError(f"threads: should be a whole number of at least 1, not {threads!r}")
        self.threads = torch.get_num_threads() if threads is None else threads
        self.inputs, self.outputs, self.room = program.inputs, program.outputs, program.room
        for name, array in program.arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))
        self.register_load_state_dict_post_hook(_checked)  # type: ignore[no-untyped-call]
        self._begin()
        self.eval()  # there is no other mode

    def _begin(self) -> None:
        """Whatever is not part of the network's content."""
        arrays: dict[str, Any] = {name: self.get_buffer(name).numpy() for name in ARRAYS}
        self.program = Program(self.inputs, self.outputs, self.room, **arrays)
        self._compiled: Callable[..., Any] = _refused
        self.program.check()
        # What a call needs, at hand: with one example of a small network, looking it up takes as long as computing.
        self._compiled = functools.partial(run_at, *self.program.arrays.values())
        self._shape, self._size = torch.Size(self.inputs), math.prod(self.inputs)
        self._answers, self._work = len(self.program.places), self.program.work
        self._together = self.program.together
        self._rooms: list[Floats] = []
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    @property
    def weights(self) -> int:
        """How many weights it stores: of layers that are faster dense all, of others those that are not zero. Copies,
        additions and averages that nothing could do on the way have a few too."""
        return len(self.program.values)

    def working(self, images: int) -> int:
        """Bytes of working space that it needs for a batch of so many examples, and keeps for the next."""
        threads = self._threads(images)
        together = min(whole(-(-images // threads)), self._together)
        return threads * together * self.room * 4

    def _threads(self, images: int) -> int:
        return max(1, min(self.threads, images, 1 + images * self._work // ALONE)) if images > 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        """Answers, (N, outputs), to examples, (N, inputs).

        Raises `ValueError` for examples of another shape, or that are no real numbers.
        """
        shape = x.shape
        if shape[1:] != self._shape:
            raise ValueError(f"this network takes examples of shape {self.inputs}, not {tuple(shape[1:])}")
        images = shape[0]
        if x.dtype is not torch.float32 or not x.is_cpu or not x.is_contiguous() or x.is_neg():
            x = torch.from_numpy(_numbers(x))
        examples = x.data_ptr()
        answers = np.empty((images, self._answers), np.float32)
        threads = self._threads(images)
        if threads == 1:
            self._run(examples, 0, images, answers)
        else:
            cuts = [images * part // threads for part in range(threads + 1)]
            others = itertools.pairwise(cuts[1:])
            parts = [self._helpers().submit(self._run, examples, *cut, answers) for cut in others]
            self._run(examples, 0, cuts[1], answers)
            for part in parts:
                part.result()
        out = torch.from_numpy(answers)
        return out if len(self.outputs) == 1 else out.reshape(images, *self.outputs)

    def _run(self, examples: int, begin: int, end: int, answers: Floats) -> None:
        together = 1 if end - begin <= 1 else min(whole(end - begin), self._together)
        try:
            room = self._rooms.pop()
        except IndexError:
            room = _NOTHING
        if room.size < self.room * together:
            room = np.zeros(self.room * together, np.float32)
        self._compiled(examples, self._size, begin, end, together, room, answers)
        self._rooms.append(room)

    def _helpers(self) -> ThreadPoolExecutor:
        process = os.getpid()
        if self._pool is None or self._pool[0] != process:  # a fork has none of the threads
            self._pool = process, ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="tombola")
        return self._pool[1]

    def save(self, path: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write it to one safetensors file, with `about`, JSON values of your own."""
        header = {"format": FORMAT, "inputs": self.inputs, "outputs": self.outputs, "room": self.room}
        write_tensors(Path(path), self.state_dict(), header | {"about": about or {}})

    @classmethod
    def load(cls, path: str | Path, threads: int | None = None) -> Self:
        """Read what `save` wrote. Nothing in it is executed.

        Raises `InputError` when there is no such file, it is damaged, or it is no sparse network.
        """
        try:
            tensors, header = read_tensors(Path(path))
            if type(header.get("format")) is not int or header["format"] != FORMAT or "room" not in header:
                raise DamagedFile(f"{path} is not a sparse network of a format this version reads")
            return cls(_program(tensors, header), threads)
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except (DamagedFile, OSError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for buffer in self.buffers():
            made = fn(buffer)
            if (made.dtype, made.device) != (buffer.dtype, buffer.device):
                raise ValueError("a sparse network computes in float32 on the CPU, and nowhere else")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._begin()
        return self

    def __getstate__(self) -> dict[str, Any]:
        made = ("program", "_compiled", "_shape", "_size", "_answers", "_work", "_together", "_rooms", "_pool")
        return {name: value for name, value in vars(self).items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._begin()

    def extra_repr(self) -> str:
        return f"{self.weights:,} weights, {len(self.program.table)} steps, {self.inputs} -> {self.outputs}"


def sparse_network(network: nn.Module, example: Tensor, threads: int | None = None) -> SparseNetwork:
    """What `network` computes in evaluation mode, by its nonzero weights only; of that, it is made sure.

    `example` is a batch of inputs. Layers that this machine multiplies faster dense stay dense; that is measured.
    Raises `Unplannable` or `Untraceable` where the network does what the kernels do not.
    """
    plain = plain_copy(network)
    with torch.random.fork_rng(devices=[]):
        plan = plan_of(graph_of(plain, example))
        try:
            made = SparseNetwork(tuned(plan), threads)
        except DamagedFile as error:
            raise Unplannable(f"it is larger than a program can be: {error}") from error
        # Tracing sees what is done to tensors, but not what a network asks about them.
        if reason := disagreement(plain, lambda x: made(x).to(x.dtype), example):
            raise Unplannable(f"as a program, {reason}")
    return made


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy of a network on the CPU, in evaluation mode, whose weights are free: to try things out with."""
    copied = copy.deepcopy(network).cpu().eval()
    release(copied)
    return copied


def _numbers(x: Tensor) -> Floats:
    """The numbers of a tensor, contiguous float32."""
    try:
        numbers = x.numpy()
    except (RuntimeError, TypeError):  # it is on a GPU, wants a gradient, or is of a type that NumPy does not know
        real = x.dtype if x.is_complex() else torch.float32
        numbers = x.detach().cpu().resolve_neg().to(real).numpy()
    if numbers.dtype.kind == "c":
        raise ValueError("this network takes real numbers, not complex ones")
    return np.ascontiguousarray(numbers, np.float32)


def _program(tensors: dict[str, Tensor], header: dict[str, Any]) -> Program:
    """Raises `DamagedFile` where that is none."""
    if set(tensors) != set(ARRAYS):
        raise DamagedFile("it has other tensors than a program")
    try:
        arrays: dict[str, Any] = {name: tensors[name].numpy() for name in ARRAYS}
    except TypeError:
        raise DamagedFile("its tensors are of types that NumPy does not know") from None
    shapes = header.get("inputs"), header.get("outputs"), [header.get("room")]
    if not all(isinstance(shape, list) and all(type(size) is int for size in shape) for shape in shapes):
        raise DamagedFile("its shapes are not numbers")
    inputs, outputs, (room,) = (tuple(shape or ()) for shape in shapes)
    return Program(inputs, outputs, room, **arrays)


def _refused(*_: object) -> None:
    raise DamagedFile("this network was given arrays that are no program; load it again")


def _checked(network: nn.Module, keys: object) -> None:  # noqa: ARG001
    """After other arrays were loaded into the buffers."""
    assert isinstance(network, SparseNetwork)
    network._begin()
