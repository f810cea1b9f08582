from __future__ import annotations

from tests.support.studies import drive
from tombola.runs.run import Run
from tombola.studies.baseline import train_baselines
from tombola.studies.request import RunRequest


def test_other_trainings_of_the_dense_network_are_requested_at_once(dense: Run) -> None:
    runs = [dense.model_copy(update={"seed": seed}) for seed in (1, 2)]
    yielded, _ = drive(train_baselines(runs))
    assert yielded == [[RunRequest("baseline", 0, runs[0], 0), RunRequest("baseline", 0, runs[1], 1)]]


def test_without_other_trainings_nothing_is_requested() -> None:
    assert drive(train_baselines([]))[0] == []
