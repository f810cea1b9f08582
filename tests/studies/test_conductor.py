from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.conducting import RecordingEngine, request_in_turn, request_together, runs_like
from tests.support.custom_runs import custom_run
from tests.support.experiments import Recorder
from tests.support.outcomes import outcome_of
from tests.support.recipes import tiny
from tombola.engines.custom.engine import CustomRun
from tombola.engines.eager import Eager
from tombola.engines.training_loop import Capacity
from tombola.experiments.recipe_experiment import RecipeExperiment
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.studies.local_training import train_missing
from tombola.studies.request import RunRequest
from tombola.utils.workers import InlineExecutor, parallel_executor


def test_studies_are_sent_the_outcomes_of_their_requests(dense: Run, store_folder: Path) -> None:
    runs, engine, recorder = runs_like(dense, 3), RecordingEngine(), Recorder()
    studies = [request_together(*runs), request_in_turn(*runs)]
    for outcomes in conduct(studies, Store(store_folder), engine, InlineExecutor(), recorder):
        assert [outcome.measures for outcome in outcomes] == [outcome_of(run).measures for run in runs]
    assert len(engine.trained) == len(recorder.trained) == 3  # the studies share runs
    assert len(recorder.answers) == 6
    assert {request.run for request in recorder.begun} == set(runs)


def test_a_listener_needs_one_method_and_any_object_with_both_is_one(dense: Run, store_folder: Path) -> None:
    class Base(Listener):
        heard = 0

        def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
            self.heard += 1

    class Plain:
        heard = 0

        def started(self, index: int, run_request: RunRequest) -> None:  # noqa: ARG002
            self.heard += 1

        def answered(self, index: int, run_request: RunRequest, result: Outcome, new: bool) -> None:  # noqa: ARG002
            self.heard += 1

    base, plain = Base(), Plain()
    group = ListenerGroup([base, plain])
    conduct([request_in_turn(dense)], Store(store_folder), RecordingEngine(), InlineExecutor(), group)
    assert (base.heard, plain.heard) == (1, 2)


def test_stored_runs_are_not_trained_again(dense: Run, store_folder: Path) -> None:
    runs = runs_like(dense, 3)
    Store(store_folder).put(runs[1], outcome_of(runs[1]))
    for expected in ([runs[0], runs[2]], []):
        engine = RecordingEngine()
        conduct([request_together(*runs)], Store(store_folder), engine, InlineExecutor(), Recorder())
        assert engine.trained == expected


def test_a_single_request_is_trained_before_a_list(dense: Run, store_folder: Path) -> None:
    first, second, third, fourth = runs_like(dense, 4)
    engine = RecordingEngine()
    studies = [request_together(first, second), request_in_turn(third, fourth)]
    conduct(studies, Store(store_folder), engine, InlineExecutor(), Recorder())
    assert engine.trained == [third, fourth, first, second]


def test_runs_of_one_shape_are_trained_together_up_to_the_engines_capacity(dense: Run, store_folder: Path) -> None:
    alike = runs_like(dense, 5)
    other = dense.model_copy(update={"training": dense.training.model_copy(update={"lr": 0.1})})
    engine = RecordingEngine(max_runs=3)
    studies = [request_together(alike[0], other, *alike[1:4]), request_in_turn(alike[4])]
    conduct(studies, Store(store_folder), engine, InlineExecutor(), Recorder())
    assert engine.sizes == [3, 1, 2]
    assert engine.trained == [alike[4], alike[0], alike[1], other, alike[2], alike[3]]


def test_several_workers_share_runs_of_one_shape_evenly(dense: Run, store_folder: Path) -> None:
    engine = RecordingEngine(max_runs=10)
    studies = [request_together(*runs_like(dense, 5))]
    conduct(studies, Store(store_folder), engine, InlineExecutor(), Recorder(), at_once=2)
    assert engine.sizes == [3, 2]


def test_stored_runs_are_left_out_of_those_trained_together(dense: Run, store_folder: Path) -> None:
    store, runs, engine = Store(store_folder), runs_like(dense, 3), RecordingEngine(max_runs=3)
    store.put(runs[1], outcome_of(runs[1]))
    assert train_missing(runs, store, engine) == [True, False, True]
    assert engine.trained == [runs[0], runs[2]]


def test_runs_finished_before_a_failure_are_kept(dense: Run, store_folder: Path) -> None:
    runs = runs_like(dense, 3)

    class Failing(RecordingEngine):
        def train(self, requested: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:
            if runs[2] in requested:
                raise RuntimeError("out of memory")
            return super().train(requested, checkpoint, load_state)

    with pytest.raises(RuntimeError, match="out of memory"):
        conduct([request_in_turn(*runs)], Store(store_folder), Failing(), InlineExecutor(), Recorder())
    engine = RecordingEngine()
    conduct([request_in_turn(*runs)], Store(store_folder), engine, InlineExecutor(), Recorder())
    assert engine.trained == [runs[2]]


def test_studies_without_requests_end(store_folder: Path) -> None:
    for studies in ([], [request_together(), request_in_turn()]):
        results = conduct(studies, Store(store_folder), RecordingEngine(), InlineExecutor(), Recorder())
        assert results == [[]] * len(studies)


def test_worker_processes_change_no_bit(tmp_path: Path) -> None:
    experiment = RecipeExperiment(tiny(search__levels=0, controls={}))
    for workers in (1, 2):
        with parallel_executor(workers) as executor:
            store = Store(tmp_path / str(workers))
            conduct(experiment.studies(), store, Eager(), executor, Recorder(), workers)
    stores = [Store(tmp_path / name) for name in ("1", "2")]
    names = [sorted(path.name for path in store.folder.rglob("*.safetensors")) for store in stores]
    assert names[0] == names[1]
    assert len(names[0]) == 2
    one, two = (store.get(experiment.dense(1)) for store in stores)
    assert one is not None
    assert two is not None
    assert one.measures == two.measures
    assert all((one.final[name] == two.final[name]).all() for name in one.final)


class CountedRun(CustomRun):
    """Counts how often runs are described, or compared, which compares their masks."""

    counts: ClassVar[Counter[str]] = Counter()

    @property
    def description(self) -> dict[str, Any]:
        self.counts["described"] += 1
        return super().description

    def __eq__(self, other: object) -> bool:
        self.counts["compared"] += 1
        return super().__eq__(other)

    __hash__ = CustomRun.__hash__


@pytest.mark.parametrize("max_runs", [1, 1000])
@pytest.mark.parametrize("alike", [False, True])
def test_the_work_for_a_run_does_not_grow_with_the_number_of_runs(
    store_folder: Path, monkeypatch: pytest.MonkeyPatch, max_runs: int, alike: bool
) -> None:
    if alike:
        monkeypatch.setattr(CountedRun, "shape", ())
    run = custom_run()
    counts = []
    for count in (20, 40):
        CountedRun.counts.clear()
        runs = [CountedRun(start=run.start, mask=run.mask, seed=seed, procedure=f"{count}") for seed in range(count)]
        engine: Any = RecordingEngine(max_runs)
        conduct([request_together(*runs)], Store(store_folder), engine, InlineExecutor(), Recorder())  # type: ignore[arg-type]
        assert len(engine.trained) == count
        assert CountedRun.counts["compared"] == 0
        counts.append(CountedRun.counts["described"])
    assert counts[1] == 2 * counts[0]
    assert counts[0] <= 10 * 20


@dataclass
class LoggingEngine:
    """Makes outcomes up, and logs what it trains in a file for each process."""

    folder: Path

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity(100)

    def train(self, runs: Sequence[Run], checkpoint: Any, load_state: Any = None) -> list[Outcome]:  # noqa: ARG002
        with (self.folder / str(os.getpid())).open("a") as file:
            file.writelines(f"{run.key}\n" for run in runs)
        return [outcome_of(run) for run in runs]


def test_processes_that_share_some_runs_train_each_once(dense: Run, tmp_path: Path) -> None:
    runs, store = runs_like(dense, 9), Store(tmp_path / "store")
    (logs := tmp_path / "logs").mkdir()
    with parallel_executor(2) as executor:
        parts = [runs[:6], runs[3:], runs[::-2]]
        trained = [executor.submit(train_missing, part, store, LoggingEngine(logs)) for part in parts]
        assert sum(sum(each.result()) for each in trained) == 9
    keys = [key for log in logs.iterdir() for key in log.read_text().split()]
    assert sorted(keys) == sorted(run.key for run in runs)
