from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.in_loop_training import Training
from tests.support.recipes import tiny
from tests.support.reports import printed
from tests.support.tickets import untrained_ticket
from tests.support.verdict_rows import diverged, experiment_rows, verdict_row
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Tally
from tombola.report.terminal import show_summary, show_ticket, ticket_summary
from tombola.runs.run import Run
from tombola.stats.summarise import build_summary


def show(
    rows: list[Row], finished: bool = True, layers: Sequence[dict[str, Any]] = (), diverged: int = 0, width: int = 80
) -> str:
    recipe = tiny(replicates=5, verdict__margin=0.01, controls={})
    results = Results(recipe, rows, finished, Tally(diverged=diverged), list(layers))
    return printed(show_summary, build_summary(results), width=width)


def test_the_table_and_the_answer_fit_a_terminal_of_80_columns() -> None:
    rows = experiment_rows([0.95, 0.951, 0.949, 0.952, 0.95], [300, 310, 290, 300, 305])
    rows += [verdict_row(r, 2, 0.9, 400, branch="reinit") for r in range(5)]
    text = show(rows)
    assert "100%" in text
    assert "95.04 ±0.14 100.0  5.0" in text
    assert "90.00 ±0.00 100.0 10.0" in text
    assert "winning, sooner" in text
    assert "…" not in text
    assert "down to 25% of the weights (250 of them, level 2)" in " ".join(text.split())
    assert "at most 1 point less accurate" in " ".join(text.split())


def test_a_narrow_terminal_omits_stop_intervals() -> None:
    rows = experiment_rows([0.95] * 5, [3000, 31000, 2900, 30000, 3050])
    rows += [verdict_row(r, 2, 0.9, 40000 * (r + 1), branch="random_global") for r in range(5)]
    text = show(rows, width=72)
    assert "13,990 " in text
    assert "±1" not in text
    assert "…" not in text


def test_reasons_why_a_level_does_not_win() -> None:
    text = " ".join(show(experiment_rows([0.85] * 5, [600] * 5)).split())
    assert "less accurate" in text
    assert "No winning ticket" in text
    assert "slower" in show(experiment_rows([0.95] * 5, [700] * 5))
    unsure = show(experiment_rows([0.99, 0.91, 0.99, 0.91, 0.95], [300] * 5))
    assert "cannot tell" in unsure
    assert "more replicates would probably decide" in " ".join(unsure.split())
    assert "Cannot tell yet whether there are winning tickets" in unsure
    rows = experiment_rows([0.95] * 5, [300] * 5)
    assert "too many weights" in show(rows[:5] + [replace(r, weights=900) for r in rows[5:]])


def test_divergence_and_collapse_are_reported() -> None:
    rows = experiment_rows([0.95] * 5, [300] * 5)
    rows[5:] = [diverged(r) for r in rows[5:]]
    empty = {"branch": "ticket", "layer": "fc1.weight", "weights": 0}
    layers = [empty | {"replicate": replicate, "level": 3 + replicate} for replicate in (0, 1)]
    text = " ".join(show(rows, diverged=5, layers=layers).split())
    assert "5 of 5 diverged" in text
    assert "5 runs diverged" in text
    assert "Layer collapse: fc1.weight has no weights left at level 3 of replicate 0 and 1 more" in text


def test_unfinished_experiments_are_marked() -> None:
    rows = experiment_rows([0.95] * 5, [300] * 5)
    assert show(rows, finished=False).startswith("Unfinished: 10 of 20 runs. Winning")
    assert show([], finished=False).startswith("Unfinished: 0 of 20 runs. Nothing is finished yet")
    begun = show(rows[:5] + [replace(row, weights=900) for row in rows[5:]], finished=False)
    assert begun.startswith("Unfinished: 10 of 20 runs. No level that has at most 50%")
    assert "No winning ticket" not in begun


def test_a_level_that_stays_open_below_a_winning_one_is_named() -> None:
    rows = experiment_rows([0.95] * 5, [300] * 5)
    undecided = [verdict_row(r, 3, a, 300) for r, a in enumerate((0.99, 0.91, 0.99, 0.91, 0.95))]
    rows += [replace(row, weights=100) for row in undecided]
    text = " ".join(show(rows).split())
    assert "Winning tickets down to 25%" in text
    assert "Level 3 cannot be decided yet. About" in text


def test_of_few_replicates_the_lowest_and_the_highest_value_are_shown() -> None:
    rows = [row for row in experiment_rows([0.95, 0.93, 0.97, 0, 0], [300, 330, 270, 0, 0]) if row.replicate < 3]
    few = Results(tiny(replicates=3, controls={}), rows, True, Tally())
    text = printed(show_summary, build_summary(few), width=100)
    assert "95.00 (93.00–97.00)" in text
    assert "300 (270–330)" in text
    assert "±" not in text


def test_a_ticket_is_shown_by_layer(dense: Run, tmp_path: Path) -> None:  # noqa: ARG001
    ticket = untrained_ticket(dense)
    text = printed(show_ticket, ticket_summary(ticket) | {"provenance": {}})
    assert f"{ticket.mask.counts['fc1.weight']:,}" in text
    assert "20 × 64" in text
    assert "no provenance" in text
    assert '"name": "tiny"' in printed(show_ticket, ticket_summary(ticket))  # not written by an experiment


def test_a_ticket_of_an_own_training_is_shown_with_its_figures() -> None:
    search = Training().run().search
    text = " ".join(printed(show_ticket, ticket_summary(search.ticket), width=200).split())
    assert all(fact in text for fact in ("own loop", "replicate 0, level 3", search.levels[3].run, "12 iterations"))
    assert f"loss {search.levels[3].metrics['loss']:g}" in text


@pytest.mark.parametrize("trained_by", [{}, {"functions": {"train": "mine:train"}}])
def test_impossible_figures_of_a_ticket_are_shown_as_they_are(dense: Run, trained_by: dict[str, Any]) -> None:
    measures = {"diverged": False, "iterations": 3, "stop_iteration": 3, "test_accuracy_at_stop": 0.5}
    known = {"recipe": {"name": "tiny"} | trained_by, "replicate": 0, "level": 1, "key": "k"}
    provenance = known | {"measures": measures | {"test_accuracy": 10**400}}
    text = printed(show_ticket, ticket_summary(untrained_ticket(dense)) | {"provenance": provenance})
    assert '"test_accuracy": 1000' in " ".join(text.split())
