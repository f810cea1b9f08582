from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.conftest import random_mask, tiny
from tests.engines.helpers import CONVOLUTIONAL, Interrupted, Interrupting, dense_run, same_bits, train
from tombola.engines import engine
from tombola.engines.eager import Eager
from tombola.engines.module_learner import ModuleLearner
from tombola.experiments.experiment import Experiment
from tombola.experiments.recipe import Recipe
from tombola.pruning.mask import Mask
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.utils.errors import InputError
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


def by_hand(run: Run) -> tuple[nn.Module, list[float], list[float]]:
    """The same training as a user of torch would write it, with gradients masked rather than weights."""
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
def test_it_does_what_a_loop_by_hand_does(options: dict[str, Any], density: float) -> None:
    run = dense_run(**options)
    run = run.masked(random_mask(run, density)) if density < 1 else run
    outcome = train(run)
    network, train_losses, validation_losses = by_hand(run)
    np.testing.assert_allclose(outcome.curves["validation_loss"], validation_losses, rtol=1e-3)
    means = np.array(train_losses).reshape(-1, 10).mean(axis=1)
    np.testing.assert_allclose(outcome.curves["train_loss"], means, rtol=1e-3)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(outcome.final[name], tensor, rtol=1e-2, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["adam", "sgd"]), st.floats(0, 0.99), st.floats(0, 0.1), st.floats(0.01, 0.9), st.integers(0, 99)
)
def test_pruned_weights_are_exactly_zero_at_every_step(
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
            moved = parameters[name][kept] != 0
            assert moved.float().mean() > 0.9 or kept.sum() < 20  # the others do train, negative ones too


@pytest.mark.parametrize("model", [{"name": "mlp", "widths": [20, 10], "dropout": 0.3}, CONVOLUTIONAL])
def test_the_same_run_gives_the_same_bits_whatever_the_global_state(model: dict[str, Any]) -> None:
    run = dense_run(model=model)
    run = run.masked(random_mask(run, 0.5))
    first = train(run)
    torch.manual_seed(1234)
    np.random.seed(1234)  # noqa: NPY002 - that is the point
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    assert same_bits(first, train(run))
    assert torch.equal(torch.get_rng_state(), state)  # and leaves it alone
    assert torch.get_num_threads() == 2
    assert not same_bits(first, train(run.model_copy(update={"seed": 1})))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "mlp", "widths": [20, 10], "dropout": 0.3}},
        {"model": CONVOLUTIONAL, "training__optimizer": "sgd", "training__lr": 0.05, "training__momentum": 0.9},
        {"training__optimizer": "sgd", "training__lr": 0.05},
        {"training__length": "57it", "training__test_curve": True},
        {"training__evaluate_every": "1000it", "stretch": 7},  # the only evaluation is the last
        {"training__evaluate_every": "25it", "stretch": 10},
    ],
)
def test_a_resumed_training_gives_the_same_bits(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = dict(changes)
    unstretched = train(dense_run(**{n: v for n, v in changes.items() if n != "stretch"}))
    if stretch := changes.pop("stretch", None):
        monkeypatch.setattr("tombola.engines.training_loop.STRETCH", stretch)
        assert same_bits(train(dense_run(**changes)), unstretched)
    run = dense_run(**changes)
    run = run.masked(random_mask(run, 0.5))
    path = tmp_path / "checkpoint.safetensors"
    whole = train(run)
    with pytest.raises(Interrupted):
        Eager().train([run], Interrupting(path))
    resumed = train(run, path)
    assert same_bits(whole, resumed)
    assert resumed.curves["iteration"].tolist() == whole.curves["iteration"].tolist()


def test_a_training_that_diverged_is_not_resumed_as_if_it_had_not(tmp_path: Path) -> None:
    class Always(Checkpoint):
        def due(self) -> bool:
            return True

    run = dense_run(training__optimizer="sgd", training__lr=1e30)
    path = tmp_path / "checkpoint.safetensors"
    assert Eager().train([run], Always(path))[0].measures.diverged
    assert train(run, path).measures.diverged


def test_the_early_stop_is_the_minimum_of_validation_loss_and_its_weights_are_those_tested() -> None:
    run = dense_run(training__lr=0.05, training__length="200it", training__test_curve=True)
    outcome = train(run)
    curves, measures = outcome.curves, outcome.measures
    best = int(curves["validation_loss"].argmin())
    assert 0 < best < len(curves["iteration"]) - 1  # it overfits, so that this test tests something
    assert measures.stop_iteration == int(curves["iteration"][best])
    assert measures.validation_loss_at_stop == float(curves["validation_loss"][best])
    assert measures.validation_accuracy_at_stop == float(curves["validation_accuracy"][best])
    assert measures.test_accuracy_at_stop == float(curves["test_accuracy"][best])
    assert measures.test_accuracy == float(curves["test_accuracy"][-1])


def test_the_test_set_is_not_looked_at_on_the_way_unless_asked_for() -> None:
    assert "test_loss" not in train(dense_run()).curves
    with_curve = train(dense_run(training__test_curve=True))
    assert len(with_curve.curves["test_loss"]) == len(with_curve.curves["iteration"])
    assert with_curve.measures == train(dense_run()).measures


def test_the_last_iteration_is_evaluated_too() -> None:
    assert train(dense_run(training__length="25it")).curves["iteration"].tolist() == [10, 20, 25]


def test_the_final_weights_are_those_after_the_last_iteration() -> None:
    run = dense_run()
    outcome = train(run)
    network = build(run.start)
    network.load_state_dict(outcome.final)
    split = prepare(run.data)
    with torch.no_grad():
        correct = (network.eval()(split.test.x).argmax(1) == split.test.y).float().mean().item()
    assert outcome.measures.test_accuracy == pytest.approx(correct)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged() -> None:
    outcome = train(dense_run(training__optimizer="sgd", training__lr=1e30))
    assert outcome.measures.diverged
    assert outcome.measures.iterations == 10
    assert outcome.measures.test_accuracy is None
    assert all(math.isfinite(value) for values in outcome.curves.values() for value in values.tolist())


def test_batch_norm_is_trained_and_evaluated_in_its_own_modes() -> None:
    outcome = train(dense_run(model=CONVOLUTIONAL))
    assert int(outcome.final["norm.num_batches_tracked"]) == 60
    assert not torch.equal(outcome.final["norm.running_mean"], torch.zeros(4))


def test_engines_and_devices_are_known_by_name() -> None:
    assert engine("eager") == Eager(None, "cpu")
    with pytest.raises(InputError, match='did you mean "eager"'):
        engine("eagre")
    with pytest.raises(InputError, match="unknown device"):
        engine("eager", device="gpu")
    with pytest.raises(InputError, match="is not there"):
        engine("eager", device=f"cuda:{torch.cuda.device_count()}")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(tmp_path: Path) -> None:
    run = dense_run(model=CONVOLUTIONAL | {"channels": 8})
    run = run.masked(random_mask(run, 0.5))
    on_cuda = [Eager(None, "cuda").train([run], Checkpoint(tmp_path / "none"))[0] for _ in range(2)]
    assert same_bits(*on_cuda)
    on_cpu = train(run)
    assert on_cuda[0].measures.test_accuracy == pytest.approx(on_cpu.measures.test_accuracy, abs=0.1)


def test_recipes_and_masks_of_the_tiny_experiment_are_as_the_tests_suppose() -> None:
    recipe: Recipe = tiny()
    assert Mask.full(build(Experiment(recipe).dense(0).start)).counts == {
        "fc1.weight": 1280,
        "fc2.weight": 200,
        "output.weight": 100,
    }
