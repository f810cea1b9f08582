"""Every network of the zoo trains with every engine as with the eager one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.outcomes import random_mask
from tests.support.recipes import tiny
from tests.support.training import train_alone, train_stacked
from tests.support.zoo_networks import SMALL
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.stackability import why_not_stackable
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.initial_state import masked_network
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few noisy images; their brightness depends on the class."""
    generator = np.random.default_rng(0)
    y = np.arange(160) % 4
    x = generator.normal(y[:, None, None, None] / 2, 1, (160, 3, 16, 16)).astype(np.float32)
    path = tmp_path_factory.mktemp("images") / "few.npz"
    np.savez(path, x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return path


LENGTHS = {"resnet-50": "1it"}
"""Of trainings: in a deeper network, rounding errors change the loss of the second iteration."""


def run_of(name: str, images: Path) -> Run:
    dense = RecipeExperiment(
        tiny(
            model={"name": name} | SMALL[name],
            data={"name": str(images), "validation": 20},
            training={
                "optimizer": "sgd",
                "lr": 0.01,
                "batch_size": 20,
                "length": LENGTHS.get(name, "2it"),
                "evaluate_every": "1it",
            },
            search={"levels": 1, "rate": 0.1},
        )
    ).dense(0)
    return dense.masked(random_mask(dense, 0.4))


def assert_follows_eager(run: Run, found: Outcome) -> None:
    """After one or two iterations: in the deepest networks rounding errors grow tenfold with each. Then they are
    below a 10,000th of what the training changed (measured for all networks), which leaves other processors a factor
    of 100.
    """
    expected, start = train_alone(run), masked_network(run).state_dict()
    np.testing.assert_allclose(found.curves["train_loss"], expected.curves["train_loss"], rtol=1e-3)
    change = max((expected.final[layer] - start[layer]).abs().max().item() for layer in run.mask)
    assert change > 0
    for layer, kept in run.mask.items():
        assert (found.final[layer][~kept] == 0).all()
        torch.testing.assert_close(found.final[layer], expected.final[layer], rtol=0, atol=change / 100)


@pytest.mark.parametrize("name", SMALL)
def test_the_sparse_engine_follows_eager(name: str, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.engines.sparse.speeds.Speeds.sparse_is_faster", lambda *_: True)
    run = run_of(name, images)
    found = train_alone(run, engine=Sparse)
    assert "no layer" not in found.engine
    assert_follows_eager(run, found)


@pytest.mark.parametrize("name", SMALL)
def test_networks_can_be_stacked_and_follow_eager(name: str, images: Path) -> None:
    run = run_of(name, images)
    assert why_not_stackable(run) is None
    runs = [run, run.reinitialised(9)]
    for one, outcome in zip(runs, train_stacked(runs), strict=True):
        assert outcome.engine.startswith("stacked")
        assert_follows_eager(one, outcome)


@pytest.mark.parametrize("name", ["vit"])
def test_the_sparse_engine_logs_why_each_layer_stays_dense(
    name: str, images: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.engines.sparse.speeds.Speeds.sparse_is_faster", lambda *_: False)
    run = run_of(name, images)
    with caplog.at_level("INFO", logger="tombola.engines.sparse"):
        train_alone(run, engine=Sparse)
    for layer in run.mask:
        assert f"{layer.removesuffix('.weight')} stays dense" in caplog.text
