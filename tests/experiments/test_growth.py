from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tests.support.experiments import simulate
from tests.support.recipes import tiny
from tombola.experiments.growth import growth, growth_text
from tombola.experiments.results import read_results

STABILITY = {"candidates": ["10it"]}
TRANSFER = {"data": {"name": "digits", "validation": 100}}


@pytest.mark.parametrize(
    ("there", "here", "grown"),
    [
        ({}, {}, {}),
        ({}, {"replicates": 4}, {"replicates": (2, 4)}),
        ({}, {"search__levels": 5}, {"search.levels": (3, 5)}),
        ({}, {"controls": {"reinit": 3}}, {"controls.reinit": (2, 3)}),
        ({}, {"controls": {"reinit": 2, "random": 1}}, {"controls.random": (None, 1)}),
        ({"controls": {}}, {"controls": {"reinit": 2}}, {"controls.reinit": (None, 2)}),
        ({"controls": {"reinit": {"draws": 2, "levels": [2]}}}, {}, None),
        ({}, {"stability": STABILITY}, None),
        ({"stability": STABILITY}, {"stability": {"candidates": ["0it", "10it"], "pairs": 2}}, None),
        (
            {"stability": STABILITY},
            {"stability": STABILITY | {"tickets": True}},
            {"stability.tickets": (False, True)},
        ),
        ({}, {"baseline": {"lr": [0.1]}}, None),
        ({}, {"analysis": {"double_descent": True}}, {"analysis.double_descent": (None, True)}),
        ({"analysis": {"double_descent": True}}, {}, {"analysis.double_descent": (True, None)}),
        (
            {"baseline": {"lr": [0.1]}},
            {"baseline": {"lr": [0.1, 0.2]}},
            {"baseline.lr": ([0.1], [0.1, 0.2])},
        ),
        ({}, {"transfer": TRANSFER}, None),
        ({}, {"pools": {"candidates": 2}}, None),
        ({"transfer": TRANSFER | {"levels": [1]}}, {"transfer": TRANSFER | {"draws": 3}}, None),
    ],
)
def test_what_only_adds_runs_is_growth(there: dict[str, Any], here: dict[str, Any], grown: Any) -> None:
    found = growth(Path("out"), tiny(**there), tiny(**here))
    assert found == grown if grown is not None else found


@pytest.mark.parametrize(
    ("there", "here", "facts"),
    [
        ({"replicates": 4}, {}, ["replicates is 4 there and 2 here", "--set replicates=4"]),
        ({"search__levels": 5}, {}, ["search.levels", "--set search.levels=5"]),
        ({}, {"replicates": 4, "training__lr": 0.5}, ["training.lr"]),
        ({}, {"controls": {"reinit": 1}}, ["controls.reinit.draws is 2 there and 1 here"]),
        ({}, {"controls": {}}, ["controls.reinit.draws is 2 there and 0 here"]),
        ({}, {"controls": {"reinit": {"draws": 3, "levels": [1]}}}, ["controls.reinit.levels"]),
        ({"stability": STABILITY}, {}, ["stability.candidates"]),
        ({"stability": STABILITY | {"tickets": True}}, {"stability": STABILITY}, ["stability.tickets"]),
        ({"baseline": {"lr": [0.1]}}, {"baseline": {"lr": [0.2, 0.1]}}, ["baseline is lr = 0.1 there"]),
        ({"baseline": {"lr": [0.1]}}, {}, ["baseline"]),
        ({"transfer": TRANSFER}, {}, ["transfer.data.name"]),
        ({"pools": {}}, {"pools": {}, "search__levels": 4}, ["search.levels", "[pools]"]),
        ({"pools": {}}, {"pools": {"candidates": 1}}, ["pools.candidates"]),
        ({}, {"verdict__looks": [3], "replicates": 3}, ["verdict.looks"]),
        ({}, {"verdict__margin": 0.5}, ["verdict.margin"]),
    ],
)
def test_other_changes_are_refused(there: dict[str, Any], here: dict[str, Any], facts: list[str]) -> None:
    with raises_input_error("out belongs to another configuration", *facts, "--out"):
        growth(Path("out"), tiny(**there), tiny(**here))


def test_levels_cannot_be_added_if_their_densities_depend_on_their_number() -> None:
    search = {"density": 0.2, "levels": 3}
    with raises_input_error("search.levels", "search.density"):
        growth(Path("out"), tiny(search=search), tiny(search=search | {"levels": 4}))


def test_candidates_cannot_be_added_if_tickets_depend_on_them() -> None:
    auto = {"rewind": {"to": "auto"}, "stability": STABILITY}
    more = {"rewind": {"to": "auto"}, "stability": {"candidates": ["10it", "20it"]}}
    with raises_input_error("stability.candidates", "auto"):
        growth(Path("out"), tiny(**auto), tiny(**more))
    assert growth(Path("out"), tiny(**auto), tiny(**auto, replicates=3))


def test_growth_is_told_in_a_line() -> None:
    grown = growth(Path("out"), tiny(), tiny(replicates=4, controls={"reinit": 2, "random": 1}))
    assert growth_text(Path("out"), grown).startswith("Extending out: ")
    assert "replicates from 2 to 4" in growth_text(Path("out"), grown)
    assert "\n" not in growth_text(Path("out"), grown)


def stages(folder: Path) -> list[tuple[int, int]]:
    found = json.loads((folder / "status.json").read_text())["stages"]
    return [(stage["replicates"], stage["levels"]) for stage in found]


def test_only_what_is_added_is_trained_and_what_was_finished_when_is_recorded(tmp_path: Path) -> None:
    before, _ = simulate(tiny(), tmp_path)
    assert stages(tmp_path / "out") == [(2, 3)]
    simulate(tiny(), tmp_path)
    assert stages(tmp_path / "out") == [(2, 3)]  # nothing new
    bigger = tiny(replicates=3, search__levels=4, controls={"reinit": 2, "random": 1})
    after, recorder = simulate(bigger, tmp_path)
    assert len(after.rows) == 3 * (1 + 4 * (1 + 2 + 1)) > len(before.rows)
    assert {row.run for row in before.rows} <= {row.run for row in after.rows}
    whole, _ = simulate(bigger, tmp_path / "at once")
    assert [row.to_dict() for row in after.rows] == [row.to_dict() for row in whole.rows]
    assert {run.key for run in recorder.trained}.isdisjoint(row.run for row in before.rows)
    assert (after.finished, after.config) == (True, bigger)
    assert stages(tmp_path / "out") == [(2, 3), (3, 4)]
    with raises_input_error("--set replicates=3"):
        simulate(tiny(), tmp_path)
    assert read_results(tmp_path / "out").finished


def test_interrupted_growth_loses_nothing_even_without_the_store(tmp_path: Path) -> None:
    before, _ = simulate(tiny(), tmp_path)
    status = tmp_path / "out" / "status.json"
    former = json.loads(status.read_text())
    del former["stages"]  # as an older version wrote it
    status.write_text(json.dumps(former))
    (tmp_path / "store").rename(tmp_path / "lost")
    with pytest.raises(KeyboardInterrupt):
        simulate(tiny(replicates=3), tmp_path, stop_after=2)
    found = read_results(tmp_path / "out")
    assert [row.to_dict() for row in found.rows] == [row.to_dict() for row in before.rows]
    assert (found.finished, found.config.replicates) == (False, 3)
    assert stages(tmp_path / "out") == [(2, 3)]
    again, _ = simulate(tiny(replicates=3), tmp_path)
    assert again.finished
    assert stages(tmp_path / "out") == [(2, 3), (3, 3)]
