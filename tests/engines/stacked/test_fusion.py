from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.networks import BATCH_NORM, MLP_WITH_DROPOUT
from tests.support.training import CPU, batch_orders, dense_run, variants
from tests.support.triton_kernels import DEVICE, needs_triton
from tombola.engines.stacked import ensemble, fusion
from tombola.engines.stacked.ensemble import EnsembleLearner
from tombola.engines.stacked.fusion import fusable_stack
from tombola.engines.stacked.optimizer_rule import Rule
from tombola.engines.stacked.stack import Stack, recognise_stack
from tombola.engines.stacked.triton_support import triton_usable
from tombola.runs.initial_state import masked_network
from tombola.runs.run import Run
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

SGD = {"training__optimizer": "sgd", "training__lr": 0.05}


@pytest.mark.parametrize(
    ("changes", "fusable"),
    [
        ({}, True),
        ({"training__precision": "tf32", "training__optimizer": "sgd"}, True),
        ({"training__precision": "bf16"}, False),
        ({"model": BATCH_NORM}, False),
        ({"model": MLP_WITH_DROPOUT}, False),
    ],
)
def test_which_runs_can_have_a_fused_step(changes: dict[str, Any], fusable: bool) -> None:
    run = dense_run(**changes)
    assert (fusable_stack(build(run.start), run.training, run.mask.keys()) is not None) == fusable


def test_masked_biases_are_not_supported() -> None:
    run = dense_run()
    network = build(run.start)
    names = [name for name, _ in network.named_parameters()]
    assert fusable_stack(network, run.training, [name for name in names if name.endswith("bias")]) is None


def test_neither_a_cpu_nor_an_interpreter_is_used_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not triton_usable(CPU)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not triton_usable.__wrapped__(torch.device("cuda"))


def test_why_kernels_are_not_used_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with caplog.at_level(logging.INFO):
        assert not triton_usable.__wrapped__(torch.device("cuda"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: "there")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
        assert not triton_usable.__wrapped__(torch.device("cuda"))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: 1 / 0)
        assert not triton_usable.__wrapped__(torch.device("cuda"))
    for record, word in zip(caplog.records, ["not installed", "older", "division"], strict=True):
        assert word in record.getMessage()


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are used on the CPU too, by the interpreter."""
    for module in (ensemble, fusion):
        monkeypatch.setattr(module, "triton_usable", lambda _: True)
    fusion._passes_trial.cache_clear()


def learner_of(runs: list[Run]) -> EnsembleLearner:
    return EnsembleLearner([masked_network(run) for run in runs], runs, [prepare(run.data) for run in runs], DEVICE)


def learners(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> tuple[EnsembleLearner, EnsembleLearner]:
    """With a fused step, and without kernels."""
    fused = learner_of(runs)
    assert fused.fused_step is not None
    for module in (ensemble, fusion):
        monkeypatch.setattr(module, "triton_usable", lambda _: False)
    plain = learner_of(runs)
    assert plain.fused_step is None
    return fused, plain


@needs_triton
@pytest.mark.cuda
@pytest.mark.usefixtures("usable")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__crop": 1, "data__flip": True, "training__optimizer": "sgd", "training__momentum": 0.9},
        {"training__schedule": "cosine", "training__warmup": "2it", "data__label_noise": 0.2},
    ],
)
def test_a_stack_trains_alike_with_it_and_without(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = variants(dense_run(**changes), 3)
    fused, plain = learners(runs, monkeypatch)
    orders = batch_orders(runs, 3)
    for learner in (fused, plain):
        learner.train(orders, 0)
    torch.testing.assert_close(fused.loss_sums, plain.loss_sums, rtol=1e-4, atol=1e-5)
    for states in (EnsembleLearner.weights, EnsembleLearner.optimizer_states):
        for state, expected in zip(states(fused), states(plain), strict=True):
            assert state.keys() == expected.keys()
            for name, tensor in expected.items():
                torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-5)


@needs_triton
@pytest.mark.cuda
@pytest.mark.usefixtures("usable")
def test_a_resumed_stack_gives_the_same_bits() -> None:
    runs = variants(dense_run(), 2)
    learner, resumed, orders = learner_of(runs), learner_of(runs), batch_orders(runs, 4)
    learner.train(orders[:, :2], 0)
    resumed.load_state_dict(learner.state_dict())
    for one in (learner, resumed):
        one.train(orders[:, 2:], 2)
    assert all(map(torch.equal, resumed.parameters.values(), learner.parameters.values()))


@needs_triton
@pytest.mark.cuda
@pytest.mark.usefixtures("usable")
def test_networks_that_are_no_stacks_have_their_masks_in_the_optimizers_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = variants(dense_run(model=BATCH_NORM), 2)
    fused, orders = learner_of(runs), batch_orders(runs, 2)
    assert fused.fused_step is None
    assert fused.masked_optimizer.kernels
    monkeypatch.setattr(ensemble, "triton_usable", lambda _: False)
    plain = learner_of(runs)
    for learner in (fused, plain):
        learner.train(orders, 0)
    for name, expected in plain.parameters.items():
        torch.testing.assert_close(fused.parameters[name], expected, rtol=1e-3, atol=1e-5)


@needs_triton
@pytest.mark.cuda
@pytest.mark.usefixtures("usable")
@pytest.mark.parametrize("broken", ["wrong", "raises"])
def test_without_a_passed_trial_there_is_none(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tombola.engines.stacked import fused_step

    def weight_update(*_: object) -> None:
        if broken == "raises":
            raise RuntimeError("no C compiler\nfound")

    monkeypatch.setattr(fused_step, "weight_update", weight_update)
    runs = variants(dense_run(), 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert learner_of(runs).fused_step is None
    (record,) = caplog.records
    assert ("no C compiler" if broken == "raises" else "wrong numbers") in record.getMessage()
    assert "found" not in record.getMessage()


def test_stacks_know_the_names_of_their_biases() -> None:
    for network in (nn.Linear(2, 3), nn.Sequential(nn.Flatten(), nn.Linear(2, 3))):
        stack = recognise_stack(network)
        assert isinstance(stack, Stack)
        (layer,) = stack.layers
        assert {layer.weight, layer.bias_name} == {name for name, _ in network.named_parameters()}


ALTERED: dict[str, tuple[dict[str, Any], str, float]] = {
    "weight decay": ({"training__weight_decay": 1e-4}, "WEIGHT_DECAY", 0.0),
    "weight decay of SGD": ({**SGD, "training__weight_decay": 1e-4}, "WEIGHT_DECAY", 0.0),
    "momentum": ({**SGD, "training__momentum": 0.9}, "MOMENTUM", 0.8),
    "second moment": ({}, "BETA2", 0.99),
    "bias correction": ({}, "LOG_MOMENTUM", -0.2),
}


@needs_triton
@pytest.mark.cuda
@pytest.mark.parametrize(("changes", "constant", "value"), ALTERED.values(), ids=ALTERED)
def test_the_trial_notices_a_wrong_rule(
    changes: dict[str, Any], constant: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.engines.stacked.fusion_trial import trial_agrees

    run = dense_run(**changes)
    stack = recognise_stack(build(run.start))
    assert isinstance(stack, Stack)
    names = {layer.weight for layer in stack.layers}
    assert trial_agrees(stack, names, names, run.training, DEVICE)
    right = Rule.constants
    monkeypatch.setattr(Rule, "constants", lambda rule: right(rule) | {constant: value})
    assert not trial_agrees(stack, names, names, run.training, DEVICE)


@needs_triton
@pytest.mark.cuda
def test_the_trial_notices_another_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.engines.stacked import fused_step, fusion_trial

    run = dense_run(**SGD)
    stack = recognise_stack(build(run.start))
    assert isinstance(stack, Stack)
    update = fused_step.weight_update

    def faster(*arguments: Any) -> None:
        *others, rule, precision = arguments
        update(*others, replace(rule, lr=1.05 * rule.lr), precision)

    monkeypatch.setattr(fused_step, "weight_update", faster)
    assert not fusion_trial.trial_agrees(stack, (), (), run.training, DEVICE)
