"""The benchmarks run, and refuse to compare sides that disagree. Timings are not tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import common, hold, kernels, layers, search, ship, step, torch_pruning


def test_sides_take_turns() -> None:
    calls: list[str] = []
    seconds = common.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert [len(times) for times in seconds.values()] == [2, 2]
    assert len(common.take_turns({"a": lambda: None}, 2, warm_up=False)["a"]) == 2


def test_continued_training_counts_iterations_on() -> None:
    calls: list[tuple[int, int]] = []

    class Learner:
        def train(self, orders: torch.Tensor, first: int) -> None:
            calls.append((first, orders.shape[1]))

    training = common.ContinuedTraining(Learner(), torch.zeros(1, 7, 3))  # type: ignore[arg-type]
    for steps in (2, None, None):
        training(steps)
    assert calls == [(0, 2), (2, 7), (9, 7)]


def test_steps(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step.main(levels=3, every=3, steps=5, turns=1, data="digits")
    written = json.loads((results / "step.json").read_text())
    assert [row["weights"] for row in written["rows"]] == [50200, 25919]
    assert written["machine"]["torch"] == torch.__version__
    assert "KB: memory that follows the weights" in capsys.readouterr().out


def test_searches(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search.main(iterations=40, replicates=2, levels=2, turns=1, data="digits")
    written = json.loads((results / "search.json").read_text())
    assert len(written["accuracies"]["tombola"]) == 3
    assert set(written["ratios"]) == {"plain loop", "fused loop"}
    assert "2 searches of 3 levels" in capsys.readouterr().out


def test_holds(results: Path) -> None:
    settings = {"density": 0.2, "batch": 4, "width": 8, "lr": 1e-7, "precision": "bf16", "compiled": False}
    hold.main(device="cpu", **settings, steps=1, turns=2, save=True)
    written = json.loads((results / "hold.json").read_text())
    assert written["ratio"] == pytest.approx(written["ms"]["held"] / written["ms"]["dense"])


def test_convolutions(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.layers.Speeds.sparse_is_faster", lambda *_: True)
    layers.main(width=0.1, steps=1, turns=1)
    written = json.loads((results / "layers.json").read_text())
    assert set(written["ms"]) == {"sparse layers", "dense PyTorch"}
    assert written["sparse"] == ["conv1", "conv2", "fc1", "fc2", "output"]


def test_kernels(results: Path) -> None:
    kernels.main(calls=1, turns=1)
    assert len(json.loads((results / "kernels.json").read_text())["gflops"]) == 6


def test_sides_that_disagree_are_not_compared() -> None:
    with pytest.raises(SystemExit, match="disagree"):
        common.check_first_losses({"a": 1.0, "b": 1.01})
    common.check_first_losses({"a": 1.0, "b": 1.0001})
    common.check_first_losses({"a": 1.0, "b": 1.01}, tolerance=0.02)
    with pytest.raises(SystemExit, match="disagree"):
        common.check_accuracies({"a": 0.9, "b": 0.8})
    common.check_accuracies({"a": 0.9, "b": 0.89})
    with pytest.raises(SystemExit, match="disagree"):
        search.compare_accuracies({"tombola": [[0.9]], "plain loop": [[0.9]], "fused loop": [[0.8]]})
    search.compare_accuracies({name: [[0.9]] for name in ("tombola", "plain loop", "fused loop")})


def test_pruning_by_hand_keeps_as_many_as_tombola() -> None:
    from tombola.experiments.recipe import load_recipe
    from tombola.experiments.recipe_experiment import RecipeExperiment
    from tombola.pruning.mask import Mask
    from tombola.pruning.scores.inputs import ScoreInputs
    from tombola.zoo.models import build

    recipe = load_recipe("lenet-mnist", ["data.name=digits", "data.validation=300"])
    run = RecipeExperiment(recipe).dense(0)
    network = build(run.start)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name in run.mask}
    mask = run.mask
    for _ in range(5):
        theirs = search.prune_by_magnitude(weights, mask, recipe)
        mask = recipe.search.pruner(network)(ScoreInputs(weights, mask))
        assert isinstance(theirs, Mask)
        assert theirs == mask
    assert np.isclose(mask.density, 0.8**5, atol=0.01)


SIDES = [("dense", 0.5), ("sparse", 0.4)]


def test_shipping(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["data.name=digits", "data.validation=200", "search.levels=1", "training.length=60it"]
    settings += ["training.evaluate_every=20it", "replicates=1", "controls.reinit=0", "controls.one_shot=0"]
    monkeypatch.setattr(ship, "CASES", {"small": ship.Case("lenet-mnist", settings, 5.0, 3.0)})
    monkeypatch.setattr("tombola.exports.benchmark.MIN_SECONDS", 0.0)
    ship.main(only="", overrides=[], threads=[1], networks=["lenet-5"], turns=1, work=None, save=True)
    written = json.loads((results / "ship.json").read_text())
    case, (compacted,) = written["cases"]["small"], written["compaction"]
    assert case["weights"] == case["threads"]["1"]["artefacts"][2]["weights"]
    assert set(case["threads"]["1"]["ratios"]) == {"batch 1", "batch 64", "batch 256"}
    assert case["sizes"]["ticket by seed"] < case["sizes"]["at most"]
    assert compacted["off"] <= 1e-5
    assert compacted["left"] < compacted["parameters"]
    assert "times as fast" in capsys.readouterr().out
    dense, worse = (ship.Figures(name, "", 1, 1, 1, 1, None, {}, share, 0.0) for name, share in SIDES)
    assert ship.disagreements("case", [dense, worse]) == ["case: sparse has accuracy 0.4, the ticket 0.5"]
    assert ship.disagreements("case", [dense, dense]) == []


def test_torch_pruning(results: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch_pruning, "torch_pruning", lambda: None)  # it is no dependency: tombola is both sides
    monkeypatch.setattr(torch_pruning, "pruned_by_torch_pruning", torch_pruning.pruned_by_tombola)
    settings = [
        "data.name=digits",
        "data.validation=200",
        "data.scale=range",
        "data.mean=",
        "data.std=",
        "data.crop=1",
    ]
    options = {
        "epochs": 1,
        "fine_tuning": 0,
        "seeds": 1,
        "lr": 0.1,
        "turns": 1,
        "density": 0.5,
        "fine_tuning_lr": 0.1,
    }
    for _ in range(2):  # the second time, the trained network is read
        torch_pruning.main(
            **options, overrides=settings, data_dir=None, work=tmp_path / "trained", threads=1, save=True
        )
    written = json.loads((results / "torch_pruning.json").read_text())
    dense, pruned = (written["means"][side] for side in ("dense", "tombola, global"))
    assert pruned["parameters"] < dense["parameters"]
    assert pruned["multiply_adds"] == pytest.approx(dense["multiply_adds"] / 2, rel=0.05)
    assert len([*(tmp_path / "trained").iterdir()]) == 1
