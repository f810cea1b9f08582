"""Every network of the zoo trains on every engine as it does on the eager one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import random_mask, tiny
from tests.engines.helpers import train
from tombola.engines.sparse import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.engines.stacked.stackability import refusal
from tombola.experiments.experiment import Experiment
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.zoo.models import MODELS

SMALL: dict[str, dict[str, Any]] = {
    "lenet-300-100": {},
    "lenet-5": {},
    "mlp": {"widths": [20]},
    "conv-2": {"width": 0.1},
    "conv-4": {"width": 0.1},
    "conv-6": {"width": 0.1},
    "resnet": {"depth": 8, "width": 4},
    "resnet-20": {"width": 4},
    "resnet-18": {"width": 4},
    "vgg-11": {"width": 0.1},
    "vgg-16": {"width": 0.1},
    "vgg-19": {"width": 0.1},
    "vit": {"width": 12, "depth": 2},
}
NOWHERE = Checkpoint(Path("nowhere"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few noisy pictures whose brightness says their class."""
    generator = np.random.default_rng(0)
    y = np.arange(160) % 4
    x = generator.normal(y[:, None, None, None] / 2, 1, (160, 3, 16, 16)).astype(np.float32)
    path = tmp_path_factory.mktemp("images") / "few.npz"
    np.savez(path, x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return path


def run_of(name: str, images: Path) -> Run:
    dense = Experiment(
        tiny(
            model={"name": name} | SMALL[name],
            data={"name": str(images), "validation": 20},
            training={"optimizer": "sgd", "lr": 0.01, "batch_size": 20, "length": "4it", "evaluate_every": "2it"},
            search={"levels": 1, "rate": 0.1},
        )
    ).dense(0)
    return dense.masked(random_mask(dense, 0.4))


def test_all_networks_are_here() -> None:
    assert set(SMALL) == set(MODELS)


@pytest.mark.parametrize("name", SMALL)
def test_the_sparse_engine_follows_eager(name: str, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.engines.sparse.speeds.Speeds.sparse_is_faster", lambda *_: True)
    run = run_of(name, images)
    (found,), expected = Sparse().train([run], NOWHERE), train(run)
    assert "no layer" not in found.engine
    np.testing.assert_allclose(found.curves["train_loss"], expected.curves["train_loss"], rtol=1e-2)
    for layer, kept in run.mask.items():
        assert (found.final[layer][~kept] == 0).all()
        torch.testing.assert_close(found.final[layer], expected.final[layer], rtol=5e-2, atol=5e-3)


@pytest.mark.parametrize("name", SMALL)
def test_networks_can_be_stacked_and_follow_eager(name: str, images: Path) -> None:
    run = run_of(name, images)
    assert refusal(run) is None
    other = run.reinitialised(9)
    found = Stacked().train([run, other], NOWHERE)
    for one, outcome in zip((run, other), found, strict=True):
        expected = train(one)
        assert outcome.engine.startswith("stacked")
        np.testing.assert_allclose(outcome.curves["train_loss"], expected.curves["train_loss"], rtol=1e-2)
        for layer in run.mask:
            torch.testing.assert_close(outcome.final[layer], expected.final[layer], rtol=5e-2, atol=5e-3)


@pytest.mark.parametrize("name", ["conv-2", "vgg-11", "vit"])
def test_the_sparse_engine_says_of_each_layer_why_it_is_dense(
    name: str, images: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.engines.sparse.speeds.Speeds.sparse_is_faster", lambda *_: False)
    run = run_of(name, images)
    with caplog.at_level("INFO", logger="tombola.engines.sparse"):
        Sparse().train([run], NOWHERE)
    for layer in run.mask:
        assert f"{layer.removesuffix('.weight')} stays dense: dense is faster with" in caplog.text
