from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.support.recipes import tiny
from tests.support.verdict_rows import diverged, experiment_rows, verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.stats.summarise import summarise
from tombola.stats.summary import mean_interval


def test_the_summary_has_the_keys_that_scripts_rely_on() -> None:
    recipe = tiny(replicates=5, verdict__margin=0.01)
    rows = experiment_rows([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    controls = [verdict_row(r, 2, 0.9, 400, branch="reinit") for r in range(5)]
    rows += [replace(control, draw=draw) for control in controls for draw in (0, 1)]
    summary = summarise(Results(recipe, rows, True, Tally(20, 0, 0), []))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["runs"] == {"trained": 20, "from_store": 0, "diverged": 0}
    assert summary | {"recipe": "tiny", "replicates": 5, "finished": True} == summary
    assert [level["level"] for level in summary["levels"]] == [0, 2]
    level = summary["levels"][1]
    assert (level["weights"], level["weights_left"]) == (250, 0.25)
    assert set(level["branches"]) == {"ticket", "reinit"}
    for branch in level["branches"].values():
        for figure in ("test_accuracy", "stop_iteration", "test_accuracy_at_stop", "train_accuracy", "gap_at_stop"):
            assert set(branch[figure]) == {"values", "mean", "low", "high"}
            assert len(branch[figure]["values"]) == 5  # one for each replicate, not for each draw
    assert level["branches"]["ticket"]["gap_at_stop"]["mean"] == pytest.approx(1 - 0.9504)
    assert level["verdict"] | {"winning": True, "state": "winning", "better": ["stop"]} == level["verdict"]
    assert level["verdict"]["accuracy_difference"]["p_not_worse"] == 1 / 32
    assert level["verdict"]["stop_difference"]["mean"] == pytest.approx(301 / 500 - 1)
    assert level["against"]["reinit"]["accuracy_difference"]["mean"] == pytest.approx(0.0504)
    assert level["verdict"]["p_better_than_control"] == 1 / 32
    size = {"level": 2, "weights": 250, "weights_left": 0.25, "weights_left_of_all": None}
    assert summary["smallest_winning"] == size


def test_diverged_runs_are_counted_and_left_out_of_means() -> None:
    rows = experiment_rows([0.95] * 3, [300] * 3)
    rows[-1] = diverged(rows[-1])
    branch = summarise(Results(tiny(replicates=3), rows, True, Tally(), []))["levels"][1]["branches"]["ticket"]
    assert (branch["runs"], branch["diverged"]) == (3, 1)
    assert branch["test_accuracy"]["values"] == [0.95, 0.95]
    rows[3:] = [diverged(r) for r in rows[3:]]
    branch = summarise(Results(tiny(replicates=3), rows, True, Tally(), []))["levels"][1]["branches"]["ticket"]
    assert branch["test_accuracy"] == {"values": []}


def test_an_experiment_without_runs_has_a_summary() -> None:
    summary = summarise(Results(tiny(), [], False, Tally(), []))
    assert summary["levels"] == []
    assert summary["smallest_winning"] is None


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(0.5, 0.999))
def test_intervals_are_students_t(values: list[float], confidence: float) -> None:
    interval = mean_interval(values, confidence)
    assert interval.low is not None
    assert interval.high is not None
    error = stats.sem(values)
    if error == 0:
        assert interval.low == interval.mean == interval.high
    else:
        low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), error)
        assert interval.low == pytest.approx(low, abs=1e-9)
        assert interval.high == pytest.approx(high, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    interval = mean_interval([0.5], 0.95)
    assert (interval.mean, interval.low, interval.high) == (0.5, None, None)


def test_no_values_have_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([], 0.95)
