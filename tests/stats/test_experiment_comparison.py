from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support.recipes import tiny
from tests.support.verdict_rows import experiment_rows
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Tally
from tombola.stats.experiment_comparison import compare, unique_labels


def test_labels_tell_experiments_apart() -> None:
    assert unique_labels([Path("a/tiny")], ["one"]) == ["tiny"]
    assert unique_labels([None, None], ["one", "two"]) == ["one", "two"]
    here = Path.cwd()
    assert unique_labels([Path("a/x"), Path("b/y"), None], ["one", "one", "one"]) == ["x", "y", "one"]
    assert unique_labels([Path("a/tiny"), Path("b/tiny"), Path("c")], ["tiny"] * 3) == [
        "a/tiny",
        "b/tiny",
        f"{here.name}/c",
    ]
    assert len(set(unique_labels([Path("a"), Path("a")], ["tiny", "tiny"]))) == 2
    assert len(set(unique_labels([None, None], ["tiny", "tiny"]))) == 2


@given(st.lists(st.tuples(st.sampled_from(["a/x", "b/x", "y", "z"]), st.sampled_from(["x", "y", "one"]))))
def test_labels_are_all_different(experiments: list[tuple[str, str]]) -> None:
    found = unique_labels([Path(folder) for folder, _ in experiments], [name for _, name in experiments])
    assert len(set(found)) == len(experiments)


def test_a_comparison_has_summaries_and_differences() -> None:
    rows = experiment_rows([0.95] * 5, [300] * 5)
    results = [
        Results(tiny(name=name, replicates=5, data__fraction=fraction), rows, True, Tally())
        for name, fraction in (("all", 1.0), ("half", 0.5))
    ]
    found = compare([Path("a"), Path("b")], results).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [experiment["label"] for experiment in found["experiments"]] == ["a", "b"]
    assert found["experiments"][1]["summary"]["recipe"] == "half"
    assert found["common_levels"] == [[0, 0], [2, 2]]
    assert found["differences"] == {"name": ["all", "half"], "data.fraction": [1.0, 0.5]}
