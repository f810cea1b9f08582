"""Benchmark: the sizes, accuracy and speed of artefacts, measured side by side on the same examples."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from tombola.exports.benchmark_outputs import Outputs
from tombola.graph.recording import record
from tombola.pruning.multiply_adds import multiply_adds
from tombola.pruning.prunable_layers import default_layers
from tombola.utils.model_inputs import Inputs, arguments, batch_size, rows
from tombola.utils.network_copy import copy_network

Predict = Callable[..., Any]
"""Takes a batch of examples on the CPU as the network does, and returns the same outputs."""

ROUNDS = 11
"""How often each artefact is timed, in turns with the others; results are medians."""
MIN_SECONDS = 0.02
"""The fastest artefact is called repeatedly until a round takes at least this long."""
MAX_SECONDS = 20.0
"""There are fewer rounds, but at least three, if those of one batch size would take longer."""
BATCH_SIZES = (1, 64, 256)
"""Latency is measured with the first, throughput with the others."""


@dataclass(frozen=True)
class Artefact:
    """A file that represents a network, and what was read from it."""

    name: str
    weights: int
    """How many weights of linear and convolutional layers it stores, zeros included if they are stored."""
    bytes: int
    """The size of its file."""
    memory: int | None
    """Bytes of its weights, buffers and indices once it is loaded, without workspace."""
    multiply_adds: int | None
    """For one example, those with zeros included if they are done."""
    predict: Predict | None
    """None if it can only be stored."""
    timed: bool = True
    """False if it is run as another artefact, whose speed would be measured."""
    file: str = ""
    """The name of its file, if it is kept."""
    working: int | None = None
    """Bytes of workspace that it keeps after a batch of the largest of `BATCH_SIZES`; None if not known."""
    device: str = "cpu"
    """Where it is run: "cpu" or "cuda"."""
    note: str = ""
    """What is said about it beside its measurements."""


Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Figures:
    """What was measured of an artefact: finite numbers only, as JSON needs."""

    name: str
    file: str
    weights: Count
    bytes: Count
    memory: Count | None
    multiply_adds: Count | None
    latency: Speed | None
    """Seconds for one example."""
    throughput: dict[Positive, Speed]
    """Examples per second, by batch size; empty if it is not timed."""
    accuracy: Share | None
    """On the whole test set; None without labels, or if no output is (N, classes)."""
    difference: Distance | None
    """The largest absolute difference of an output from the first artefact's, over all test examples. None if one of
    the two is finite and the other is not."""
    not_finite: Count | None = None
    """The number of test examples with an infinite or NaN output; None without outputs."""
    working: Count | None = None
    device: str = "cpu"
    note: str = ""

    @property
    def is_reference(self) -> bool:
        """Whether it is the ticket stored densely, whose file is not kept, that others on its device are compared
        with."""
        return not self.file and self.latency is not None


def no_progress(line: str) -> None:
    """Ignore a progress message."""


@torch.inference_mode()
def measure(
    artefacts: Sequence[Artefact],
    x: Inputs,
    y: Tensor | None = None,
    threads: int = 1,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = no_progress,
) -> list[Figures]:
    """Measure all artefacts on the examples `x`; outputs are compared with those of the first.

    They are timed in turns, so that other processes slow down all alike. `y` are labels, int64; accuracies are those
    of the class scores among the outputs (see `scores_index`). PyTorch uses so many `threads`; other runtimes should
    be set to as many. `progress` is called with a line about each step.
    """
    with _torch_threads(threads):
        outputs: dict[str, Outputs] = {}
        for a in artefacts:
            if a.predict is not None:
                progress(f"{a.name}: {batch_size(x):,} examples")
                outputs[a.name] = Outputs.of(a.predict, x)
        timed = {a.name: a.predict for a in artefacts if a.predict is not None and a.timed}
        seconds: dict[int, dict[str, float]] = {}
        for size in BATCH_SIZES:
            progress(f"timing batches of {size}")
            seconds[size] = _median_seconds(timed, _batch(x, size), rounds)
    reference = outputs[artefacts[0].name]
    figures = []
    for a in artefacts:
        out = outputs.get(a.name)
        figures.append(
            Figures(
                *(a.name, a.file, a.weights, a.bytes, a.memory, a.multiply_adds),
                latency=seconds[1][a.name] if a.name in timed else None,
                throughput={n: n / seconds[n][a.name] for n in BATCH_SIZES[1:]} if a.name in timed else {},
                accuracy=None if out is None or y is None else out.accuracy(y, reference.scores),
                difference=None if out is None else out.difference(reference),
                not_finite=None if out is None else out.not_finite,
                working=a.working,
                device=a.device,
                note=a.note,
            )
        )
    return figures


def _batch(x: Inputs, size: int) -> Any:
    """The first `size` examples, repeated if there are fewer."""
    return rows(x, torch.arange(size) % batch_size(x))


def _median_seconds(artefacts: Mapping[str, Predict], x: Inputs, rounds: int) -> dict[str, float]:
    """The median time of each artefact for a batch, in seconds."""
    once = {name: _seconds(predict, x, 1) for name, predict in artefacts.items()}
    calls = {name: max(1, math.ceil(MIN_SECONDS / seconds)) for name, seconds in once.items()}
    times: dict[str, list[float]] = {name: [] for name in artefacts}
    for _ in range(min(rounds, max(3, int(MAX_SECONDS / sum(once.values()))))):
        for name, predict in artefacts.items():
            times[name].append(_seconds(predict, x, calls[name]))
    return {name: statistics.median(each) for name, each in times.items()}


def _seconds(predict: Predict, x: Inputs, calls: int) -> float:
    """The time of one call, after a warm-up call: threads of the previous artefact may still be busy-waiting."""
    positional, named = arguments(x)
    predict(*positional, **named)
    began = time.perf_counter()
    for _ in range(calls):
        predict(*positional, **named)
    return (time.perf_counter() - began) / calls


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def weighted_layers(network: nn.Module) -> dict[str, nn.Linear | _ConvNd]:
    """The linear and convolutional layers, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | _ConvNd)}


def count_weights(network: nn.Module) -> int:
    """How many weights its layers have (see `tombola.prunable`), zeros included; shared ones count once."""
    return sum(math.prod(layer.shape) for layer in default_layers(network))


def memory_bytes(network: nn.Module) -> int:
    """Bytes of its parameters, buffers, and tensors that are plain attributes; shared ones count once."""
    constants = [each for module in network.modules() for each in vars(module).values() if isinstance(each, Tensor)]
    return sum(tensor.nbytes for tensor in distinct([*network.parameters(), *network.buffers(), *constants]))


def distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    """One tensor for each address: an exported program has several tensors for a shared parameter."""
    return list({(tensor.data_ptr(), tensor.nbytes): tensor for tensor in tensors}.values())


def count_multiply_adds(network: nn.Module, example: Inputs) -> int:
    """Multiply-adds of its weights for one of the examples, zeros and padding included; see `multiply_adds`."""
    graph = record(copy_network(network).eval(), example)
    return sum(multiply_adds(graph, batch_size(example)).values())
