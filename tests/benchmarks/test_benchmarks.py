"""The benchmarks run, and refuse to compare sides that disagree. Timings are not tested."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

from benchmarks import common, hold, kernels, limit, loops, search, search_loop, ship, step, torch_pruning
from tombola.experiments.recipe import load_recipe
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.pruning.mask import Mask
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.run import Training
from tombola.utils.duration import Duration
from tombola.utils.workers import InlineExecutor
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build


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


DIGITS = ["data.name=digits"]


def test_entries_of_other_networks_are_kept(results: Path) -> None:
    for entry in ("a", "b", "a"):
        common.write_entry("step", entry, {"rows": [entry]})
    written = json.loads((results / "step.json").read_text())
    assert {entry: written[entry]["rows"] for entry in written} == {"a": ["a"], "b": ["b"]}
    assert written["b"]["machine"]["torch"] == torch.__version__


def test_steps(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step.main(network="mlp", density=[1.0, 0.5], steps=5, turns=1, compiled=False, overrides=DIGITS)
    written = json.loads((results / "step.json").read_text())["mlp"]
    assert [row["weights"] for row in written["rows"]] == [50200, 25919]
    dense = written["rows"][0]
    assert {"sparse", "eager", "plain loop", "fused loop"} <= dense["ms"].keys()
    assert dense["ratios"].keys() == {name for name in dense["ms"] if not name.startswith("sparse")}
    # 64-300-100-10, batches of 60: no gradient of the inputs of the first layer
    assert dense["limit"]["gflop"] == pytest.approx(2e-9 * 60 * (3 * 50_200 - 19_200))
    assert dense["limit"]["share"] > 0
    assert "Memory at 100.0%" in capsys.readouterr().out


@pytest.mark.parametrize(("network", "settings"), [("conv-2", ["model.width=0.1"]), ("resnet-20", [])])
def test_steps_of_convolutional_networks(
    results: Path, monkeypatch: pytest.MonkeyPatch, network: str, settings: list[str]
) -> None:
    monkeypatch.setattr("tombola.engines.sparse.speeds.Speeds.sparse_is_faster", lambda *_: True)
    small = ["data.name=digits", "training.batch_size=8", *settings]
    if network == "resnet-20":
        small += ["data.scale=range", "data.mean=", "data.std=", "data.crop=1"]
    options = {"steps": 1, "turns": 1, "compiled": False, "overrides": small}
    step.main(network=network, density=[0.1], **options)  # type: ignore[arg-type]
    (row,) = json.loads((results / "step.json").read_text())[network]["rows"]
    assert row["density"] == pytest.approx(0.1, rel=0.2)
    assert row["bytes"]["weights"] < row["bytes"]["activations"]


def test_steps_without_data_and_compilers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler\nmore")

    monkeypatch.setattr(torch, "compile", fail)
    settings = ["data.name=missing.npz"]
    step.main(network="mlp", density=[0.1], steps=1, turns=1, overrides=settings, save=False)
    printed = capsys.readouterr().out
    assert "Random images instead of data" in printed
    assert "compiled loop is left out: no compiler" in printed
    with pytest.raises(typer.BadParameter, match="conv-2"):
        step.main(network="conv2")


def test_losses_in_jax_are_those_of_pytorch() -> None:
    pytest.importorskip("jax")
    from benchmarks.jax_loop import JaxLoop

    settings = [
        "data.name=digits",
        "training.batch_size=8",
        "data.scale=range",
        "data.mean=",
        "data.std=",
        "data.crop=1",
    ]
    for recipe, given in {
        "lenet-mnist": DIGITS,
        "conv2-cifar10": DIGITS,
        "resnet20-cifar10-openlth": settings,
    }.items():
        loaded = load_recipe(recipe, ["data.validation=500", *given])
        run = RecipeExperiment(loaded).dense(0)
        run = run.masked(step.masks(loaded, run, [0.2])[0])
        split = prepare(run.data)
        x, y = loops.whole(split.train)
        order = batches(run.seed, len(x), run.training.batch_size, 0, 3)
        sides = {"JAX": JaxLoop(run, split, x, y), "PyTorch": loops.Loop(run, split, x, y)}
        for side in sides.values():
            side.train(order[None], 0)
        common.check_first_losses({name: side.take_losses()[0] for name, side in sides.items()})


def test_useful_multiply_adds_leave_out_padding_and_pruned_weights() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    kept = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    kept[0, 0, 1, 1] = kept[1, 0, 0, 0] = True  # the centre is multiplied with 16 pixels, a corner with 9
    mask = Mask({"0.weight": kept, "3.weight": torch.ones(3, 32, dtype=torch.bool)})
    assert limit.useful_multiply_adds(network, mask, torch.zeros(5, 1, 4, 4)) == 5 * (2 * 25 + 3 * 96)
    training = Training(
        optimizer="sgd", lr=0.1, momentum=0.9, batch_size=5, length=Duration(1), evaluate_every=Duration(1)
    )
    assert limit.least_bytes(network, mask, training) == 4 * 2 * (2 + 2 + 96 + 3)


@pytest.mark.parametrize("processes", [True, False])
def test_searches(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], processes: bool
) -> None:
    monkeypatch.setattr(search, "parallel_executor", lambda _: contextlib.nullcontext(InlineExecutor()))
    monkeypatch.setattr(search, "faster_way", lambda *given: given[2] if processes else None)
    monkeypatch.setattr(search, "SHORT", 1)
    monkeypatch.setattr(search, "TRIAL", 20)
    settings = ["data.name=digits", "data.validation=300", "training.evaluate_every=20it", "controls={reinit=1}"]
    options = {"iterations": 40, "replicates": 2, "levels": 2, "turns": 1}
    search.main("lenet-mnist", **options, controls=True, overrides=settings)  # type: ignore[arg-type]
    written = json.loads((results / "search.json").read_text())["lenet-mnist"]
    assert len(written["accuracies"]["tombola"]) == 3
    assert set(written["ratios"]) == {"plain loop", "fused loop"}
    assert written["controls"] == 1
    assert ("process" in written["loops"]) == processes
    assert "2 searches of 3 levels" in capsys.readouterr().out


def test_the_faster_way_is_one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, executor = load_recipe("lenet-mnist"), InlineExecutor()
    monkeypatch.setattr(search, "search_by_hand", lambda *_: [])
    for seconds, way in (((1.0, 2.0), executor), ((2.0, 1.0), None)):
        times = {name: [each] for name, each in zip(("processes", "threads"), seconds, strict=True)}
        monkeypatch.setattr(search, "take_turns", lambda *_, times=times: times)
        assert search.faster_way(recipe, None, executor) is way


def test_searches_that_the_loops_do_not_do() -> None:
    for name in ("resnet20-cifar10-openlth", "digits-rigl"):
        with pytest.raises(SystemExit, match="the loops"):
            search.check_recipe(load_recipe(name))


def test_holds(results: Path) -> None:
    settings = {"density": 0.2, "batch": 4, "width": 8, "lr": 1e-7, "precision": "bf16", "compiled": False}
    hold.main(device="cpu", **settings, steps=1, turns=2, save=True)
    written = json.loads((results / "hold.json").read_text())
    assert written["ratio"] == pytest.approx(written["ms"]["held"] / written["ms"]["dense"])


def test_kernels(results: Path) -> None:
    kernels.main(calls=1, turns=1)
    assert len(json.loads((results / "kernels.json").read_text())["gflops"]) == 6


def test_sides_that_disagree_are_not_compared() -> None:
    with pytest.raises(SystemExit, match="disagree"):
        common.check_first_losses({"a": 1.0, "b": 1.01})
    common.check_first_losses({"a": 1.0, "b": 1.0001})
    common.check_first_losses({"a": 1.0, "b": 1.01}, tolerance=0.02)
    with pytest.raises(SystemExit, match="disagree"):
        common.check_later_losses({"a": 1.0, "b": float("nan")})
    common.check_later_losses({"a": 1.0, "b": 1.04})
    with pytest.raises(SystemExit, match="disagree"):
        search.compare_accuracies({"tombola": [[0.9]], "plain loop": [[0.9]], "fused loop": [[0.8]]})
    search.compare_accuracies({name: [[0.9]] for name in ("tombola", "plain loop", "fused loop")})


@pytest.mark.parametrize(
    ("name", "settings"), [("lenet-mnist", ["data.validation=300"]), ("conv2-cifar10-small", ["data.validation=300"])]
)
def test_pruning_by_hand_keeps_as_many_as_tombola(name: str, settings: list[str]) -> None:
    recipe = load_recipe(name, [*DIGITS, *settings])
    run = RecipeExperiment(recipe).dense(0)
    network = build(run.start)
    weights = {name: tensor for name, tensor in network.state_dict().items() if name in run.mask}
    mask = run.mask
    for _ in range(5):
        theirs = search_loop.prune_by_magnitude(weights, mask, recipe)
        mask = recipe.search.pruner(network)(ScoreInputs(weights, mask))
        assert theirs == mask


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
