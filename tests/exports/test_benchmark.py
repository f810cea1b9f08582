from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tombola.exports import benchmark
from tombola.exports.benchmark import (
    Artefact,
    Figures,
    Predict,
    count_multiply_adds,
    count_weights,
    measure,
    memory_bytes,
)
from tombola.pruning.mask import prunable


class Clock:
    """Time passes only in predictions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def predictor(self, seconds: float, by: float = 0.0) -> Predict:
        """Takes so many seconds for each example; returns the example plus `by`."""

        def predict(x: Tensor) -> Tensor:
            self.now += seconds * len(x)
            return x.flatten(1) + by

        return predict


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def artefact(name: str, predict: Predict | None, **more: Any) -> Artefact:
    return Artefact(name, 1, 2, 3, 4, predict, **more)


def figures(*predictions: Predict | None, x: Tensor, y: Tensor | None = None) -> list[Figures]:
    """Figures of artefacts with the names 0, 1, ..., after one round."""
    return measure([artefact(str(n), each) for n, each in enumerate(predictions)], x, y, rounds=1)


def test_latency_and_throughput_are_measured(clock: Clock) -> None:
    sides = [artefact("slow", clock.predictor(1e-3)), artefact("fast", clock.predictor(1e-5))]
    slow, fast = measure(sides, torch.zeros(10, 4))
    assert slow.latency == pytest.approx(1e-3)
    assert fast.latency == pytest.approx(1e-5)
    assert slow.throughput == pytest.approx({64: 1e3, 256: 1e3})
    assert fast.throughput == pytest.approx({64: 1e5, 256: 1e5})


def test_artefacts_are_timed_in_turns_and_batches_are_filled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MIN_SECONDS", 0.0)
    calls: list[tuple[str, int]] = []

    def noting(name: str) -> Predict:
        return lambda x: (calls.append((name, len(x))), x.clone())[1]

    x = torch.arange(12.0).reshape(3, 4)
    measure([artefact(name, noting(name)) for name in "ab"], x, rounds=2)
    # For each artefact: a warm-up call and one timed call; then two rounds of the same.
    one = [("a", 1), ("a", 1), ("b", 1), ("b", 1)] * 3
    assert calls == [("a", 3), ("b", 3)] + [(name, size) for size in (1, 64, 256) for name, _ in one]
    assert torch.equal(benchmark._batch(x, 7), torch.cat([x, x, x[:1]]))


def test_untimed_artefacts_and_files_have_no_latency(clock: Clock) -> None:
    untimed = artefact("ticket", clock.predictor(1.0, by=0.25), timed=False, working=5)
    first, ticket, file = measure([artefact("dense", clock.predictor(1e-3)), untimed, artefact("file", None)],
                                  torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64), rounds=1)  # fmt: skip
    assert (first.difference, first.accuracy, first.not_finite) == (0.0, 1.0, 0)
    assert (ticket.latency, ticket.throughput, ticket.difference, ticket.accuracy) == (None, {}, 0.25, 1.0)
    assert (file.latency, file.throughput, file.difference, file.accuracy) == (None, {}, None, None)
    assert file.not_finite is None
    assert (file.weights, file.bytes, file.memory, file.multiply_adds, ticket.working) == (1, 2, 3, 4, 5)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("examples", [1, 2, 255, 256, 257, 600])
def test_accuracy_and_difference_are_over_all_examples(examples: int) -> None:
    y = torch.arange(examples) % 3
    right = nn.functional.one_hot(y, 3).float()
    last = torch.zeros(examples, 3)
    last[-1] = torch.tensor([0.0, 0.0, 2.0]).roll(int(y[-1]) + 2)  # a wrong prediction for the last example
    exact, other = figures(lambda x: x, lambda x: x, x=right, y=y)
    assert (exact.accuracy, other.accuracy, other.difference) == (1.0, 1.0, 0.0)
    exact, other = figures(
        lambda x: x[:, :3].clone(), lambda x: x[:, 3:].clone(), x=torch.cat([right, right + last], 1), y=y
    )
    assert exact.accuracy == 1.0
    assert other.accuracy == (examples - 1) / examples
    assert other.difference == 2.0


@pytest.mark.usefixtures("quick")
def test_outputs_that_are_not_logits_have_no_accuracy() -> None:
    x, y = torch.randn(4, 6), torch.tensor([0, 1, 0, 1])
    for answers in (
        lambda x: x[:, :1],  # one logit for two classes
        lambda x: x[:, 0].clone(),
        lambda x: x.reshape(-1, 3, 2),
    ):
        (only,) = figures(answers, x=x, y=y)
        assert only.accuracy is None
        assert only.difference == 0.0
    assert figures(lambda x: x[:, :2], x=x)[0].accuracy is None


@pytest.mark.usefixtures("quick")
def test_nan_is_neither_correct_nor_close() -> None:
    x, y = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]]), torch.tensor([0, 0, 0])

    def broken(value: float) -> Predict:
        def predict(x: Tensor) -> Tensor:
            return torch.where(x[:, :1] == 2, torch.tensor([[value, 0.0]]), x)

        return predict

    fine, nan, infinite = figures(lambda x: x, broken(math.nan), broken(math.inf), x=x, y=y)
    assert (fine.accuracy, fine.difference, fine.not_finite) == (1.0, 0.0, 0)
    assert (nan.accuracy, nan.difference, nan.not_finite) == (2 / 3, None, 1)
    assert (infinite.accuracy, infinite.difference, infinite.not_finite) == (1.0, None, 1)
    first, same, opposite, whole = figures(broken(math.nan), broken(math.nan), broken(-math.inf), lambda x: x, x=x)
    assert (first.difference, same.difference, same.not_finite) == (0.0, 0.0, 1)
    assert (opposite.difference, whole.difference, whole.not_finite) == (None, None, 0)
    assert figures(broken(math.inf), broken(math.inf), broken(-math.inf), x=x)[1].difference == 0.0
    assert figures(broken(math.inf), broken(-math.inf), x=x)[1].difference is None


def test_the_number_of_threads_is_restored() -> None:
    before, seen = torch.get_num_threads(), []

    def predict(_: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        measure([artefact("a", predict)], torch.zeros(1, 2), threads=before + 1)
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_multiply_adds_of_linear_layers() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    assert count_multiply_adds(network, torch.zeros(3, 8, 8)) == 64 * 20 + 20 * 10
    assert count_multiply_adds(nn.Linear(5, 7), torch.zeros(2, 4, 5)) == 4 * 5 * 7  # for each of four tokens
    shared = nn.Linear(5, 5)
    assert count_multiply_adds(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(2, 5)) == 2 * 25
    assert count_weights(nn.Sequential(shared, nn.ReLU(), shared)) == 25


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_multiply_adds_of_convolutions(data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 2))
    before, after = (groups * data.draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, padding = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)), data.draw(st.integers(0, 1))
    side, transposed = data.draw(st.integers(3, 6)), data.draw(st.booleans())
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    padding = 0 if transposed else padding
    layer = kind(before, after, kernel, stride, padding, groups=groups)
    lower = (side + 2 * padding - kernel) // stride + 1
    for_each = kernel * kernel * (before // groups) * (after // groups) * groups
    # A convolution multiplies the kernel at every place of its output, a transposed one at every place of its input.
    assert (
        count_multiply_adds(layer, torch.zeros(2, before, side, side))
        == (side if transposed else lower) ** 2 * for_each
    )


def test_counting_multiply_adds_leaves_no_hooks() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 3)
    )
    example = torch.zeros(5, 1, 8, 8)
    assert count_multiply_adds(network, example) == 64 * 9 * 4 + 4 * 9 * 4 * 6 + 24 * 3
    assert not any(layer._forward_hooks for layer in network.modules())
    with pytest.raises(RuntimeError):
        count_multiply_adds(network, torch.zeros(5, 2, 8, 8))
    assert not any(layer._forward_hooks for layer in network.modules())


def test_weights_and_memory() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    assert count_weights(network) == 2 * 4 * 9 + 16 * 3
    assert len(prunable(network)) == 2
    numbers = 2 * 4 * 9 + 4 + 4 * 4 + 16 * 3 + 3
    assert memory_bytes(network) == 4 * numbers + 8  # the number of batches that were normalised is an int64


def test_memory_includes_constants_and_counts_shared_tensors_once() -> None:
    network, constant = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(5, 3)), torch.zeros(7)
    network[1].constant = network.constant = constant
    assert memory_bytes(network) == 4 * (2 * 18 + 7)
    network[2].weight = nn.Parameter(network[0].weight.detach())  # another parameter of the same numbers
    assert memory_bytes(network) == 4 * (18 + 3 + 7)
