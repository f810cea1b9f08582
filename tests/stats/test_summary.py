from __future__ import annotations

import json

import pytest

from tests.conftest import tiny
from tests.stats.test_verdict import experiment, row
from tombola.experiments.results import Results, Tally
from tombola.experiments.row import Row
from tombola.runs.outcome import Measures
from tombola.stats.summary import summarise


def test_it_has_the_names_that_scripts_rely_on() -> None:
    recipe = tiny(replicates=5, verdict__accuracy_margin=0.01)
    rows = experiment([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    rows += [
        Row(**{**row(r, 2, 0.9, 400, branch="reinit").__dict__, "draw": draw}) for r in range(5) for draw in (0, 1)
    ]
    summary = summarise(Results(recipe, rows, True, Tally(20, 0, 0), []))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["recipe"] == "tiny"
    assert summary["replicates"] == 5
    assert summary["finished"] is True
    assert summary["runs"] == {"trained": 20, "from_store": 0, "diverged": 0}
    assert [level["level"] for level in summary["levels"]] == [0, 2]
    level = summary["levels"][1]
    assert (level["weights"], level["weights_left"]) == (250, 0.25)
    assert set(level["branches"]) == {"ticket", "reinit"}
    for branch in level["branches"].values():
        for figure in ("test_accuracy", "stop_iteration", "test_accuracy_at_stop", "train_accuracy", "gap_at_stop"):
            assert set(branch[figure]) == {"values", "mean", "low", "high"}
            assert len(branch[figure]["values"]) == 5  # one a replicate, however many draws
    assert level["branches"]["ticket"]["gap_at_stop"]["mean"] == pytest.approx(1 - 0.9504)
    assert level["verdict"]["winning"] is True
    assert level["verdict"]["state"] == "winning"
    assert level["verdict"]["better"] == ["stop"]
    assert level["verdict"]["accuracy_difference"]["p_not_worse"] == 1 / 32
    assert level["verdict"]["stop_difference"]["mean"] == pytest.approx(301 / 500 - 1)
    assert level["against"]["reinit"]["accuracy_difference"]["mean"] == pytest.approx(0.0504)
    assert level["verdict"]["p_better_than_control"] == 1 / 32
    assert summary["smallest_winning"] == {"level": 2, "weights": 250, "weights_left": 0.25}


def test_diverged_runs_are_counted_and_left_out_of_means() -> None:
    rows = experiment([0.95] * 3, [300] * 3)
    rows[-1] = Row(**{**rows[-1].__dict__, "measures": Measures(diverged=True, iterations=10)})
    branch = summarise(Results(tiny(replicates=3), rows, True, Tally(), []))["levels"][1]["branches"]["ticket"]
    assert (branch["runs"], branch["diverged"]) == (3, 1)
    assert branch["test_accuracy"]["values"] == [0.95, 0.95]
    rows[3:] = [Row(**{**r.__dict__, "measures": Measures(diverged=True, iterations=10)}) for r in rows[3:]]
    branch = summarise(Results(tiny(replicates=3), rows, True, Tally(), []))["levels"][1]["branches"]["ticket"]
    assert branch["test_accuracy"] == {"values": []}


def test_nothing_finished_is_a_summary_too() -> None:
    summary = summarise(Results(tiny(), [], False, Tally(), []))
    assert summary["levels"] == []
    assert summary["smallest_winning"] is None
