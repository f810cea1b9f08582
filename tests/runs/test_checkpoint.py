"""Checkpoints are written beside the training, and take a small share of its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.datasets import examples_in_memory
from tests.support.several_runs import Clock, TimedLearner
from tests.support.training import dense_run
from tombola.engines.training_loop import TrainingLoop, run_to_end
from tombola.runs import checkpoint as module
from tombola.runs.checkpoint import Checkpoint
from tombola.utils.errors import InputError

TENSORS = {"a": torch.ones(2)}
write_tensors = module.write_tensors


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class SlowDisk:
    """Writes when it is told to, which takes a given time, or fails."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.begun = threading.Event()
        self.before: Callable[[], object] = lambda: None
        self.written: list[dict[str, Any]] = []

    def write(self, path: Path, tensors: Any, about: dict[str, Any]) -> None:
        self.begun.set()
        assert self.released.wait(60)
        self.before()
        write_tensors(path, tensors, about)
        self.written.append(about["state"])

    def full(self) -> None:
        raise InputError("the checkpoint cannot be written: No space left on device")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr(module, "write_tensors", disk.write)
    yield disk
    disk.released.set()


@pytest.mark.parametrize(("took", "due_after"), [(0, 30), (1, 30), (2, 40), (60, 1200)])
def test_writing_takes_at_most_a_twentieth_of_the_time(
    tmp_path: Path, clock: Clock, disk: SlowDisk, took: int, due_after: int
) -> None:
    checkpoint = Checkpoint(tmp_path / "a", every=30.0)
    clock.now = 29.0
    assert not checkpoint.due()
    clock.now = 30.0
    assert checkpoint.due()
    disk.before = lambda: setattr(clock, "now", clock.now + took)
    checkpoint.save(TENSORS, {}, "eager")
    disk.released.set()
    checkpoint.wait()
    ended = clock.now
    clock.now = ended + due_after - 1
    assert not checkpoint.due()
    clock.now = ended + due_after
    assert checkpoint.due()


def test_the_training_does_not_wait_for_the_disk(tmp_path: Path, disk: SlowDisk) -> None:
    checkpoint = Checkpoint(tmp_path / "a", every=0.0)
    checkpoint.save(TENSORS, {"iteration": 1}, "eager")
    assert disk.begun.wait(60)
    assert not checkpoint.due()  # it is still being written
    disk.released.set()
    checkpoint.save(TENSORS, {"iteration": 2}, "eager")  # after the first
    loaded = checkpoint.load("eager")
    assert loaded is not None
    assert loaded[1] == {"iteration": 2}
    assert disk.written == [{"iteration": 1}, {"iteration": 2}]


@pytest.mark.parametrize("call", ["due", "save"])
def test_a_failed_write_is_raised_once_by_the_next_call(tmp_path: Path, disk: SlowDisk, call: str) -> None:
    checkpoint = Checkpoint(tmp_path / "a", every=0.0)
    disk.before = disk.full
    disk.released.set()
    checkpoint.save(TENSORS, {}, "eager")
    checkpoint.wait()
    calls: dict[str, Callable[[], object]] = {
        "due": checkpoint.due,
        "save": lambda: checkpoint.save(TENSORS, {}, "eager"),
    }
    with pytest.raises(InputError, match="No space"):
        calls[call]()
    disk.before = lambda: None
    checkpoint.save(TENSORS, {}, "eager")
    assert checkpoint.load("eager") is not None


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_cleared_stays_so_whatever_was_being_written(tmp_path: Path, disk: SlowDisk, fails: bool) -> None:
    checkpoint = Checkpoint(tmp_path / "a", every=0.0)
    if fails:
        disk.before = disk.full
    checkpoint.save(TENSORS, {}, "eager")
    clearing = threading.Thread(target=checkpoint.clear)
    clearing.start()
    disk.released.set()
    clearing.join(60)
    assert bool(disk.written) != fails
    assert list(tmp_path.iterdir()) == []


def training_of(length: int, learner: TimedLearner) -> TrainingLoop:
    return TrainingLoop(
        [dense_run(training__length=f"{length}it", training__evaluate_every="10it")],
        learner,
        examples_in_memory(1000),
    )


@pytest.mark.parametrize("end", ["finished", "disk full", "error"])
def test_a_write_is_waited_for_when_the_training_ends_but_never_costs_it(
    tmp_path: Path, disk: SlowDisk, end: str
) -> None:
    checkpoint = Checkpoint(tmp_path / "a", every=0.0)
    if end == "disk full":
        disk.before = disk.full

    class Learner(TimedLearner):
        def evaluate(self, *place: Any, **options: Any) -> Any:
            if sum(self.steps) == 20:  # the last iteration; the state of iteration 10 is being written
                assert disk.begun.wait(60)
                threading.Timer(0.05, disk.released.set).start()
                if end == "error":
                    raise KeyboardInterrupt
            return super().evaluate(*place, **options)

    training = training_of(20, Learner(1, Clock()))
    if end == "error":
        with pytest.raises(KeyboardInterrupt):
            run_to_end(training, checkpoint, "timed")
    else:
        (outcome,) = run_to_end(training, checkpoint, "timed")
        assert outcome.measures.iterations == 20
    assert [about["iteration"] for about in disk.written] == ([] if end == "disk full" else [10])
    assert [path.name for path in tmp_path.iterdir()] == ([] if end == "disk full" else ["a"])


def test_a_full_disk_ends_a_training_that_could_not_be_resumed(tmp_path: Path, disk: SlowDisk) -> None:
    disk.before = disk.full
    disk.released.set()
    checkpoint = Checkpoint(tmp_path / "a", every=0.0)
    with pytest.raises(InputError, match="No space"):
        run_to_end(training_of(10**9, TimedLearner(1, Clock())), checkpoint, "timed")


def test_a_checkpoint_of_another_format_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "a")
    about = {"format": module.CHECKPOINT_FORMAT - 1, "engine": "eager", "state": {}}
    write_tensors(checkpoint.path, TENSORS, about)
    assert checkpoint.load("eager") is None
    assert str(checkpoint.path) in caplog.text
    assert "version" in caplog.text


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    checkpoint, other = Checkpoint(tmp_path / "a.safetensors"), tmp_path / ".b.safetensors.123.tmp"
    for left in (tmp_path / ".a.safetensors.123.tmp", other):
        left.touch()
    assert checkpoint.load("eager") is None
    assert list(tmp_path.iterdir()) == [other]
