from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.conftest import random_mask, tiny
from tests.engines.helpers import CONVOLUTIONAL, Interrupted, Interrupting, dense_run, same_bits, train
from tombola.engines import engine
from tombola.engines.module_learner import ModuleLearner
from tombola.engines.stacked.engine import Stacked, noise
from tombola.engines.stacked.ensemble import EnsembleLearner, Pool
from tombola.engines.stacked.stackability import StackCost, at_once, cost, refusal, together
from tombola.experiments.experiment import Experiment
from tombola.runs.initial_state import Recall, masked_network
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint, Store
from tombola.studies.conductor import conduct
from tombola.studies.request import RunRequest
from tombola.utils.seeds import Purpose, derive
from tombola.utils.workers import InlineExecutor
from tombola.zoo.batches import batches
from tombola.zoo.datasets import prepare
from tombola.zoo.datasets.split import ExampleSet

CPU = torch.device("cpu")
NOWHERE = Path("nowhere")
DROPOUT = {"name": "mlp", "widths": [20, 10], "dropout": 0.3}
STILL = CONVOLUTIONAL | {"dropout": 0.0}


class Branching(nn.Module):
    """What it does depends on its input, which no stack of runs can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.output(x.flatten(1))
        return logits if logits.sum() > 0 else 2 * logits


class Counting(nn.Module):
    """It keeps a state that torch does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(64, 10)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.scale = self.scale * 0.9  # another tensor in the buffer's place
        logits: Tensor = self.output(x.flatten(1)) * self.scale
        return logits


class Tied(nn.Module):
    """One weight under two names, a parameter that does not train, one that is not used, and a passing buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.output = nn.Linear(64, 10)
        self.output.bias.requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("shift", torch.full((64,), 0.1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x.flatten(1) + self.shift), inplace=True)
        logits: Tensor = self.output(functional.relu(self.second(x)))
        return logits


def named(module: type[nn.Module]) -> dict[str, Any]:
    return {"name": f"{__name__}:{module.__name__}"}


def stacked(runs: Sequence[Run], path: Path = NOWHERE) -> list[Outcome]:
    return Stacked().train(runs, Checkpoint(path))


def variants(run: Run, count: int, density: float = 0.5) -> list[Run]:
    """Runs of one shape: other weights, masks, splits, orders. The first is dense."""
    runs = [run.reinitialised(seed).model_copy(update={"seed": seed // 2}) for seed in range(count)]
    runs = [r.model_copy(update={"data": r.data.model_copy(update={"seed": r.seed})}) for r in runs]
    return [runs[0], *(r.masked(random_mask(r, density, r.start.seed)) for r in runs[1:])]


def ensemble(runs: Sequence[Run]) -> EnsembleLearner:
    networks = [masked_network(run) for run in runs]
    splits = [prepare(run.data) for run in runs]
    return EnsembleLearner(networks, runs, splits, CPU)


def alone(run: Run) -> ModuleLearner:
    return ModuleLearner(masked_network(run), run, prepare(run.data), CPU)


def orders_of(runs: Sequence[Run], iterations: int) -> Tensor:
    examples = len(prepare(runs[0].data).train)
    return torch.stack([batches(run.seed, examples, run.training.batch_size, 0, iterations) for run in runs])


def assert_it_follows_eager(runs: Sequence[Run], iterations: int = 20) -> None:
    """Losses at each iteration, weights and scores are equal to rounding; pruned weights are zero throughout."""
    together, each = ensemble(runs), [alone(run) for run in runs]
    orders = orders_of(runs, iterations)
    for n in range(iterations):
        together.train(orders[:, n : n + 1], n)
        for index, learner in enumerate(each):
            learner.train(orders[index : index + 1, n : n + 1], n)
        expected = [loss for learner in each for loss in learner.take_losses()]
        np.testing.assert_allclose(together.take_losses(), expected, rtol=1e-3, atol=1e-5)
        for index, run in enumerate(runs):
            for name, kept in run.mask.items():
                assert (together.parameters[name][index][~kept] == 0).all()
    for state, learner in zip(together.weights(), each, strict=True):
        (expected_state,) = learner.weights()
        assert list(state) == list(expected_state)
        for name, tensor in state.items():
            assert tensor.dtype == expected_state[name].dtype
            torch.testing.assert_close(tensor, expected_state[name], rtol=1e-2, atol=1e-4)
    scores = together.evaluate("validation")
    for score, learner in zip(scores, each, strict=True):
        (expected_score,) = learner.evaluate("validation")
        assert score.loss == pytest.approx(expected_score.loss, rel=1e-3)
        assert score.accuracy == pytest.approx(expected_score.accuracy, abs=0.011)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 24), max_size=3),
    optimizer=st.sampled_from(["adam", "sgd"]),
    momentum=st.floats(0, 0.95),
    weight_decay=st.sampled_from([0.0, 1e-3, 0.1]),
    lr=st.sampled_from([1e-3, 1e-2]),
    batch_size=st.integers(1, 70),
    density=st.floats(0.05, 1.0),
    size=st.integers(1, 5),
)
def test_every_run_follows_the_eager_engine(
    widths: list[int],
    optimizer: str,
    momentum: float,
    weight_decay: float,
    lr: float,
    batch_size: int,
    density: float,
    size: int,
) -> None:
    run = dense_run(
        model={"name": "mlp", "widths": widths},
        training__optimizer=optimizer,
        training__momentum=momentum if optimizer == "sgd" else 0.0,
        training__weight_decay=weight_decay,
        training__lr=lr,
        training__batch_size=batch_size,
    )
    assert_it_follows_eager(variants(run, size, density))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": STILL},  # batch norm, its running statistics included
        {"model": named(Tied), "training__weight_decay": 0.01},
        {"data__scale": "standard"},  # inputs that differ from split to split
    ],
)
def test_networks_of_other_kinds_follow_it_too(changes: dict[str, Any]) -> None:
    assert_it_follows_eager(variants(dense_run(**changes), 3))


def test_outcomes_are_those_of_the_eager_engine() -> None:
    runs = variants(dense_run(model=STILL, training__length="25it", training__test_curve=True), 3)
    for run, outcome in zip(runs, stacked(runs), strict=True):
        expected = train(run)
        assert outcome.curves.keys() == expected.curves.keys()
        assert outcome.curves["iteration"].tolist() == [10, 20, 25]
        np.testing.assert_allclose(outcome.curves["test_loss"], expected.curves["test_loss"], rtol=1e-3)
        assert int(outcome.final["norm.num_batches_tracked"]) == 25
        assert outcome.measures.stop_iteration == expected.measures.stop_iteration
        assert outcome.measures.test_accuracy_at_stop == pytest.approx(
            expected.measures.test_accuracy_at_stop, abs=0.011
        )
        assert outcome.engine == f"stacked on cpu, torch {torch.__version__}"


def test_the_best_weights_are_kept_for_each_run_by_itself() -> None:
    runs = variants(dense_run(), 3)
    learner = ensemble(runs)
    at_first = learner.evaluate("validation")
    learner.train(orders_of(runs, 30), 0)
    learner.keep([True, False, True])
    now, best = learner.evaluate("validation"), learner.evaluate("validation", best=True)
    assert [best[0], best[1], best[2]] == [now[0], at_first[1], now[2]]
    assert now[1] != at_first[1]


@pytest.mark.parametrize("at_once", [1, 7, 200])
def test_evaluating_in_parts_changes_nothing(at_once: int) -> None:
    learner = ensemble(variants(dense_run(model=STILL), 2))
    whole = learner.evaluate("validation")
    learner.at_once = at_once
    for part, score in zip(learner.evaluate("validation"), whole, strict=True):
        assert part == pytest.approx(score, rel=1e-5)


def test_runs_share_the_arrays_they_have_in_common() -> None:
    one, two = prepare(dense_run().data), prepare(variants(dense_run(), 3)[2].data)
    shared = Pool.of([one.train, two.train, one.train], CPU)
    assert shared.x.data_ptr() == one.train.x.data_ptr()
    own = Pool.of([one.validation, two.validation, one.validation], CPU)
    assert len(own.x) == 400
    for run, part in enumerate([one.validation, two.validation, one.validation]):
        x, y = own.batch(own.rows)
        assert torch.equal(x[run], part.x)
        assert torch.equal(y[run], part.y)
    assert isinstance(one.validation, ExampleSet)


def test_each_run_has_noise_of_its_own() -> None:
    run = dense_run(model=DROPOUT)
    first, second = stacked([run, run])
    assert not torch.equal(first.final["fc1.weight"], second.final["fc1.weight"])
    assert same_bits(first, stacked([run, run])[0])
    other = run.model_copy(update={"seed": run.seed + 1})
    assert not same_bits(first, stacked([run, other])[0])


def test_noise_of_a_single_run_is_that_of_any_engine() -> None:
    run = dense_run()
    other = run.model_copy(update={"seed": run.seed + 1})
    assert noise([run]) == derive(run.seed, Purpose.NOISE)
    assert len({noise([run]), noise([run, run]), noise([run, other]), noise([other, run])}) == 4


def test_there_is_no_dropout_in_evaluation() -> None:
    learner = ensemble(variants(dense_run(model=DROPOUT), 2))
    assert learner.evaluate("test") == learner.evaluate("test")
    learner.train(orders_of(variants(dense_run(model=DROPOUT), 2), 3), 0)
    assert learner.evaluate("test") == learner.evaluate("test")


@pytest.mark.parametrize("model", [DROPOUT, CONVOLUTIONAL])
def test_the_same_stack_gives_the_same_bits_whatever_the_global_state(model: dict[str, Any]) -> None:
    runs = variants(dense_run(model=model), 3)
    first = stacked(runs)
    torch.manual_seed(1234)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    assert all(map(same_bits, first, stacked(runs)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"model": DROPOUT},
        {"model": CONVOLUTIONAL, "training__optimizer": "sgd", "training__lr": 0.05, "training__momentum": 0.9},
        {"training__optimizer": "sgd", "training__lr": 0.05, "training__evaluate_every": "1000it"},
    ],
)
def test_a_resumed_stack_gives_the_same_bits(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.engines.training_loop.STRETCH", 7)  # checkpoints between evaluations
    runs = variants(dense_run(**changes), 3)
    path = tmp_path / "checkpoint.safetensors"
    whole = stacked(runs)
    with pytest.raises(Interrupted):
        Stacked().train(runs, Interrupting(path))
    assert all(map(same_bits, whole, stacked(runs, path)))


def test_a_run_that_diverges_leaves_the_others_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = variants(dense_run(model=STILL), 3)
    sound = stacked(runs)

    def built(run: Run, recall: Recall) -> nn.Module:
        network = masked_network(run, recall)
        if run == runs[1]:
            with torch.no_grad():
                next(network.parameters()).fill_(torch.inf)
        return network

    monkeypatch.setattr("tombola.engines.stacked.engine.masked_network", built)
    first, second, third = stacked(runs)
    assert second.measures.diverged
    assert second.measures.iterations == 10
    assert second.measures.test_accuracy is None
    assert same_bits(first, sound[0])
    assert same_bits(third, sound[2])


def test_a_stack_ends_when_all_of_it_has_diverged() -> None:
    outcomes = stacked(variants(dense_run(training__optimizer="sgd", training__lr=1e30), 2))
    assert [outcome.measures.iterations for outcome in outcomes] == [10, 10]
    assert all(outcome.measures.diverged for outcome in outcomes)


def test_the_size_of_the_stack_shows_in_the_last_bits_at_most() -> None:
    runs = variants(dense_run(model=STILL), 5)
    whole = stacked(runs)
    for size in (1, 2, 4):
        for some, all_ in zip(stacked(runs[:size]), whole, strict=False):
            for name, tensor in some.final.items():
                torch.testing.assert_close(tensor, all_.final[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "reason"), [(Branching, "control flow"), (Counting, "outside its parameters and buffers")]
)
def test_what_cannot_be_stacked_is_trained_eagerly_and_says_so(
    module: type[nn.Module], reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.engines.stacked.engine._LIMITS", {})
    run = dense_run(model=named(module))
    with caplog.at_level(logging.WARNING):
        assert Stacked().capacity(run).together == 1
        assert Stacked().capacity(run.reinitialised(5)).together == 1
        (outcome,) = stacked([run])
    assert [reason in record.getMessage() for record in caplog.records] == [True]  # once
    assert "\n" not in caplog.records[0].getMessage()
    assert outcome.engine.startswith("eager on cpu, torch")
    assert same_bits(outcome, train(run))


def test_what_can_be_stacked_is() -> None:
    for model in (DROPOUT, CONVOLUTIONAL, named(Tied), {"name": "lenet-300-100"}):
        assert refusal(dense_run(model=model)) is None


def test_as_many_are_stacked_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    run = dense_run()
    split = prepare(run.data)
    assert Stacked().capacity(run).together == 32
    small, large = cost(run, split), cost(dense_run(model={"name": "mlp", "widths": [2000, 2000]}), split)
    weights = 4 * (64 * 20 + 20 + 20 * 10 + 10 + 10 * 10 + 10)
    assert small.fixed == 6 * weights + split.validation.x.nbytes + 8 * 1797  # adam: six of a kind
    per_example = 4 * (64 + 20 + 10 + 10)  # the input, what follows each ReLU, and the logits
    assert per_example <= small.example <= per_example + 100
    assert together(run, large, split, CPU) == 1
    assert together(run, StackCost(2**20, 2**20), split, CPU) == 1  # examples count: 40 in a batch
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 2**30, 16 * 2**30))
    for name, held in (("memory_reserved", 2**30), ("memory_allocated", 2**29)):
        monkeypatch.setattr(torch.cuda, name, lambda _, held=held: held)
    each = small.fixed + 2 * 40 * small.example
    expected = 0.7 * (8.5 * 2**30) - 2**30 - split.train.x.nbytes - split.test.x.nbytes
    assert together(run, small, split, cuda) == int(expected) // each
    assert at_once(1, StackCost(0, 2**20), CPU) == 64
    assert at_once(64, StackCost(0, 2**20), cuda) == 16
    assert at_once(10**9, small, cuda) == 1
    assert at_once(1, small, cuda) == 5000


def test_capacity_is_looked_up_after_the_first_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = dense_run()
    first = Stacked().capacity(run)

    def unexpected(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("tombola.engines.stacked.engine.refusal", unexpected)
    assert Stacked().capacity(variants(run, 2)[1]) == first


@pytest.mark.parametrize("model", [{"name": "mlp", "widths": [20, 10]}, STILL])
def test_bfloat16_is_for_the_forward_pass_only(model: dict[str, Any]) -> None:
    plain = dense_run(model=model, training__length="20it")
    half = dense_run(model=model, training__length="20it", training__precision="bf16")
    assert plain.key != half.key
    exact, by_eager, (by_stack, _) = train(plain), train(half), stacked([half, half])
    for outcome in (by_eager, by_stack):
        assert not torch.equal(outcome.curves["train_loss"], exact.curves["train_loss"])
        np.testing.assert_allclose(outcome.curves["train_loss"], exact.curves["train_loss"], rtol=0.02)
        assert {tensor.dtype for tensor in outcome.final.values()} <= {torch.float32, torch.int64}


class Noting:
    def __init__(self) -> None:
        self.answers: list[tuple[RunRequest, Outcome]] = []

    def started(self, study: int, ask: RunRequest) -> None:
        pass

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.answers.append((ask, outcome))


def test_an_experiment_comes_out_as_with_the_eager_engine(tmp_path: Path) -> None:
    experiment = Experiment(tiny(replicates=3))
    accuracies = {}
    for name in ("eager", "stacked"):
        notes = Noting()
        conduct(experiment.studies(), Store(tmp_path / name), engine(name), InlineExecutor(), notes)
        assert len(notes.answers) == 3 * (1 + 3 * 3)
        assert all(outcome.engine.startswith(name) for _, outcome in notes.answers)
        for branch in ("ticket", "reinit"):
            found = [outcome.measures.test_accuracy for ask, outcome in notes.answers if ask.branch == branch]
            accuracies[name, branch] = np.mean(found)
    for branch in ("ticket", "reinit"):
        assert accuracies["stacked", branch] == pytest.approx(accuracies["eager", branch], abs=0.03)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("changes", [{"model": DROPOUT}, {"training__optimizer": "sgd", "training__momentum": 0.9}])
def test_on_cuda_a_graph_gives_the_bits_that_single_launches_give(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = variants(dense_run(**changes), 3)
    captured = Stacked(None, "cuda").train(runs, Checkpoint(NOWHERE))
    assert not caplog.records  # nothing kept it from capturing
    monkeypatch.setattr("tombola.engines.stacked.cuda_graph.WARM_UP", 10**9)
    launched = Stacked(None, "cuda").train(runs, Checkpoint(NOWHERE))
    assert all(map(same_bits, captured, launched))
    for outcome, run in zip(captured, runs, strict=True):
        assert outcome.measures.test_accuracy == pytest.approx(train(run).measures.test_accuracy, abs=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_resumed_stack_gives_the_same_bits(tmp_path: Path) -> None:
    runs = variants(dense_run(model=DROPOUT), 3)
    path = tmp_path / "checkpoint.safetensors"
    whole = Stacked(None, "cuda").train(runs, Checkpoint(NOWHERE))
    with pytest.raises(Interrupted):
        Stacked(None, "cuda").train(runs, Interrupting(path))
    assert all(map(same_bits, whole, Stacked(None, "cuda").train(runs, Checkpoint(path))))
