"""Random networks, valid by construction: graphs of convolutions, norms, gates, splits, attention and shared modules
that additions and concatenations tie together, with one to several outputs."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.architectures.architecture import Made, lively
from tests.support.architectures.random_steps import ACTIVATIONS, STEPS, Concatenation, Sum, conv

MOST_CHANNELS, LARGEST_SIDE = 24, 16


def random_graph(seed: int) -> Made:
    """The network of this seed in evaluation mode, in float32, and a batch of two images."""
    return _made(Random(seed), seed)


def random_graphs() -> st.SearchStrategy[Made]:
    """The same, drawn and made simpler by hypothesis."""
    return st.builds(_made, st.randoms(use_true_random=False), st.integers(0, 2**16))


def _made(choice: Random, seed: int) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        example = torch.randn(2, choice.choice([1, 3]), 8, 8)
        network = _Builder(choice, example).build()
        return lively(network, example).eval(), example


class Graph(nn.Module):
    """Modules, each applied to earlier values by their numbers; 0 is the input. Returns what the heads return."""

    def __init__(
        self, steps: list[nn.Module], reads: list[list[int]], heads: list[nn.Module], ends: list[int]
    ) -> None:
        super().__init__()
        self.steps, self.heads = nn.ModuleList(steps), nn.ModuleList(heads)
        self.reads, self.ends = reads, ends

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for step, read in zip(self.steps, self.reads, strict=True):
            values.append(step(*(values[number] for number in read)))
        returned = [head(values[end]) for head, end in zip(self.heads, self.ends, strict=True)]
        return returned[0] if len(returned) == 1 else {f"head{n}": value for n, value in enumerate(returned)}


class _Builder:
    """Adds steps one by one, and runs them, so that shapes are known."""

    def __init__(self, choice: Random, example: Tensor) -> None:
        self.choice = choice
        self.values = [example]
        self.steps: list[nn.Module] = []
        self.reads: list[list[int]] = []

    @torch.no_grad()
    def build(self) -> Graph:
        self._add(conv(self.choice, self.values[0].shape[1], stride=1), [0])
        for _ in range(self.choice.randint(2, 8)):
            self._add_any()
        read = {number for read in self.reads for number in read}
        ends = [number for number in range(len(self.values)) if number not in read]
        if self.choice.random() < 0.3:  # one that other steps read, too
            ends.append(self.choice.randrange(1, len(self.values)))
        return Graph(self.steps, self.reads, [self._head(number) for number in ends], ends)

    def _add(self, step: nn.Module, read: list[int]) -> int:
        """The number of its value."""
        self.values.append(step.eval()(*(self.values[number] for number in read)))
        self.steps.append(step)
        self.reads.append(read)
        return len(self.steps)

    def _recent(self) -> int:
        """The number of a value, mostly the last."""
        return self.choice.choice([len(self.values) - 1] * 3 + [*range(1, len(self.values))])

    def _channels(self, number: int) -> int:
        return self.values[number].shape[1]

    def _add_any(self) -> None:
        way = self.choice.choices(
            [self._add_step, self._add_sum, self._add_concatenation, self._add_shared], [6, 2, 1, 1]
        )
        way[0]()

    def _add_step(self) -> None:
        """One with one input; small images are not pooled, large ones neither up-sampled nor attended to."""
        number = self._recent()
        for _ in range(20):
            made = self.choice.choices([make for _, make in STEPS], [weight for weight, _ in STEPS])[0]
            if self._fits(made.__name__, self.values[number].shape):
                self._add(made(self.choice, self._channels(number)), [number])
                return

    @staticmethod
    def _fits(name: str, shape: torch.Size) -> bool:
        channels, side = shape[1], shape[2]
        if name in ("up_sampling", "transposed"):
            return 2 * side <= LARGEST_SIDE
        if name in ("depthwise", "padded"):
            return 2 * channels <= MOST_CHANNELS
        if name in ("attention", "perceptron"):  # layer norm of few numbers magnifies rounding errors
            return channels >= 4 and side <= 8
        return (name != "pooling" or side >= 4) and (name != "split" or channels >= 2)

    def _add_sum(self) -> None:
        """Of two values; one of them is projected if their shapes differ."""
        one, other = self._recent(), self._recent()
        if self.values[one].shape != self.values[other].shape:
            other = self._projected(other, self._channels(one), self.values[one].shape[2])
        self._add(Sum(gated=self.choice.random() < 0.2), [one, other])

    def _projected(self, number: int, channels: int, side: int) -> int:
        size = nn.Identity() if self.values[number].shape[2] == side else nn.AdaptiveAvgPool2d(side)
        return self._add(nn.Sequential(conv(self.choice, self._channels(number), channels, 1), size), [number])

    def _add_concatenation(self) -> None:
        """Of values of the same size, of which one may be there twice."""
        one = self._recent()
        alike = [n for n in range(len(self.values)) if self.values[n].shape[2] == self.values[one].shape[2]]
        read = [one, *self.choice.choices(alike, k=self.choice.randint(1, 2))]
        if sum(map(self._channels, read)) <= MOST_CHANNELS:
            self._add(Concatenation(), read)

    def _add_shared(self) -> None:
        """A module that is there already, for another value with as many channels."""
        places = [
            (step, number)
            for step, read in zip(self.steps, self.reads, strict=True)
            for number, value in enumerate(self.values)
            if len(read) == 1 and value.shape == self.values[read[0]].shape and number != read[0]
        ]
        if places:
            step, number = self.choice.choice(places)
            self._add(step, [number])

    def _head(self, number: int) -> nn.Module:
        """Maps a value to an output: a map, features, or classes from pooled or flattened ones."""
        _, channels, height, width = self.values[number].shape
        flat = channels * height * width
        ways: list[list[nn.Module]] = [
            [nn.Conv2d(channels, 2, 1)],
            [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)],
            [nn.Flatten(), nn.Linear(flat, 3)],
            [nn.Flatten(), nn.Linear(flat, 6), self.choice.choice(ACTIVATIONS)(), nn.Linear(6, 2)],
            [
                *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 6)),
                *(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)),
            ],
            [nn.Identity()],
        ]
        return nn.Sequential(*self.choice.choices(ways, [2, 3, 2, 2, 2, 1])[0])
