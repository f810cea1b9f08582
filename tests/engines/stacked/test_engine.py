from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.support.experiments import Recorder
from tests.support.networks import BATCH_NORM, CONVOLUTIONAL, MLP_WITH_DROPOUT, TIED_WEIGHTS
from tests.support.recipes import tiny
from tests.support.training import (
    CPU,
    assert_close,
    dense_run,
    same_bits,
    train_alone,
    train_stacked,
    variants,
)
from tombola.engines.stacked import stackability
from tombola.engines.stacked.engine import Stacked, noise_seed
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.stacked.stackability import StackCost, max_stacked_runs, measure_cost
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import StateLoader, masked_network
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.conductor import conduct
from tombola.utils.seeds import Purpose, derive
from tombola.utils.workers import InlineExecutor
from tombola.zoo.datasets import prepare

SGD_MOMENTUM = {"training__optimizer": "sgd", "training__lr": 0.05, "training__momentum": 0.9}


def test_outcomes_are_those_of_the_eager_engine() -> None:
    runs = variants(dense_run(model=BATCH_NORM, training__length="25it", training__test_curve=True), 3)
    for run, outcome in zip(runs, train_stacked(runs), strict=True):
        expected = train_alone(run)
        assert outcome.curves.keys() == expected.curves.keys()
        assert outcome.curves["iteration"].tolist() == [10, 20, 25]
        np.testing.assert_allclose(outcome.curves["test_loss"], expected.curves["test_loss"], rtol=1e-3)
        assert_close(outcome.final, expected.final)
        assert int(outcome.final["norm.num_batches_tracked"]) == 25
        best = int(outcome.curves["validation_loss"].argmin())
        assert outcome.measures.stop_iteration == int(outcome.curves["iteration"][best])
        assert outcome.measures["test_accuracy_at_stop"] == float(outcome.curves["test_accuracy"][best])
        assert outcome.engine == f"stacked on cpu, torch {torch.__version__}"


def test_each_run_has_its_own_dropout_noise() -> None:
    run = dense_run(model=MLP_WITH_DROPOUT)
    first, second = train_stacked([run, run])
    assert not torch.equal(first.final["fc1.weight"], second.final["fc1.weight"])
    other = run.model_copy(update={"seed": run.seed + 1})
    assert not same_bits(first, train_stacked([run, other])[0])


def test_the_noise_of_a_single_run_is_that_of_all_engines() -> None:
    run = dense_run()
    other = run.model_copy(update={"seed": run.seed + 1})
    assert noise_seed([run]) == derive(run.seed, Purpose.NOISE)
    stacks = [[run], [run, run], [run, other], [other, run]]
    assert len(set(map(noise_seed, stacks))) == 4


def test_a_run_that_diverges_does_not_change_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = variants(dense_run(model=BATCH_NORM), 3)
    sound = train_stacked(runs)

    def with_infinity(run: Run, load_state: StateLoader) -> nn.Module:
        network = masked_network(run, load_state)
        if run == runs[1]:
            with torch.no_grad():
                next(network.parameters()).fill_(torch.inf)
        return network

    monkeypatch.setattr("tombola.engines.stacked.engine.masked_network", with_infinity)
    first, second, third = train_stacked(runs)
    assert second.measures.diverged
    assert second.measures.iterations == 10
    assert second.measures["test_accuracy"] is None
    assert same_bits(first, sound[0])
    assert same_bits(third, sound[2])


def test_the_size_of_a_stack_changes_weights_by_rounding_only() -> None:
    runs = variants(dense_run(model=BATCH_NORM), 5)
    whole = train_stacked(runs)
    for size in (1, 3):
        for some, expected in zip(train_stacked(runs[:size]), whole, strict=False):
            assert_close(some.final, expected.final, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", [{"name": "mlp", "widths": [20, 10]}, BATCH_NORM])
def test_bfloat16_is_used_in_forward_passes_only(model: dict[str, Any]) -> None:
    plain = dense_run(model=model, training__length="20it")
    half = dense_run(model=model, training__length="20it", training__precision="bf16")
    exact, by_eager, (by_stack, _) = train_alone(plain), train_alone(half), train_stacked([half, half])
    for outcome in (by_eager, by_stack):
        assert not torch.equal(outcome.curves["train_loss"], exact.curves["train_loss"])
        np.testing.assert_allclose(outcome.curves["train_loss"], exact.curves["train_loss"], rtol=0.05)
        assert {tensor.dtype for tensor in outcome.final.values()} <= {torch.float32, torch.int64}


def test_all_runs_of_an_experiment_are_trained_in_stacks(tmp_path: Path) -> None:
    recorder, store = Recorder(), Store(tmp_path)
    conduct(RecipeExperiment(tiny(replicates=3)).studies(), store, Stacked(), InlineExecutor(), recorder)
    assert len(recorder.answers) == 3 * (1 + 3 * 3)
    for _, request in recorder.answers:
        outcome = store.get(request.run)
        assert outcome is not None
        assert outcome.engine.startswith("stacked")
        if request.level == 0:
            assert_close(outcome.final, train_alone(request.run).final)


class DataDependentBranch(nn.Module):
    """Its computation depends on the values of its input, which vmap does not support."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x.flatten(1))
        return logits if logits.sum() > 0 else 2 * logits


class ReplacedBuffer(nn.Module):
    """It replaces a buffer by another tensor, which a stack does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, 10)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = self.scale * 0.9
        logits: Tensor = self.output(x.flatten(1)) * self.scale
        return logits


@pytest.mark.parametrize(
    ("module", "reason"), [(DataDependentBranch, "control flow"), (ReplacedBuffer, "outside its parameters")]
)
def test_networks_that_cannot_be_stacked_are_trained_eagerly_with_a_warning(
    module: type[nn.Module], reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.engines.stacked.engine._LIMITS", {})
    run = dense_run(model={"name": f"{__name__}:{module.__name__}"}, search__outputs=["output"])
    with caplog.at_level(logging.WARNING):
        assert Stacked().capacity(run).max_runs == 1
        assert Stacked().capacity(run.reinitialised(5)).max_runs == 1
        (outcome,) = train_stacked([run])
    assert [reason in record.getMessage() for record in caplog.records] == [True]  # once
    assert "\n" not in caplog.records[0].getMessage()
    assert outcome.engine.startswith("eager on cpu, torch")
    assert same_bits(outcome, train_alone(run))


@pytest.mark.parametrize("model", [MLP_WITH_DROPOUT, CONVOLUTIONAL, TIED_WEIGHTS, {"name": "lenet-300-100"}])
def test_other_networks_can_be_stacked(model: dict[str, Any]) -> None:
    assert stackability.why_not_stackable(dense_run(model=model)) is None


def test_the_cost_of_a_run_counts_its_tensors_and_activations() -> None:
    run = dense_run()
    split = prepare(run.data)
    cost = measure_cost(run, split)
    weights = 4 * (64 * 20 + 20 + 20 * 10 + 10 + 10 * 10 + 10)
    indices = 8 * 1797 + 3 * 8 * 10 * 40  # of all examples, and three times of the batches of an interval
    assert cost.fixed == 6 * weights + split.validation.x.nbytes + indices  # 6 copies: 2 of them Adam's moments
    per_example = 4 * (64 + 20 + 10 + 10)  # the input, the output of each ReLU, and the logits
    assert per_example <= cost.example <= per_example + 100


def test_as_many_runs_are_stacked_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    run = dense_run()
    split = prepare(run.data)
    small, large = (
        measure_cost(run, split),
        measure_cost(dense_run(model={"name": "mlp", "widths": [2000, 2000]}), split),
    )
    assert Stacked().capacity(run).max_runs == 32
    assert max_stacked_runs(run, large, split, CPU) == 1
    assert max_stacked_runs(run, StackCost(2**20, 2**20), split, CPU) == 1  # 40 examples in a batch
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 2**30, 16 * 2**30))
    for name, held in (("memory_reserved", 2**30), ("memory_allocated", 2**29)):
        monkeypatch.setattr(torch.cuda, name, lambda _, held=held: held)
    each = small.fixed + 2 * 40 * small.example
    expected = 0.7 * (8.5 * 2**30) - 2**30 - split.train.x.nbytes - split.test.x.nbytes
    assert max_stacked_runs(run, small, split, cuda) == int(expected) // each
    assert stackability.stack_evaluation_batch_size(1, StackCost(0, 2**20), CPU) == 64
    assert stackability.stack_evaluation_batch_size(64, StackCost(0, 2**20), cuda) == 16
    assert stackability.stack_evaluation_batch_size(10**9, small, cuda) == 1
    assert stackability.stack_evaluation_batch_size(1, small, cuda) == 5000


def test_processes_share_the_memory_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    run = dense_run()
    split, cost, cuda = prepare(run.data), StackCost(2**20, 0), torch.device("cuda")
    free = [8 * 2**30]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[0], 16 * 2**30))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    shared = split.train.x.nbytes + split.test.x.nbytes
    expected = int(0.7 * (8 * 2**30) - shared - 2**29) // 2**20
    assert max_stacked_runs(run, cost, split, cuda, sharing=2) == expected
    free[0] //= 4  # the other process has taken its part
    assert max_stacked_runs(run, cost, split, cuda, sharing=2) == expected
    assert stackability.stack_evaluation_batch_size(64, StackCost(0, 2**20), cuda, sharing=2) == 8


def test_a_stack_that_does_not_fit_is_trained_in_halves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    runs, sizes = variants(dense_run(), 5), []
    whole = train_stacked(runs)

    class Fits(EnsembleLearner):
        def __init__(self, networks: Sequence[nn.Module], *arguments: Any) -> None:
            sizes.append(len(networks))
            if len(networks) > 2:
                raise torch.cuda.OutOfMemoryError
            super().__init__(networks, *arguments)

    monkeypatch.setattr("tombola.engines.stacked.engine.EnsembleLearner", Fits)
    monkeypatch.setattr("tombola.engines.stacked.engine._LIMITS", {})
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", every=0)
    outcomes = Stacked().train(runs, checkpoint)
    assert sizes == [5, 3, 2, 1, 2]
    for outcome, expected in zip(outcomes, whole, strict=True):
        assert_close(outcome.final, expected.final)
    assert Stacked().capacity(runs[0]).max_runs == 2
    assert len(caplog.records) == 2
    Stacked().train(runs, checkpoint)
    assert sizes == [5, 3, 2, 1, 2, 2, 1, 2]  # it knows
    assert list(tmp_path.iterdir())  # until the outcomes are stored
    checkpoint.clear()
    assert not list(tmp_path.iterdir())


def test_a_single_run_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tombola.engines.stacked.engine.EnsembleLearner", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        train_stacked([dense_run()])
    monkeypatch.setattr(stackability, "EnsembleLearner", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):  # it is not a reason to train one by one for ever
        stackability.why_not_stackable(dense_run())


def test_the_capacity_of_a_shape_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = dense_run()
    first = Stacked().capacity(run)

    def unexpected(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(stackability, "why_not_stackable", unexpected)
    assert Stacked().capacity(variants(run, 2)[1]) == first
