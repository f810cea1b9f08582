"""Trainings by executors whose workers are handed all they need."""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.conducting import RecordingEngine, request_in_turn, request_together, runs_like
from tests.support.errors import raises_input_error
from tests.support.executors import RecordingExecutor, SharingExecutor, processes
from tests.support.experiments import Recorder
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tombola._run_experiment import run_experiment
from tombola.engines.eager import Eager
from tombola.engines.training_loop import Capacity
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.claims import Claim
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.runs.store import Store
from tombola.studies import conductor
from tombola.studies.conductor import conduct
from tombola.studies.remote_training import MAX_SHARED, RemoteTraining
from tombola.studies.request import RunRequest
from tombola.utils.errors import InputError, TrainingsFailed
from tombola.utils.workers import InlineExecutor


@dataclass
class Unreliable:
    """An engine that fails for some seeds, the first time or each time; a file remembers the calls."""

    log: Path
    fails: frozenset[int] = frozenset()
    tries: int = 10
    error: Callable[[str], BaseException] = RuntimeError

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity()

    def train(self, runs: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:  # noqa: ARG002
        (run,) = runs
        seed = run.start.seed
        with self.log.open("a") as file:
            file.write(f"{seed}\n")
        if seed in self.fails and self.log.read_text().split().count(str(seed)) <= self.tries:
            raise self.error(f"no luck with {seed}")
        return [outcome_of(run)]


class Retries(Recorder):
    """Records what was tried again."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[tuple[BaseRun, str]] = []
        self.given_up: list[BaseRun] = []

    def failed(self, study: int, request: RunRequest, error: Exception, again: bool) -> None:  # noqa: ARG002
        self.errors.append((request.run, str(error)))
        self.given_up += [] if again else [request.run]


@pytest.fixture
def store(store_folder: Path) -> Store:
    Store(store_folder).check_writable()
    return Store(store_folder)


def files(folder: Path) -> dict[str, bytes]:
    names = "levels.parquet", "curves.parquet", "ticket.safetensors", "experiment.toml"
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an experiment whose runs also start from others, trained by this process."""
    folder = tmp_path_factory.mktemp("local") / "out"
    run_experiment(RECIPE, folder, workers=1, progress=False)
    return folder


RECIPE = tiny(rewind={"to": "2it"}, controls={"reinit": 1}, stability={"candidates": ["2it"], "points": 3})


@pytest.mark.parametrize(
    "executor",
    [InlineExecutor, RecordingExecutor, SharingExecutor, lambda: ThreadPoolExecutor(2), lambda: processes(2)],
    ids=["inline", "pickled", "sharing", "threads", "processes"],
)
def test_results_are_those_of_local_workers_byte_for_byte(
    executor: Callable[[], Executor], local: Path, tmp_path: Path
) -> None:
    with executor() as used:
        results = run_experiment(RECIPE, tmp_path / "out", executor=used, progress=False)
    assert results.tally.trained > 10
    assert files(tmp_path / "out") == files(local)
    assert files(local)
    assert not list((tmp_path / ".tombola" / "unfinished").glob("*"))
    assert [path.name for path in (tmp_path / ".tombola" / "locks").iterdir()] == ["guard.lock"]


def test_what_was_trained_is_not_submitted(dense: Run, store: Store) -> None:
    runs, executor = runs_like(dense, 3), RecordingExecutor()
    store.put(runs[1], outcome_of(runs[1]))
    recorder = Recorder()
    conduct([request_together(*runs)], store, RecordingEngine(), executor, recorder, None, remote=True)
    assert [task.runs for task in executor.tasks] == [[runs[0]], [runs[2]]]
    assert recorder.trained == [runs[0], runs[2]]


def test_a_run_that_fails_is_tried_again(dense: Run, store: Store, tmp_path: Path) -> None:
    engine, listener = Unreliable(tmp_path / "log", fails=frozenset({1}), tries=2), Retries()
    runs = runs_like(dense, 3)
    (outcomes,) = conduct([request_together(*runs)], store, engine, InlineExecutor(), listener, remote=True)
    assert len(outcomes) == 3
    assert listener.errors == [(runs[1], "no luck with 1")] * 2
    assert not listener.given_up
    assert Counter((tmp_path / "log").read_text().split()) == {"0": 1, "1": 3, "2": 1}


def test_after_three_tries_the_others_end_and_the_run_is_named(dense: Run, store: Store, tmp_path: Path) -> None:
    engine = Unreliable(tmp_path / "log", fails=frozenset({1}))
    runs = runs_like(dense, 6)
    studies = [request_in_turn(*runs[:3]), request_in_turn(*runs[3:]), request_together(runs[5], runs[1])]
    listener = Retries()
    with pytest.raises(TrainingsFailed, match=f"1 training failed 3 times.*{runs[1].key}.*no luck with 1"):
        conduct(studies, store, engine, InlineExecutor(), listener, remote=True)
    assert Counter((tmp_path / "log").read_text().split()) == {"0": 1, "1": 3, "3": 1, "4": 1, "5": 1}
    assert all(store.get(run) for run in (runs[0], *runs[3:]))
    assert listener.given_up == [runs[1]]


def test_if_all_fail_because_of_invalid_input_so_does_the_experiment(
    dense: Run, store: Store, tmp_path: Path
) -> None:
    engine = Unreliable(tmp_path / "log", fails=frozenset({0}), error=InputError)
    with raises_input_error("no luck with 0"):
        conduct([request_together(*runs_like(dense, 2))], store, engine, InlineExecutor(), Recorder(), remote=True)


def test_interruptions_are_not_tried_again(dense: Run, store: Store, tmp_path: Path) -> None:
    engine = Unreliable(tmp_path / "log", fails=frozenset({0}), error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        conduct([request_together(dense.reinitialised(0))], store, engine, InlineExecutor(), Recorder(), remote=True)
    assert [path.name for path in (store.folder / "locks").iterdir()] == ["guard.lock"]


def test_runs_that_another_process_trains_are_waited_for(
    dense: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conductor, "RECHECK", 0.01)
    first, second, third = runs_like(dense, 3)
    other = Claim(store.folder / "locks")
    assert other.try_add([first.key, second.key])

    class Other(Recorder):
        """The other process stores one run, and gives the other up, when the third is trained here."""

        def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
            super().answered(study, request, outcome, trained)
            if request.run == third:
                store.put(first, outcome_of(first))
                other.release()

    listener = Other()
    study = request_together(first, second, third)
    conduct([study], store, RecordingEngine(), InlineExecutor(), listener, remote=True)
    assert listener.trained == [third, second]
    assert len(listener.answers) == 3


class Paused(Unreliable):
    """Saves a checkpoint and fails; the next time it resumes from it."""

    def train(self, runs: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:
        if checkpoint.load("paused"):
            with self.log.open("a") as file:
                file.write("resumed\n")
        else:
            checkpoint.save({}, {}, "paused")
            checkpoint.wait()
        return super().train(runs, checkpoint, load_state)


@pytest.mark.parametrize("reached", [True, False])
def test_a_worker_that_reaches_the_store_saves_checkpoints(
    dense: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    if not reached:  # the same path is another store where the worker is
        monkeypatch.setattr(Store, "store_id", property(lambda _: uuid.uuid4().hex))
    engine = Paused(tmp_path / "log", fails=frozenset({0}), tries=1)
    conduct([request_in_turn(*runs_like(dense, 1))], store, engine, InlineExecutor(), Recorder(), remote=True)
    assert ("resumed" in (tmp_path / "log").read_text()) == reached
    assert not list(store.folder.glob("unfinished/*"))


def test_states_and_data_are_shared_once(store: Store) -> None:
    SharingExecutor.kept.clear()
    experiment, executor = RecipeExperiment(RECIPE), SharingExecutor()
    conduct(experiment.studies(), store, Eager(), executor, Recorder(), remote=True)
    kinds = Counter(type(value).__name__ for value in SharingExecutor.kept)
    assert kinds["bytes"] == kinds["Dataset"] == 1
    starts = {(run.start.trained.run) for task in executor.tasks for run in task.runs if run.start.trained}
    assert 1 <= kinds["dict"] <= 3 * len(starts)
    assert len(executor.tasks) > kinds["dict"]


def test_few_states_stay_shared(dense: Run, store: Store) -> None:
    parents = runs_like(dense, MAX_SHARED + 3)
    for parent in parents:
        store.put(parent, outcome_of(parent))
    training = RemoteTraining(store, RecordingEngine(), SharingExecutor())
    for parent in parents:
        training._state(parent.key, False)
    assert len(training._states) == MAX_SHARED
    training.close()


@dataclass
class OnDevice(RecordingEngine):
    """An engine on a device that only workers have."""

    device: str = "cuda"
    sizes: list[int] = field(default_factory=list)
    trained: list[Run] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity(4 if os.environ.get("WORKER") else 1)


class WorkerExecutor(InlineExecutor):
    """Sets what a worker's environment has."""

    calls: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls.append(fn.__name__)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORKER", "1")
            return super().submit(fn, *args, **kwargs)

    def slots(self) -> int:
        return 2


def test_a_stack_is_as_large_as_the_workers_device_takes(dense: Run, store: Store) -> None:
    executor, listener = WorkerExecutor(), Recorder()
    conduct([request_together(*runs_like(dense, 9))], store, OnDevice(), executor, listener, None, remote=True)
    assert executor.calls == ["capacity_task", "train_task", "train_task", "train_task"]
    assert len(listener.trained) == 9


def test_a_worker_that_is_lost_while_it_is_asked_for_its_capacity_is_not_the_end(dense: Run, store: Store) -> None:
    class Losing(WorkerExecutor):
        losses = 2

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.losses:
                self.losses -= 1
                future: Future[Any] = Future()
                future.set_exception(RuntimeError("lost"))
                return future
            return super().submit(fn, *args, **kwargs)

    (outcomes,) = conduct(
        [request_together(*runs_like(dense, 4))], store, OnDevice(), Losing(), Recorder(), None, remote=True
    )
    assert len(outcomes) == 4


def test_at_once_follows_the_executor(store: Store) -> None:
    class Growing(InlineExecutor):
        count = 4

        def slots(self) -> int:
            return self.count

    executor = Growing()
    training = RemoteTraining(store, RecordingEngine(), executor)
    assert training.at_once == 5
    executor.count = 100
    assert training.at_once == 125
    training.close()


class KillingOnce(Unreliable):
    """Kills its process at the first call."""

    def train(self, runs: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:
        if not self.log.exists():
            self.log.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(runs, checkpoint, load_state)


class Renewing(Executor):
    """A process pool that is replaced when a process of it dies, as clusters do."""

    def __init__(self) -> None:
        self.pool = processes(1)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            return self.pool.submit(fn, *args, **kwargs)
        except RuntimeError:  # broken
            self.pool.shutdown()
            self.pool = processes(1)
            return self.pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


@pytest.fixture
def renewing() -> Iterator[Renewing]:
    with Renewing() as executor:
        yield executor


def test_a_worker_that_dies_is_not_the_end(dense: Run, store: Store, tmp_path: Path, renewing: Renewing) -> None:
    listener, runs = Retries(), runs_like(dense, 2)
    conduct([request_in_turn(*runs)], store, KillingOnce(tmp_path / "log"), renewing, listener, remote=True)
    assert [run for run, _ in listener.errors] == [runs[0]]
    assert all(store.get(run) for run in runs)


def test_a_full_disk_of_the_driver_ends_the_experiment(
    dense: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Store, *_: object) -> None:
        raise InputError(f"{self.folder} cannot be written: no space left on device")

    monkeypatch.setattr(Store, "put", full)
    engine, runs = Unreliable(tmp_path / "log"), runs_like(dense, 3)
    with raises_input_error("no space left"):
        conduct([request_together(*runs)], store, engine, InlineExecutor(), Recorder(), remote=True)
    assert (tmp_path / "log").read_text().split() == ["0"]


class Stacks(Unreliable):
    """Trains up to four runs at once, and fails the first time."""

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity(4)

    def train(self, runs: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:  # noqa: ARG002
        first = not self.log.exists()
        with self.log.open("a") as file:
            file.write(f"{' '.join(str(run.start.seed) for run in runs)}\n")
        if first:
            raise RuntimeError("lost")
        return [outcome_of(run) for run in runs]


class Slots(InlineExecutor):
    def __init__(self, count: int) -> None:
        self.count = count

    def slots(self) -> int:
        return self.count


@pytest.mark.parametrize(("slots", "stacks"), [(1, ["0 1 2 3", "4 5"]), (2, ["0 1 2", "3 4 5"])])
def test_stacks_fill_the_devices_and_are_tried_again_as_they_were(
    dense: Run, store: Store, tmp_path: Path, slots: int, stacks: list[str]
) -> None:
    engine, listener = Stacks(tmp_path / "log"), Retries()
    study = request_together(*runs_like(dense, 6))
    conduct([study], store, engine, Slots(slots), listener, None, remote=True)
    assert len(listener.errors) == len(stacks[0].split())
    trained = (tmp_path / "log").read_text().splitlines()
    assert trained[0] == stacks[0]
    assert sorted(trained[1:]) == stacks


class Lost(RuntimeError):
    lost = True


@pytest.mark.parametrize(("error", "times"), [(Lost, 2), (RuntimeError, 1)])
def test_only_what_may_be_lost_is_shared_again(
    dense: Run, store: Store, tmp_path: Path, error: type[Exception], times: int
) -> None:
    SharingExecutor.kept.clear()
    engine = Unreliable(tmp_path / "log", frozenset({0}), 1, error)
    conduct([request_in_turn(*runs_like(dense, 1))], store, engine, SharingExecutor(), Recorder(), remote=True)
    assert sum(isinstance(value, bytes) for value in SharingExecutor.kept) == times
