"""Made-up trainings that need no files: any network of the zoo on noisy images, stacked or one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import FIRST_STEPS
from tombola.engines.determinism import reproducible
from tombola.engines.eager import ModuleLearner
from tombola.engines.precision import matmul_precision
from tombola.engines.stacked import cuda_graph
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.pruning.mask import Mask
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Precision, Run, Training
from tombola.utils.duration import Duration
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.example_set import ExampleSet
from tombola.zoo.datasets.split import Split
from tombola.zoo.models import build, describe
from tombola.zoo.models.description import Start

CPU = torch.device("cpu")
MNIST, CIFAR = (28, 28), (3, 32, 32)
CLASSES = 10
ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 1.2e-3, "batch_size": 60}
"""The paper's settings of LeNet-300-100 (Frankle & Carbin 2019, figure 2)."""
SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.1, "batch_size": 64}
"""Those of the authors' first release."""
EVALUATED_AT_ONCE = 500
"""Examples of each run of a stack."""


def iterations(count: int) -> Duration:
    return Duration(iterations=count)


def made_up_split(inputs: tuple[int, ...] = MNIST, train: int = 55_000, validation: int = 5_000) -> Split:
    """Noisy copies of one random image for each class, with `validation` examples to validate and to test on."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(train + validation) % CLASSES
    images = torch.rand(CLASSES, *inputs, generator=generator)
    x = (torch.rand(len(y), *inputs, generator=generator) + images[y]) / 2
    held_out = ExampleSet(x[train:], y[train:])
    return Split(ExampleSet(x, y, torch.arange(train)), held_out, held_out)


def made_up_run(
    name: str = "lenet-300-100",
    inputs: tuple[int, ...] = MNIST,
    options: dict[str, Any] | None = None,
    *,
    density: float = 0.134,
    seed: int = 0,
    length: int = 1_000_000,
    precision: Precision = "fp32",
    **training: Any,
) -> Run:
    """A training of `length` iterations of a network whose weights are kept with the probability `density`."""
    start = Start(network=describe(name, options or {}, inputs, CLASSES), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    full = Mask.full(build(start)).items()
    return Run(
        start=start,
        mask=Mask({layer: torch.rand(kept.shape, generator=generator) < density for layer, kept in full}),
        data=Data(name="made up", digest="", seed=0, validation=1),
        training=Training(length=iterations(length), precision=precision, **(ADAM | training)),
        seed=seed,
    )


def stacked(runs: Sequence[Run], split: Split, device: torch.device, kernels: bool = True) -> EnsembleLearner:
    """A learner of all runs, with Triton's `kernels` where they can be used. Of runs that are one object the network
    is built once."""
    networks = {id(run): masked_network(run) for run in runs}
    each = [networks[id(run)] for run in runs]
    return EnsembleLearner(each, runs, [split] * len(runs), device, EVALUATED_AT_ONCE, kernels)


def one_by_one(run: Run, split: Split, device: torch.device) -> ModuleLearner:
    return ModuleLearner(masked_network(run).to(device), run, split, device)


def trained(size: int, split: Split, device: torch.device) -> EnsembleLearner:
    """A stack of LeNet-300-100 that has trained a few steps."""
    learner = stacked([made_up_run()] * size, split, device)
    learner.train(random_orders(size, FIRST_STEPS, ADAM["batch_size"], len(split.train)), 0)
    return learner


def random_orders(runs: int, iterations: int, batch: int, examples: int) -> Tensor:
    """Batches drawn with replacement, of each run its own: int64 of shape (runs, iterations, batch)."""
    return torch.randint(examples, (runs, iterations, batch), generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def as_engines_train(precision: Precision, device: torch.device, seed: int = 0) -> Iterator[None]:
    """The settings of torch that the engines train with."""
    with reproducible(seed, device), matmul_precision(precision, device):
        yield


@contextlib.contextmanager
def without_graphs() -> Iterator[None]:
    """Within it, stacks launch each operation, as they do before their iteration is captured as a CUDA graph."""
    calls, cuda_graph.WARM_UP_CALLS = cuda_graph.WARM_UP_CALLS, 2**62
    try:
        yield
    finally:
        cuda_graph.WARM_UP_CALLS = calls
