"""What the compiled loops read and write: only what they wrote before, and nothing outside of their arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.training import CPU, dense_run
from tombola.engines.eager import ModuleLearner
from tombola.engines.sparse.compiled_plan import compiled_plan
from tombola.engines.sparse.network_learner import NetworkLearner
from tombola.kernels.products import Floats, aligned
from tombola.kernels.training.tables import Workspace
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.zoo.datasets.example_set import ExampleSet
from tombola.zoo.datasets.split import Split

GUARD = 1024
"""NaN before and behind each array."""
EXAMPLES, CLASSES, STEPS = 70, 5, 3


class Residual(nn.Module):
    """ReLU of the sum of images and their batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(x) + x)


NETWORKS: dict[str, tuple[tuple[int, ...], Callable[[], list[nn.Module]]]] = {
    "features": ((15,), lambda: [nn.Linear(15, 17), nn.BatchNorm1d(17), nn.ReLU(), nn.Dropout(0.2)]),
    "images of one pixel": ((33, 1, 1), lambda: [nn.Conv2d(33, 20, 3, padding=1), nn.ReLU()]),
    # The gradient of the second convolution's output has zeros around it, in memory of later gradients.
    "dropout after a convolution": (
        (2, 10, 10),
        lambda: [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 3), nn.Dropout(0.3), nn.Conv2d(5, 4, 2)],
    ),
    "convolutions to the last": (
        (2, 10, 10),
        lambda: [nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 3), nn.Conv2d(5, CLASSES, 4)],
    ),
    "strides, dilation and groups": (
        (3, 11, 7),
        lambda: [nn.Conv2d(3, 6, (4, 2), (3, 1), (2, 1), (1, 2), 3), nn.ReLU(), nn.Conv2d(6, 7, 1, stride=(1, 3))],
    ),
    "pools": (
        (3, 9, 8),
        lambda: [
            nn.Conv2d(3, 5, (2, 4), padding="same"), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 1, 1),
            nn.Conv2d(5, 4, 3, padding=2), nn.MaxPool2d(2, 4),
        ],
    ),
    "a residual sum": (
        (3, 6, 6), lambda: [nn.Conv2d(3, 4, 3, padding=1), Residual(), nn.Conv2d(4, 4, 5, padding=2)]
    ),
}  # fmt: skip


def network_of(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    inputs, layers = NETWORKS[name]
    torch.manual_seed(0)
    network = nn.Sequential(*layers(), nn.Flatten())
    features = network.eval()(torch.zeros(1, *inputs)).numel()
    if features != CLASSES:
        network.append(nn.Linear(features, CLASSES))
    return network.train(), inputs


def masked_run(network: nn.Module, density: float, batch: int) -> Run:
    """With a mask in which some rows and columns are empty, unless it is dense."""
    kept = {name: torch.rand(mask.shape) < density for name, mask in Mask.full(network).items()}
    for mask in kept.values():
        if density < 1:
            mask[1] = mask[:, -1] = False
    training = {"optimizer": "sgd", "lr": 0.02, "batch_size": batch, "length": f"{STEPS}it", "momentum": 0.9}
    return dense_run(training=training).masked(Mask(kept))


def random_split(inputs: tuple[int, ...]) -> Split:
    x, y = torch.randn(EXAMPLES, *inputs), torch.randint(0, CLASSES, (EXAMPLES,))
    return Split(*[ExampleSet(x, y)] * 3)


def guarded(array: Floats) -> tuple[Floats, Floats]:
    """A copy of an array, and the larger one in which it lies."""
    around = aligned(array.size + 2 * GUARD)
    around[:] = np.nan
    around[GUARD:-GUARD] = array
    return around[GUARD:-GUARD], around


def fill_with_nan(learner: NetworkLearner, work: Workspace) -> None:
    """Fill all numbers but the zeros around images and around the gradient of the logits, which are never written."""
    for slot in learner.layout.values.values():
        for group in range(work.groups):
            pixels = group * work.group_size + slot.pixels[:, None] * work.n + np.arange(work.n)
            work.activations[pixels] = np.nan
    for array in (work.deltas, work.transposed, work.valid, work.sums, work.mean, work.deviation, work.logits):
        array[:] = np.nan
    logits = learner.layout.gradients[learner.layout.plan.logits]
    for group in range(work.groups if work.deltas.size else 0):
        work.deltas[group * work.back_group_size :][logits.begin * work.n : logits.end * work.n] = 0


def guard_arrays(learner: NetworkLearner) -> list[Floats]:
    """Put the learner's arrays into larger ones, and its workspaces' numbers to NaN; returns the larger ones."""
    larger = []
    changes: dict[str, Any] = {}
    for name in ("current", "workspace", "evaluation_workspace"):
        tables = getattr(learner, name)
        if name != "current":
            fill_with_nan(learner, tables)
        arrays = {}
        for field, array in tables._asdict().items():
            if isinstance(array, np.ndarray) and array.dtype == np.float32 and array.size:
                arrays[field], around = guarded(array)
                larger.append(around)
        changes[name] = tables._replace(**arrays)
    for name, tables in changes.items():
        setattr(learner, name, tables)
    return larger


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("batch", [1, 15, 17, 60, 128])
@pytest.mark.parametrize("density", [1.0, 0.61, 0.59, 0.1, 0.0])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_read_before_it_is_written_or_outside_of_arrays(name: str, density: float, batch: int) -> None:
    network, inputs = network_of(name)
    if batch == 1 and name == "features":
        return  # batch norm of a single number
    plan = compiled_plan(network, inputs)
    assert not isinstance(plan, str), plan
    run, split = masked_run(network, density, batch), random_split(inputs)
    run.mask.apply_(network)
    plain, other = (NetworkLearner(plan, network.state_dict(), run, split) for _ in range(2))
    larger = guard_arrays(other)
    eager = ModuleLearner(network, run, split, CPU)
    for step in range(STEPS):
        order = torch.randint(0, EXAMPLES, (1, 1, batch))
        losses = []
        for learner in (plain, other, eager):
            learner.train(order, step)
            losses += learner.take_losses()
        assert losses[0] == losses[1]
        if "dropout" not in name and name != "features":
            assert losses[0] == pytest.approx(losses[2], rel=1e-3)
    (mine,), (others,) = plain.weights(), other.weights()
    assert all(torch.equal(mine[key], others[key]) for key in mine)
    assert plain.evaluate("test") == other.evaluate("test")
    for around in larger:
        assert np.isnan(around[:GUARD]).all()
        assert np.isnan(around[-GUARD:]).all()
