from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.support.networks import CONVOLUTIONAL
from tests.support.outcomes import random_mask
from tests.support.training import assert_close, dense_run, pruned_run, train_alone
from tombola.engines.eager import ModuleLearner
from tombola.runs.run import Run
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def train_by_hand(run: Run) -> tuple[nn.Module, list[float], list[float]]:
    """The same training written in plain PyTorch, with masked gradients instead of masked weights."""
    split, network = prepare(run.data), build(run.start)
    parameters = dict(network.named_parameters())
    run.mask.apply_(network)
    for name, kept in run.mask.items():
        parameters[name].register_hook(lambda gradient, kept=kept: gradient * kept)
    t = run.training
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[t.optimizer]
    extra = {"momentum": t.momentum} if t.optimizer == "sgd" else {}
    optimizer = kind(network.parameters(), lr=t.lr, weight_decay=t.weight_decay, foreach=False, **extra)
    train_losses, validation_losses = [], []
    order = batches(run.seed, len(split.train), t.batch_size, 0, t.length.iterations)
    for iteration, batch in enumerate(order, start=1):
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(split.train[batch][0]), split.train[batch][1])
        loss.backward()
        optimizer.step()
        train_losses.append(loss.item())
        if iteration % t.evaluate_every.iterations == 0 or iteration == t.length.iterations:
            with torch.no_grad():
                loss = functional.cross_entropy(network(split.validation.x), split.validation.y)
            validation_losses.append(loss.item())
    return network, train_losses, validation_losses


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize(
    "options",
    [
        {"training__optimizer": "adam", "training__lr": 5e-3},
        {"training__optimizer": "sgd", "training__lr": 0.1},
        {
            "training__optimizer": "sgd",
            "training__lr": 0.05,
            "training__momentum": 0.9,
            "training__weight_decay": 0.01,
        },
    ],
)
def test_it_follows_a_loop_written_by_hand(options: dict[str, Any], density: float) -> None:
    run = pruned_run(density, **options)
    outcome = train_alone(run)
    network, train_losses, validation_losses = train_by_hand(run)
    np.testing.assert_allclose(outcome.curves["validation_loss"], validation_losses, rtol=1e-3)
    means = np.array(train_losses).reshape(-1, 10).mean(axis=1)
    np.testing.assert_allclose(outcome.curves["train_loss"], means, rtol=1e-3)
    assert_close(outcome.final, network.state_dict(), rtol=1e-2, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(["adam", "sgd"]), st.floats(0, 0.99), st.floats(0, 0.1), st.floats(0.01, 0.9), st.integers(0, 99)
)
def test_pruned_weights_are_zero_at_every_step(
    optimizer: str, momentum: float, weight_decay: float, density: float, seed: int
) -> None:
    run = dense_run(
        training__optimizer=optimizer,
        training__lr=0.01,
        training__momentum=momentum if optimizer == "sgd" else 0.0,
        training__weight_decay=weight_decay,
        training__length="12it",
    )
    run = run.masked(random_mask(run, density, seed))
    split, network = prepare(run.data), build(run.start)
    run.mask.apply_(network)
    learner = ModuleLearner(network, run, split, torch.device("cpu"))
    parameters = dict(network.named_parameters())
    for batch in batches(run.seed, len(split.train), 40, 0, 12):
        learner.step(*split.train[batch])
        for name, kept in run.mask.items():
            assert (parameters[name][~kept] == 0).all()
            assert (parameters[name][kept] != 0).float().mean() > 0.9 or kept.sum() < 20  # the others do train


def test_the_final_weights_are_those_after_the_last_iteration() -> None:
    run = dense_run()
    outcome = train_alone(run)
    network = build(run.start)
    network.load_state_dict(outcome.final)
    split = prepare(run.data)
    with torch.no_grad():
        correct = (network.eval()(split.test.x).argmax(1) == split.test.y).float().mean().item()
    assert outcome.measures["test_accuracy"] == pytest.approx(correct)


def test_batch_norm_updates_its_statistics_in_training_only() -> None:
    outcome = train_alone(dense_run(model=CONVOLUTIONAL))
    assert int(outcome.final["norm.num_batches_tracked"]) == 60
    assert not torch.equal(outcome.final["norm.running_mean"], torch.zeros(4))
