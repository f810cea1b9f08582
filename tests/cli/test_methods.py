"""`tombola methods`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.support.command_line import tombola, with_settings
from tests.support.recipes import tiny
from tombola.experiments.compared_methods import row_names
from tombola.experiments.results import read_results

FEW = [*with_settings("replicates=3"), "--workers", "1", "--no-report"]
ROWS = ["--only", "reinit", "--only", "random", "--only", "one_shot", "--only", "set", "--only", "fine-tuning"]


def compared(*arguments: str) -> dict[str, Any]:
    result = tombola("methods", "tiny.toml", *FEW, "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.usefixtures("_fake_engine")
def test_all_rows_have_the_weights_of_the_ticket() -> None:
    found = compared("--level", "2", *ROWS, "--set", "set.changes=3")
    rows = {row["name"]: row for row in found["rows"]}
    assert [*rows] == ["dense", "ticket", "reinit", "random", "one_shot", "fine-tuning", "set", "set-budget-1"]
    assert {row["weights"] for name, row in rows.items() if name != "dense"} == {rows["ticket"]["weights"]}
    assert [name for name, row in rows.items() if row["ticket"]] == ["ticket"]
    assert rows["set"]["no_ticket"] == "mask changed while training"
    assert rows["ticket"]["difference"] is None
    assert rows["reinit"]["difference"]["mean"] < -0.05  # as the fake engine says
    assert not rows["reinit"]["difference"]["exact"]
    assert rows["reinit"]["difference"]["p_holm"] >= rows["reinit"]["difference"]["p"]


@pytest.mark.usefixtures("_fake_engine")
def test_costs_are_those_of_the_trainings() -> None:
    rows = {row["name"]: row for row in compared("--level", "2", *ROWS, "--set", "set.changes=3")["rows"]}
    density = rows["ticket"]["training_cost"]
    assert rows["dense"]["training_cost"] == pytest.approx(1)
    assert rows["dense"]["search_cost"] == 0
    assert rows["ticket"]["search_cost"] > 1 + density
    assert rows["reinit"]["search_cost"] == pytest.approx(rows["ticket"]["search_cost"])
    assert rows["random"]["search_cost"] == 0
    assert rows["one_shot"]["search_cost"] == pytest.approx(1)
    assert rows["set"]["training_cost"] == pytest.approx(density)
    assert rows["set-budget-1"]["training_cost"] == pytest.approx(1, abs=0.01)
    assert rows["set-budget-1"]["length"] == pytest.approx(1 / density)


@pytest.mark.usefixtures("_fake_engine")
def test_the_same_command_trains_nothing_again_and_another_level_has_its_own_folders() -> None:
    first = compared("--level", "2", *ROWS[:4], "--budget", "ticket")
    again = tombola("methods", "tiny.toml", *FEW, "--level", "2", *ROWS[:4], "--budget", "ticket", "--json")
    assert json.loads(again.stdout) == first
    compared("--level", "1", *ROWS[:4])
    assert sorted(path.name for path in Path("results/tiny-methods").iterdir()) == ["level-1", "level-2"]


@pytest.mark.usefixtures("_fake_engine")
def test_without_a_level_only_what_the_verdict_depends_on_comes_first() -> None:
    changes = {"controls": {"reinit": 1, "random": 1}, "stability": {"candidates": ["10it"]}}
    Path("tiny.toml").write_text(tomli_w.dumps(tiny(training__length="400it", **changes).resolved()))
    found = compared("--only", "random")
    assert found["level_chosen"]
    assert found["level"] == 2  # none wins without a control that loses, so the first with at most half the weights
    searched = read_results(Path("results/tiny-methods") / "search")
    assert {row.branch for row in searched.rows} == {"ticket", "reinit"}  # what the verdict depends on
    assert {row.level for row in searched.rows} == {0, 1, 2, 3}
    assert compared("--only", "random") == found


@pytest.mark.usefixtures("_fake_engine")
@pytest.mark.parametrize(("form", "start"), [("markdown", "| method"), ("latex", "% Level 2")])
def test_formats_for_papers(form: str, start: str) -> None:
    result = tombola("methods", "tiny.toml", *FEW, "--level", "2", *ROWS[:6], "--format", form)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(start)
    assert ("one\\_shot" if form == "latex" else "| one_shot |") in result.stdout


@pytest.mark.usefixtures("_fake_engine")
def test_the_page_has_the_figure_and_the_table() -> None:
    result = tombola("methods", "tiny.toml", *FEW[:-1], "--level", "2", *ROWS[:4])
    assert result.exit_code == 0, result.stderr
    page = Path("results/tiny-methods/level-2/methods.html").read_text()
    assert "reinit" in page
    assert "training cost (dense trainings)" in page


def test_what_does_not_go_with_the_recipe_is_named() -> None:
    result = tombola(
        "methods", "tiny.toml", *FEW, "--level", "2", "--dry-run", "--only", "rewound", "--only", "reinit"
    )
    assert result.exit_code == 0, result.stderr
    assert "Left out: rewound" in result.stdout
    assert "1 experiment: ticket." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", "9"], "from 1 to search.levels, 3, not 9"),
        (["--level", "2", "--only", "rando"], 'did you mean "random"'),
        (["--level", "2", "--without", "x"], ", ".join(sorted(row_names()))),
        (["--level", "2", "--budget", "much"], 'not "much"'),
        (["--level", "2", "--budget", "-1"], 'not "-1"'),
        (["--level", "2", "--format", "latx"], 'did you mean "latex"'),
        (["--level", "2", "--only", "rigl", "--set", "rigl.chnages=2"], 'did you mean "changes"'),
        (["--budget", "much"], 'not "much"'),
        (["--set", "search.structure=neurons"], 'should be "weights"'),
        (["--dry-run"], "needs --level"),
    ],
)
def test_invalid_arguments_are_one_line(arguments: list[str], message: str) -> None:
    result = tombola("methods", "tiny.toml", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
