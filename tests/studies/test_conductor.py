from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import outcome_of, tiny
from tombola.engines.capacity import Capacity
from tombola.experiments.experiment import Experiment
from tombola.runs.initial_state import Recall, no_earlier_runs
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint, Store
from tombola.studies.conductor import conduct, train
from tombola.studies.request import RunRequest, Study
from tombola.utils.workers import InlineExecutor, parallel_executor


class Made:
    """An engine that makes outcomes up, and notes what it was given."""

    name = "made"

    def __init__(self, together: int = 1) -> None:
        self.together = together
        self.trained: list[Run] = []
        self.sizes: list[int] = []

    def capacity(self, run: Run) -> Capacity:  # noqa: ARG002
        return Capacity(self.together)

    def train(self, runs: Sequence[Run], checkpoint: Checkpoint, recall: Recall = no_earlier_runs) -> list[Outcome]:  # noqa: ARG002
        self.trained += runs
        self.sizes.append(len(runs))
        return [outcome_of(run) for run in runs]


class Notes:
    def __init__(self) -> None:
        self.answers: list[tuple[int, RunRequest, bool]] = []
        self.begun: list[RunRequest] = []

    def started(self, study: int, ask: RunRequest) -> None:  # noqa: ARG002
        self.begun.append(ask)

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.answers.append((study, ask, trained))


def asks_for(*runs: Run) -> Study[list[Outcome]]:
    outcomes: list[Outcome] = yield [RunRequest("ticket", 0, run, draw) for draw, run in enumerate(runs)]
    return outcomes


def asks_in_turn(*runs: Run) -> Study[list[Outcome]]:
    outcomes = []
    for level, run in enumerate(runs):
        outcome: Outcome = yield RunRequest("ticket", level, run)
        outcomes.append(outcome)
    return outcomes


def runs(dense: Run, count: int) -> list[Run]:
    return [dense.reinitialised(seed) for seed in range(count)]


def test_studies_are_sent_what_came_of_what_they_asked(dense: Run, store_folder: Path) -> None:
    three = runs(dense, 3)
    made, notes = Made(), Notes()
    results = conduct([asks_for(*three), asks_in_turn(*three)], Store(store_folder), made, InlineExecutor(), notes)
    for outcomes in results:
        assert [o.measures for o in outcomes] == [outcome_of(run).measures for run in three]
    assert len(made.trained) == 3  # the second study shares the first one's runs
    assert len(notes.answers) == 6
    assert sum(trained for _, _, trained in notes.answers) == 3
    assert {ask.run for ask in notes.begun} == set(three)


def test_the_store_is_asked_first(dense: Run, store_folder: Path) -> None:
    three = runs(dense, 3)
    Store(store_folder).put(three[1], outcome_of(three[1]))
    made, notes = Made(), Notes()
    conduct([asks_for(*three)], Store(store_folder), made, InlineExecutor(), notes)
    assert made.trained == [three[0], three[2]]
    again = Made()
    conduct([asks_for(*three)], Store(store_folder), again, InlineExecutor(), notes)
    assert again.trained == []


def test_a_lone_ask_goes_before_a_list(dense: Run, store_folder: Path) -> None:
    first, second, third, fourth = runs(dense, 4)
    made = Made()
    conduct(
        [asks_for(first, second), asks_in_turn(third, fourth)], Store(store_folder), made, InlineExecutor(), Notes()
    )
    assert made.trained[:2] == [third, fourth]


def test_runs_of_one_shape_are_trained_as_one_where_the_engine_can(dense: Run, store_folder: Path) -> None:
    alike, other = (
        runs(dense, 5),
        dense.model_copy(update={"training": dense.training.model_copy(update={"lr": 0.1})}),
    )
    made = Made(together=3)
    studies = [asks_for(alike[0], other, *alike[1:4]), asks_in_turn(alike[4])]
    conduct(studies, Store(store_folder), made, InlineExecutor(), Notes())
    assert sorted(made.sizes) == [1, 2, 3]
    assert made.trained[0] == alike[4]  # the lone ask, and others with it
    assert made.sizes[0] == 3
    assert set(made.trained) == {*alike, other}


def test_of_runs_trained_as_one_those_that_are_known_are_left_out(dense: Run, store_folder: Path) -> None:
    store, three, made = Store(store_folder), runs(dense, 3), Made(together=3)
    store.put(three[1], outcome_of(three[1]))
    assert train(three, store, made) == [True, False, True]
    assert made.trained == [three[0], three[2]]


def test_what_finished_before_a_failure_is_kept(dense: Run, store_folder: Path) -> None:
    three = runs(dense, 3)

    class Failing(Made):
        def train(
            self, runs: Sequence[Run], checkpoint: Checkpoint, recall: Recall = no_earlier_runs
        ) -> list[Outcome]:
            if three[2] in runs:
                raise RuntimeError("out of memory")
            return super().train(runs, checkpoint, recall)

    with pytest.raises(RuntimeError, match="out of memory"):
        conduct([asks_in_turn(*three)], Store(store_folder), Failing(), InlineExecutor(), Notes())
    made = Made()
    conduct([asks_in_turn(*three)], Store(store_folder), made, InlineExecutor(), Notes())
    assert made.trained == [three[2]]


def test_studies_that_ask_nothing_end(store_folder: Path) -> None:
    assert conduct([asks_for(), asks_in_turn()], Store(store_folder), Made(), InlineExecutor(), Notes()) == [[], []]
    assert conduct([], Store(store_folder), Made(), InlineExecutor(), Notes()) == []


def test_runs_side_by_side_give_the_same_bits(tmp_path: Path) -> None:
    from tombola.engines.eager import Eager

    experiment = Experiment(tiny())
    for name, workers in (("one", 1), ("two", 2)):
        with parallel_executor(workers) as executor:
            conduct(experiment.studies(), Store(tmp_path / name), Eager(), executor, Notes(), workers)
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    dense = experiment.dense(1)
    a, b = one.get(dense), two.get(dense)
    assert a is not None
    assert b is not None
    assert a.measures == b.measures
    assert all((a.final[name] == b.final[name]).all() for name in a.final)
    names = [sorted(p.name for p in (tmp_path / n / "runs").rglob("*.safetensors")) for n in ("one", "two")]
    assert names[0] == names[1]
    assert len(names[0]) == 2 * (1 + 3 * 3)
