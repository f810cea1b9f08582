"""Whether the engines are right on a device: beside one another, and to the bit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks import stacks
from benchmarks.device.parts import Findings, Place, Row
from tombola.engines.training_loop import TrainingLoop
from tombola.runs.outcome import Outcome
from tombola.runs.run import Precision, Run
from tombola.zoo.datasets.split import Split

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}
"""Relative differences of summed losses."""
DEEP = 5e-3
"""The same of three steps of other networks, which magnify rounding."""

BITS: dict[str, dict[str, Any]] = {
    "adam": {"name": "mlp", "options": {"widths": [20, 10]}},
    "dropout": {"name": "mlp", "options": {"widths": [20, 10], "dropout": 0.3}},
    "sgd, momentum, cosine": {
        "name": "mlp",
        "options": {"widths": [20, 10]},
        **stacks.SGD,
        "momentum": 0.9,
        "schedule": "cosine",
    },
    "convolutions": {"name": "conv-2", "options": {"width": 0.1, "dropout": 0.5}, "inputs": (3, 16, 16)},
    "batch norm": {"name": "resnet", "options": {"depth": 8, "width": 4}, "inputs": (3, 16, 16)},
}
"""Small trainings."""

NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    "lenet-5": (stacks.MNIST, {}, {}),
    "conv-2": (stacks.CIFAR, {}, {"width": 0.1}),
    "resnet-20": (stacks.CIFAR, {}, {"width": 4}),
    "vgg-16": (stacks.CIFAR, {}, {"width": 0.1}),
    "vit": (stacks.CIFAR, {"depth": 2}, {"depth": 2, "width": 12}),
}
"""Inputs, options, and options in a rehearsal."""


def agreement(place: Place) -> Findings:
    """Summed losses of LeNet-300-100: eager and stacked on the device, beside eager on the CPU in float32."""
    steps = 20 if place.rehearsal else 300
    split = stacks.made_up_split(train=2_000, validation=500)
    orders = stacks.random_orders(4, steps, stacks.ADAM["batch_size"], 2_000)
    with stacks.as_engines_train("fp32", stacks.CPU):
        reference = stacks.one_by_one(stacks.made_up_run(seed=1), split, stacks.CPU)
        reference.train(orders[1:2], 0)
        expected = reference.take_losses()[0]
    found = Findings([])
    for precision, tolerance in TOLERANCES.items():
        runs = [stacks.made_up_run(precision=precision, seed=seed) for seed in range(4)]
        with stacks.as_engines_train(precision, place.device):
            eager = stacks.one_by_one(runs[1], split, place.device)
            eager.train(orders[1:2], 0)
            stack = stacks.stacked(runs, split, place.device)
            stack.train(orders, 0)
            losses = {"eager": eager.take_losses()[0], "stacked": stack.take_losses()[1]}
        off = {side: abs(loss / expected - 1) for side, loss in losses.items()}
        found.rows.append({"precision": precision, **off, "mean loss": expected / steps})
        found.wrong.extend(
            f"{side} training with {precision} is {each:.1%} off"
            for side, each in off.items()
            if not each <= tolerance
        )
    return found


def bits(place: Place) -> Findings:
    """Small stacks, trained in four ways that have to give the same bits."""
    found = Findings([])
    for name, options in BITS.items():
        same = bits_of(options, place)
        found.rows.append({"training": name, **same})
        found.wrong.extend(f"{name}: {way} differs" for way, equal in same.items() if not equal)
    return found


def bits_of(options: dict[str, Any], place: Place) -> dict[str, bool]:
    """For each way of training, whether it gives the same bits as the first."""
    inputs = options.get("inputs", (8, 8))
    split = stacks.made_up_split(inputs, train=400, validation=100)
    length = 30 if place.rehearsal else 60
    every = {"evaluate_every": stacks.iterations(10)}
    settings = {"inputs": inputs, "density": 0.5, "length": length} | every | options
    runs = [stacks.made_up_run(seed=seed, **settings) for seed in range(3)]
    first = train(runs, split, place)
    with stacks.without_graphs():
        launched = train(runs, split, place)
    ways = {
        "again": train(runs, split, place),
        "launched": launched,
        "resumed": train(runs, split, place, length // 2),
    }
    return {way: all(map(same_bits, first, outcomes)) for way, outcomes in ways.items()}


def train(runs: Sequence[Run], split: Split, place: Place, pause: int | None = None) -> list[Outcome]:
    """Train a stack to the end. With `pause` its state is taken there, and another stack resumes from it."""

    def begin() -> TrainingLoop:
        return TrainingLoop(runs, stacks.stacked(runs, split, place.device), split.train)

    with stacks.as_engines_train(runs[0].training.precision, place.device):
        loop = begin()
        if pause:
            while loop.iteration < pause:
                loop.advance()
            state = loop.snapshot()
            loop = begin()
            loop.restore(*state)
        while not loop.finished:
            loop.advance()
        return loop.outcomes("stacked")


def same_bits(a: Outcome, b: Outcome) -> bool:
    """Whether weights and curves are equal."""
    return all(
        torch.equal(one[name], other[name])
        for one, other in ((a.final, b.final), (a.curves, b.curves))
        for name in one
    )


def networks(place: Place) -> Findings:
    """What the test on the CPU accepts and CUDA may not: a few steps of each network."""
    found = Findings([])
    for name, (inputs, options, tiny) in NETWORKS.items():
        run = stacks.made_up_run(
            name, inputs, tiny if place.rehearsal else options, optimizer="sgd", lr=0.01, batch_size=32
        )
        split = stacks.made_up_split(inputs, train=400, validation=100)
        try:
            row = network_row(run, split, place)
        except Exception as error:  # noqa: BLE001 - the others go on
            found.wrong.append(f"{name}: {type(error).__name__}: {error}")
            continue
        found.rows.append({"network": name, **row})
        if not row["difference"] <= DEEP:
            found.wrong.append(f"{name}: losses differ by {row['difference']:.2%}")
    return found


def network_row(run: Run, split: Split, place: Place) -> Row:
    """Losses of four runs stacked and of one by itself, of the first three steps; then more, and evaluations, to be
    captured as CUDA graphs."""
    orders = stacks.random_orders(1, 3, 32, 400)
    runs = [run] * (2 if place.rehearsal else 4)
    with stacks.as_engines_train("fp32", place.device), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alone = stacks.one_by_one(run, split, place.device)
        alone.train(orders, 0)
        stack = stacks.stacked(runs, split, place.device)
        stack.train(orders.expand(len(runs), -1, -1), 0)
        losses = {"one by one": alone.take_losses()[0], "stacked": stack.take_losses()[0]}
        stack.train(orders.expand(len(runs), -1, -1), 3)
        for _ in range(5):
            stack.evaluate("validation")
    difference = abs(losses["stacked"] / losses["one by one"] - 1)
    messages = "; ".join(sorted({str(warning.message)[:80] for warning in caught}))
    return {**losses, "difference": difference, "warnings": messages}
