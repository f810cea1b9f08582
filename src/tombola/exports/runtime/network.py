"""SparseNetwork: a module that stores and multiplies only the kept weights; for inference on a CPU."""

from __future__ import annotations

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

from tombola.exports.agreement import output_mismatch
from tombola.exports.runtime.program import ARRAYS, Program, padded_batch
from tombola.exports.runtime.tuning import tuned
from tombola.kernels.inference import run
from tombola.kernels.plans.plan import UnsupportedNetwork
from tombola.kernels.plans.planner import plan_of
from tombola.kernels.plans.steps import graph_of
from tombola.kernels.products import Floats, aligned
from tombola.pruning.hold import check_held, release
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.model_inputs import Inputs
from tombola.utils.network_copy import copy_network
from tombola.utils.random_state import preserve_rng_state

FORMAT = 1
"""The version of the file format."""
MIN_WORK_PER_THREAD = 2_000_000
"""Multiply-adds that take about as long as waking a thread: no thread is woken for less."""


class SparseNetwork(nn.Module):
    """A whole network as one compiled program: float32, on the CPU, without gradients.

    Its buffers hold the whole program. It can be called from several threads at once.
    """

    threads: int
    """How many threads share the examples of a large batch."""

    def __init__(self, program: Program, threads: int | None = None) -> None:
        """Raises `DamagedFile` for an invalid program, `InputError` for an invalid number of threads."""
        super().__init__()
        if threads is not None and (type(threads) is not int or threads < 1):
            raise InputError(f"threads: should be a whole number of at least 1, not {threads!r}")
        self.threads = torch.get_num_threads() if threads is None else threads
        self.inputs, self.outputs, self.workspace = program.inputs, program.outputs, program.workspace
        for name, array in program.arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))
        self.register_load_state_dict_post_hook(_after_load)  # type: ignore[no-untyped-call]
        self._prepare()
        self.eval()  # there is no training mode

    def _prepare(self) -> None:
        """Set all attributes that are derived from the buffers and shapes."""
        arrays: dict[str, Any] = {name: self.get_buffer(name).numpy() for name in ARRAYS}
        self.program = Program(self.inputs, self.outputs, self.workspace, **arrays)
        self._compiled: Callable[..., Any] = _reject_call
        self.program.check()
        # Attributes, because looking these up would take as long as one example of a small network.
        self._compiled = functools.partial(run, *self.program.arrays.values())
        self._shape, self._size = torch.Size(self.inputs), math.prod(self.inputs)
        self._output_size, self._multiply_adds = len(self.program.places), self.program.multiply_adds
        self._block_size = self.program.block_size
        self._workspaces: list[Floats] = []
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    @property
    def weights(self) -> int:
        """How many weights it stores: all of layers that are dense, the nonzero ones of others, and those of copies,
        additions and averages that could not be fused with a layer."""
        return len(self.program.values)

    def working(self, images: int) -> int:
        """Bytes of workspace that it needs for a batch of so many examples, and keeps for the next."""
        threads = self._threads(images)
        side_by_side = min(padded_batch(-(-images // threads)), self._block_size)
        return threads * side_by_side * self.workspace * 4

    def _threads(self, images: int) -> int:
        if images <= 1:
            return 1
        return max(1, min(self.threads, images, 1 + images * self._multiply_adds // MIN_WORK_PER_THREAD))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (N, *outputs) of real examples (N, *inputs). Raises `ValueError` for any other examples."""
        shape = x.shape
        if shape[1:] != self._shape:
            raise ValueError(f"this network takes examples of shape {self.inputs}, not {tuple(shape[1:])}")
        images = shape[0]
        if x.dtype is not torch.float32 or not x.is_cpu or not x.is_contiguous() or x.is_neg():
            x = torch.from_numpy(_float32(x))
        examples = x.data_ptr()
        outputs = np.empty((images, self._output_size), np.float32)
        threads = self._threads(images)
        if threads == 1:
            self._run(examples, 0, images, outputs)
        else:
            cuts = [images * part // threads for part in range(threads + 1)]
            others = itertools.pairwise(cuts[1:])
            parts = [self._executor().submit(self._run, examples, *cut, outputs) for cut in others]
            self._run(examples, 0, cuts[1], outputs)
            for part in parts:
                part.result()
        out = torch.from_numpy(outputs)
        return out if len(self.outputs) == 1 else out.reshape(images, *self.outputs)

    def _run(self, examples: int, begin: int, end: int, outputs: Floats) -> None:
        side_by_side = 1 if end - begin <= 1 else min(padded_batch(end - begin), self._block_size)
        size = self.workspace * side_by_side
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = aligned(size)
        if workspace.size < size:
            workspace = aligned(size)
        self._compiled(examples, self._size, begin, end, side_by_side, workspace, outputs)
        self._workspaces.append(workspace)

    def _executor(self) -> ThreadPoolExecutor:
        process = os.getpid()
        if self._pool is None or self._pool[0] != process:  # threads do not survive a fork
            self._pool = process, ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="tombola")
        return self._pool[1]

    def save(self, path: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write it to one safetensors file, with `about`, your own JSON values."""
        header = {"format": FORMAT, "inputs": self.inputs, "outputs": self.outputs, "room": self.workspace}
        write_tensors(path, self.state_dict(), header | {"about": about or {}})

    @classmethod
    def load(cls, path: str | Path, threads: int | None = None) -> Self:
        """Read a file of `save`; nothing in it is executed. Raises `InputError` if it is missing or invalid."""
        try:
            tensors, header = read_tensors(Path(path))
            if type(header.get("format")) is not int or header["format"] != FORMAT or "room" not in header:
                raise DamagedFile(f"{path} is not a sparse network of format {FORMAT}")
            return cls(_program(tensors, header), threads)
        except FileNotFoundError:
            raise InputError(f"there is no file {path}") from None
        except (DamagedFile, OSError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for buffer in self.buffers():
            made = fn(buffer)
            if (made.dtype, made.device) != (buffer.dtype, buffer.device):
                raise ValueError("a sparse network supports only float32 on the CPU")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    def __getstate__(self) -> dict[str, Any]:
        derived = (
            "program", "_compiled", "_shape", "_size", "_output_size", "_multiply_adds", "_block_size", "_workspaces",
            "_pool",
        )  # fmt: skip
        return {name: value for name, value in vars(self).items() if name not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickles of earlier versions have the size of the workspace as `room`.
        super().__setstate__({"workspace" if n == "room" else n: v for n, v in state.items()})  # type: ignore[no-untyped-call]
        self._prepare()

    def extra_repr(self) -> str:
        return f"{self.weights:,} weights, {len(self.program.table)} steps, {self.inputs} -> {self.outputs}"


def sparse_network(network: nn.Module, example: Inputs, threads: int | None = None) -> SparseNetwork:
    """What `network` computes in evaluation mode, with its nonzero weights only; checked on `example`.

    `example` is a batch of inputs, a tensor. Layers that this machine multiplies faster dense stay dense; that is
    measured. Raises `UnsupportedNetwork` or `TracingError` for operations and inputs that the kernels do not have.
    """
    if isinstance(example, tuple) and len(example) == 1:
        (example,) = example
    if not isinstance(example, Tensor):
        raise UnsupportedNetwork(f"a program takes one tensor, not a {type(example).__name__} of inputs")
    dense = cpu_copy(network)
    with preserve_rng_state():
        plan = plan_of(graph_of(dense, example))
        try:
            made = SparseNetwork(tuned(plan), threads)
        except DamagedFile as error:
            raise UnsupportedNetwork(f"it is too large for a program: {error}") from error
        # Tracing does not see what a network does with properties of its tensors, such as their type.
        if reason := output_mismatch(dense, lambda x: made(x).to(x.dtype), example):
            raise UnsupportedNetwork(f"as a program, {reason}")
    return made


def cpu_copy(network: nn.Module) -> nn.Module:
    """A copy of a network on the CPU, in evaluation mode, without a hold on its weights. Raises `InputError` if a
    held weight that is pruned is not zero."""
    check_held(network)
    copied = copy_network(network).cpu().eval()
    release(copied)
    return copied


def _float32(x: Tensor) -> Floats:
    """The numbers of a tensor, contiguous float32."""
    try:
        numbers = x.numpy()
    except (RuntimeError, TypeError):  # on a GPU, with a gradient, or of a type that NumPy does not know
        real = x.dtype if x.is_complex() else torch.float32
        numbers = x.detach().cpu().resolve_neg().to(real).numpy()
    if numbers.dtype.kind == "c":
        raise ValueError("this network takes real numbers, not complex ones")
    return np.ascontiguousarray(numbers, np.float32)


def _program(tensors: dict[str, Tensor], header: dict[str, Any]) -> Program:
    """The program in a file. Raises `DamagedFile`."""
    if set(tensors) != set(ARRAYS):
        raise DamagedFile("its tensors are not those of a program")
    try:
        arrays: dict[str, Any] = {name: tensors[name].numpy() for name in ARRAYS}
    except TypeError:
        raise DamagedFile("its tensors have types that NumPy does not know") from None
    shapes = header.get("inputs"), header.get("outputs"), [header.get("room")]
    if not all(isinstance(shape, list) and all(type(size) is int for size in shape) for shape in shapes):
        raise DamagedFile("its shapes are not whole numbers")
    inputs, outputs, (workspace,) = (tuple(shape or ()) for shape in shapes)
    return Program(inputs, outputs, workspace, **arrays)


def _reject_call(*_: object) -> None:
    raise DamagedFile("the arrays of this network are not a valid program: load it again")


def _after_load(network: nn.Module, keys: object) -> None:  # noqa: ARG001
    """Other arrays were loaded into the buffers."""
    assert isinstance(network, SparseNetwork)
    network._prepare()
