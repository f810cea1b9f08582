"""The engines on a CUDA device: that of this machine, or a pretended one."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from tests.support.cuda_device import CudaDevice
from tests.support.cuda_trainings import (
    CHANGES,
    check_eager,
    check_learner,
    check_paused,
    check_stack,
    cuda_runs,
    eager,
    stacked,
)
from tests.support.networks import BATCH_NORM
from tests.support.training import assert_close, no_checkpoint, pruned_run, same_bits, train_alone
from tombola.engines.stacked.cuda_graph import WARM_UP_CALLS
from tombola.engines.stacked.engine import Stacked
from tombola.engines.stacked.masked_optimizer import MaskedOptimizer

every_training = pytest.mark.parametrize("name", CHANGES)


@every_training
@pytest.mark.usefixtures("cuda")
def test_a_graph_gives_the_bits_of_single_launches_and_the_losses_of_the_cpu(name: str, tmp_path: Path) -> None:
    for run, outcome in zip(cuda_runs(name), check_stack(name, tmp_path), strict=True):
        if "model" not in CHANGES[name]:  # dropout draws other numbers
            expected = train_alone(run).curves["train_loss"]
            torch.testing.assert_close(outcome.curves["train_loss"], expected, rtol=0.05, atol=0)


@pytest.mark.usefixtures("cuda")
def test_a_stack_that_pauses_ends_with_the_weights_of_one_that_does_not() -> None:
    check_paused()


@every_training
def test_eager_training_gives_the_same_bits(name: str, cuda: CudaDevice) -> None:
    outcomes = check_eager(name)
    for run, outcome in zip(cuda_runs(name), outcomes, strict=True):
        assert same_bits(outcome, eager(run) if cuda.pretended is None else train_alone(run))


@pytest.mark.usefixtures("cuda")
def test_the_weights_are_close_to_those_of_the_cpu() -> None:
    run = pruned_run(model=BATCH_NORM | {"channels": 8})
    assert_close(eager(run).final, train_alone(run).final, rtol=5e-2, atol=5e-3)


@pytest.mark.usefixtures("cuda")
def test_graphs_follow_the_best_weights_and_a_loaded_state() -> None:
    check_learner("cosine with warm-up")


def test_a_finished_stack_leaves_no_memory_allocated(cuda: CudaDevice) -> None:
    stacked(cuda_runs("adam"))  # libraries keep what they allocate once
    gc.collect()
    before = torch.cuda.memory_allocated(cuda.device)
    gc.disable()
    try:
        stacked(cuda_runs("adam"))
        assert torch.cuda.memory_allocated(cuda.device) == before
    finally:
        gc.enable()


def test_a_capture_that_fails_changes_nothing(
    cuda: CudaDevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = cuda_runs("sgd with momentum")
    whole = stacked(runs)
    calls, step = [0], MaskedOptimizer.step

    def fails_once(optimizer: MaskedOptimizer) -> None:
        calls[0] += 1
        if calls[0] == WARM_UP_CALLS + 1:
            torch.ones((), device=cuda.device).item()  # after the backward pass
        step(optimizer)

    monkeypatch.setattr(MaskedOptimizer, "step", fails_once)
    stream = torch.cuda.current_stream()
    launched = Stacked(None, "cuda").train(runs, no_checkpoint())
    assert calls[0] > WARM_UP_CALLS + 1
    (record,) = caplog.records
    assert "previous error" not in record.getMessage()  # but the error itself
    assert torch.cuda.current_stream() == stream
    assert all(map(same_bits, launched, whole))
