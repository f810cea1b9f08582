"""Measuring: artefacts side by side, on the same examples, in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tombola.pruning.mask import prunable

Answers = Callable[[Tensor], Tensor]
"""Examples (N, *inputs), float32 on the CPU, to outputs (N, *outputs)."""

TURNS = 11
"""How often each side takes its turn; figures are medians."""

TURN = 0.02
"""Seconds that a turn of the fastest side should take at least: short calls are repeated."""

PATIENCE = 20.0
"""Seconds that all turns for one size of batches should take at most; there are three turns at least."""

BATCHES = (1, 64, 256)
"""Of the first the latency is measured, of the others the throughput."""

TOGETHER = 256
"""How many examples are evaluated together."""


@dataclass(frozen=True)
class Artefact:
    """Something that stands for a network."""

    name: str
    weights: int
    """How many weights of linear and convolutional layers it stores, zeros included if they are."""
    bytes: int
    """Of its file."""
    memory: int | None
    """Bytes of its weights, buffers and indices once it is loaded; working space comes on top."""
    multiply_adds: int | None
    """For one example, those with zeros included if they are done."""
    answers: Answers | None
    """None of what is only a file."""
    timed: bool = True
    """Whether it runs by itself; else another artefact's speed would be measured."""
    file: str = ""
    """Its name, where it is kept."""
    working: int | None = None
    """Bytes of room for activations that it keeps between calls, after a batch of the largest of `BATCHES`; None
    where nobody tells: PyTorch and ONNX Runtime need such room, too."""


Count = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Speed = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Figures:
    """What was measured of an artefact: finite numbers only, so that JSON holds them."""

    name: str
    file: str
    weights: Count
    bytes: Count
    memory: Count | None
    multiply_adds: Count | None
    latency: Speed | None
    """Seconds for one example."""
    throughput: dict[Positive, Speed]
    """Examples per second, by batch size; empty of what is not timed."""
    accuracy: Share | None
    """On the whole test set; None where there are no labels, or outputs are not (N, classes)."""
    difference: Distance | None
    """The largest absolute difference of an output from the first artefact's, over all test examples. None where
    that is no number: one of the two is finite where the other is not."""
    not_finite: Count | None = None
    """Of how many test examples an output is infinite or not a number; None of what gives no answers."""
    working: Count | None = None


def quiet(line: str) -> None:
    """For where nobody wants to know what is being done."""


@torch.inference_mode()
def measure(
    artefacts: Sequence[Artefact],
    x: Tensor,
    y: Tensor | None = None,
    threads: int = 1,
    turns: int = TURNS,
    tell: Callable[[str], None] = quiet,
) -> list[Figures]:
    """Measure all of them on the examples `x`; the first is what the others are held against.

    Each side answers batches of 1, 64 and 256 in turns with the others, so that what else the machine does falls on
    all alike. `y` are labels, int64, if there are any. `threads` is how many PyTorch may use; other sides should be
    made to use as many. `tell` is called with what is done next.
    """
    with _threads(threads):
        outputs: dict[str, Tensor] = {}
        for a in artefacts:
            if a.answers is not None:
                tell(f"{a.name}: {len(x):,} examples")
                outputs[a.name] = _all(a.answers, x)
        sides = {a.name: a.answers for a in artefacts if a.answers is not None and a.timed}
        seconds: dict[int, dict[str, float]] = {}
        for batch in BATCHES:
            tell(f"batches of {batch}, in turns")
            seconds[batch] = _in_turns(sides, _batch(x, batch), turns)
    reference = outputs[artefacts[0].name]
    figures = []
    for a in artefacts:
        out, timed = outputs.get(a.name), a.name in sides
        figures.append(
            Figures(
                *(a.name, a.file, a.weights, a.bytes, a.memory, a.multiply_adds),
                latency=seconds[1][a.name] if timed else None,
                throughput={batch: batch / seconds[batch][a.name] for batch in BATCHES[1:]} if timed else {},
                accuracy=None if out is None or y is None else _accuracy(out, y),
                difference=None if out is None else _difference(out, reference),
                not_finite=None if out is None else int((~_rows(out).isfinite()).any(1).sum()),
                working=a.working,
            )
        )
    return figures


def _accuracy(outputs: Tensor, labels: Tensor) -> float | None:
    """The share of right answers; None where outputs are no logits of the classes. NaN is no right answer."""
    if outputs.dim() != 2 or int(labels.max()) >= outputs.shape[1]:
        return None
    right = (outputs.argmax(1) == labels) & ~outputs.isnan().any(1)
    return right.double().mean().item()


def _difference(outputs: Tensor, reference: Tensor) -> float | None:
    """The largest; infinities of one sign, and places that are both NaN, are the same."""
    same = (outputs == reference) | (outputs.isnan() & reference.isnan())
    largest = (outputs.double() - reference.double()).abs().masked_fill(same, 0).max().item()
    return largest if math.isfinite(largest) else None


def _rows(outputs: Tensor) -> Tensor:
    return outputs.reshape(len(outputs), -1)


def _all(answers: Answers, x: Tensor) -> Tensor:
    return torch.cat([answers(part) for part in torch.split(x, TOGETHER)])


def _batch(x: Tensor, size: int) -> Tensor:
    """That many of the examples, over and over if there are fewer."""
    return x.repeat(math.ceil(size / len(x)), *[1] * (x.dim() - 1))[:size].contiguous()


def _in_turns(sides: Mapping[str, Answers], x: Tensor, turns: int) -> dict[str, float]:
    """Seconds that each side takes for the batch; the median of its turns, which are fewer where they take long."""
    once = {name: _seconds(answers, x, 1) for name, answers in sides.items()}
    calls = {name: max(1, math.ceil(TURN / seconds)) for name, seconds in once.items()}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(min(turns, max(3, int(PATIENCE / sum(once.values()))))):
        for name, answers in sides.items():
            times[name].append(_seconds(answers, x, calls[name]))
    return {name: statistics.median(each) for name, each in times.items()}


def _seconds(answers: Answers, x: Tensor, calls: int) -> float:
    """For one call, after one that does not count: threads of the side before may still be waiting for more to do,
    at full speed."""
    answers(x)
    began = time.perf_counter()
    for _ in range(calls):
        answers(x)
    return (time.perf_counter() - began) / calls


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def layers(network: nn.Module) -> dict[str, nn.Linear | _ConvNd]:
    """The linear and convolutional layers, by name: those whose weights are counted."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear | _ConvNd)}


def weights(network: nn.Module) -> int:
    """How many weights its linear and convolutional layers have, zeros included; what layers share counts once."""
    parameters = dict(network.named_parameters())
    return sum(parameters[name].numel() for name in prunable(network))


def memory(network: nn.Module) -> int:
    """Bytes of its parameters, its buffers, and its constants, which are plain attributes; what is shared, once."""
    constants = [
        value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)
    ]
    return sum(tensor.nbytes for tensor in apart([*network.parameters(), *network.buffers(), *constants]))


def apart(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Those of different numbers in memory: programs that were read have several tensors of what layers share."""
    return list({(tensor.data_ptr(), tensor.nbytes): tensor for tensor in tensors}.values())


@torch.no_grad()
def multiply_adds(network: nn.Module, example: Tensor) -> int:
    """Multiply-adds of its linear and convolutional layers for one of the examples, zeros and padding included."""
    done: list[int] = []

    def note(layer: nn.Linear | _ConvNd, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # The first axis of a weight is that of the outputs; of a transposed convolution, which spreads each input
        # over many outputs, that of the inputs.
        side = inputs[0] if isinstance(layer, _ConvTransposeNd) else output
        done.append(side.numel() // layer.weight.shape[0] * layer.weight.numel())

    handles = [layer.register_forward_hook(note) for layer in layers(network).values()]
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    return sum(done) // len(example)
