"""Running statistics of averaged networks, recomputed on training batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from tests.support.networks import BATCH_NORM, CONVOLUTIONAL, WITH_GELU
from tests.support.outcomes import random_mask
from tests.support.training import (
    ENGINES,
    SGD,
    assert_close,
    batch_orders,
    dense_run,
    no_checkpoint,
    same_state,
    train_in_order,
    variants,
)
from tombola.engines import Engine
from tombola.engines.eager import Eager
from tombola.engines.running_statistics import recompute_statistics
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.pruning.mask import State
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run
from tombola.utils.duration import ZERO, Duration
from tombola.zoo.datasets import prepare

CPU = torch.device("cpu")
FIVE = Duration(iterations=5)
STATISTICS = ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")


def average_of(dense: Run, statistics: Duration) -> tuple[list[Run], Run]:
    """Two runs, and their average with a mask."""
    ends = [dense.model_copy(update={"seed": seed}) for seed in (1, 2)]
    return ends, dense.masked(random_mask(dense, 0.5)).averaging(ends, dense.last, statistics)


def averaged_network(run: Run, states: dict[str, State]) -> nn.Module:
    return masked_network(run, states.__getitem__)


def random_states(dense: Run, *runs: Run) -> dict[str, State]:
    """Final states by key, with arbitrary running statistics."""
    generator = torch.Generator().manual_seed(3)
    states: dict[str, State] = {}
    for index, run in enumerate(runs):
        state = masked_network(dense.reinitialised(index)).state_dict()
        states[run.key] = {
            name: 1 + torch.rand(value.shape, generator=generator) if "running" in name else value
            for name, value in state.items()
        }
    return states


@pytest.mark.parametrize("statistics", [FIVE, Duration(epochs=1)])
def test_they_are_those_of_update_bn(statistics: Duration) -> None:
    dense = dense_run(model=BATCH_NORM, training=SGD)
    ends, average = average_of(dense, statistics)
    states = random_states(dense, *ends)
    split = prepare(average.data)
    found = recompute_statistics(averaged_network(average, states), average, split, CPU)
    expected = averaged_network(average, states)
    (order,) = batch_orders([average], statistics.iterations_of(len(split.train), 40))
    update_bn([split.train[batch][0] for batch in order], expected)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)
    assert not torch.allclose(found.norm.running_mean, averaged_network(average, states).norm.running_mean)
    assert found.training
    assert found.norm.training
    assert found.norm.momentum == 0.1


def test_dropout_and_global_state_do_not_matter() -> None:
    dense = dense_run(model=CONVOLUTIONAL, training=SGD, data__flip=True)
    ends, average = average_of(dense, FIVE)
    states = random_states(dense, *ends)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        network = recompute_statistics(averaged_network(average, states), average, prepare(average.data), CPU)
        found.append(network.state_dict())
        if seed:
            assert torch.equal(before, torch.get_rng_state())
    assert same_state(*found)
    still = average.model_copy(update={"data": average.data.model_copy(update={"flip": False})})
    other = recompute_statistics(averaged_network(still, states), still, prepare(still.data), CPU)
    assert not torch.equal(other.norm.running_mean, found[0]["norm.running_mean"])


class InstanceNormed(nn.Module):
    """Instance norm with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(8, track_running_stats=True)
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(self.norm(x).flatten(1))
        return logits


def test_instance_norm_has_the_mean_over_batches_too() -> None:
    dense = dense_run(model={"name": f"{__name__}:InstanceNormed"}, training=SGD, search__output_rate=0.3)
    ends, average = average_of(dense, FIVE)
    split = prepare(average.data)
    network = averaged_network(average, random_states(dense, *ends))
    found = recompute_statistics(network, average, split, CPU).norm
    (order,) = batch_orders([average], 5)
    means = torch.stack([split.train[batch][0].mean((0, 2)) for batch in order])
    torch.testing.assert_close(found.running_mean, means.mean(0))


WITHOUT_LOOPS = WITH_GELU | {"dropout": 0.0}
"""The sparse engine does not train it in compiled loops."""


@pytest.mark.parametrize(("engine", "model"), [*((each, BATCH_NORM) for each in ENGINES), (Sparse, WITHOUT_LOOPS)])
def test_all_engines_recompute_them_before_they_evaluate(engine: Callable[[], Engine], model: dict[str, Any]) -> None:
    dense = dense_run(model=model, training=SGD)
    ends, average = average_of(dense, FIVE)
    first, second, found = (outcome.final for outcome in train_in_order(engine, *ends, average))
    states = {ends[0].key: first, ends[1].key: second}
    expected = recompute_statistics(averaged_network(average, states), average, prepare(average.data), CPU)
    assert same_state(found, expected.state_dict())
    assert not torch.equal(found["norm.running_var"], (first["norm.running_var"] + second["norm.running_var"]) / 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_point_on_a_line_is_evaluated_with_them(engine: Callable[[], Engine]) -> None:
    dense = dense_run(model=BATCH_NORM, training=SGD)
    one, other = (dense.model_copy(update={"seed": seed}) for seed in (1, 2))
    points = [dense.between(one, other, 0.5, dense.last, statistics) for statistics in (ZERO, FIVE)]
    average = dense.averaging([one, other], dense.last, FIVE)
    *_, plain, recomputed, averaged = train_in_order(engine, one, other, *points, average)
    losses = [outcome.curves["validation_loss"].item() for outcome in (plain, recomputed, averaged)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-4)
    assert losses[0] != pytest.approx(losses[2], rel=1e-4)


def test_each_run_of_a_stack_has_its_own() -> None:
    runs = variants(dense_run(model=BATCH_NORM, training=SGD), 3)
    averages = [run.averaging([run], run.last, FIVE) for run in runs]
    states = {run.key: random_states(run, run)[run.key] for run in runs}
    together = Stacked().train(averages, no_checkpoint(), states.__getitem__)
    for run, outcome in zip(averages, together, strict=True):
        expected = recompute_statistics(averaged_network(run, states), run, prepare(run.data), CPU).state_dict()
        assert all(torch.equal(outcome.final[name], expected[name]) for name in STATISTICS)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("engine", [Eager, Stacked])
def test_on_cuda_they_are_close_to_those_of_the_cpu(engine: type[Eager | Stacked]) -> None:
    dense = dense_run(model=BATCH_NORM, training=SGD, data__flip=True)
    ends, average = average_of(dense, FIVE)
    states = random_states(dense, *ends)
    (found,), (expected,) = (
        each.train([average], no_checkpoint(), states.__getitem__) for each in (engine(None, "cuda"), Eager())
    )
    assert_close(found.final, expected.final)
