"""Lines between tickets from a recipe to the results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.experiments import Recorder, simulate, train
from tests.support.recipes import tiny
from tombola.experiments.experiment import count_runs
from tombola.experiments.results import Results, read_results
from tombola.report.page import write_figures
from tombola.stats.summarise import build_summary

SHORT: dict[str, Any] = {"training__length": "20it", "search__levels": 2, "controls": {}}
TICKETS = {"tickets": True, "points": 3}
OF_CANDIDATES = ["replicate", "k", "pair", "share", "train_accuracy", "validation_accuracy", "test_accuracy"]


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Recorder, Path]:
    """An experiment with lines between tickets and of one candidate, k = 10, to which tickets are rewound."""
    folder = tmp_path_factory.mktemp("joined")
    recipe = tiny(**SHORT, rewind={"to": "10it"}, stability=TICKETS | {"candidates": ["10it"]})
    return *train(recipe, folder), folder


def test_every_network_on_a_line_has_a_row(joined: tuple[Results, Recorder, Path]) -> None:
    results, _, folder = joined
    table = pq.read_table(folder / "out" / "stability.parquet")
    assert table.column_names == [*OF_CANDIDATES, "line", "level"]
    assert table.to_pylist() == results.stability
    lines = [(row["replicate"], row["line"], row["level"]) for row in results.stability]
    expected = (
        [(None, None)] + [("order", level) for level in (0, 1, 2)] + [("predecessor", level) for level in (1, 2)]
    )
    assert {line: lines.count(line) for line in lines} == {(r, *line): 3 for line in expected for r in (0, 1)}
    assert all(0 <= row["validation_accuracy"] <= 1 and row["k"] == 10 for row in results.stability)


def test_the_ends_are_the_tickets_and_nothing_is_trained_twice(joined: tuple[Results, Recorder, Path]) -> None:
    results, recorder, _ = joined
    trained = [run for run in recorder.trained if not run.interpolates]
    assert len(trained) == 2 * (1 + 3 + 3)  # a trunk, three tickets, and each of these in another batch order
    inner = [run for run in recorder.trained if run.interpolates]
    assert len(inner) == 2 * (3 + 2)  # the dense network's line is the candidate's
    assert len({run.key for run in recorder.trained}) == results.tally.trained == len(trained) + len(inner)
    assert len(set(recorder.answers)) == count_runs(results.config)
    final = {row.run: row.measures["test_accuracy"] for row in results.rows}
    ends = {
        (r["replicate"], r["level"]): r["test_accuracy"] for r in results.stability if r["share"] == 0 and r["line"]
    }
    assert ends == {(row.replicate, row.level): final[row.run] for row in results.rows}


def test_the_line_of_the_dense_network_is_that_of_its_candidate(joined: tuple[Results, Recorder, Path]) -> None:
    stability = build_summary(joined[0]).stability
    assert stability is not None
    assert [ticket.level for ticket in stability.tickets] == [0, 1, 2]
    dense, (candidate,) = stability.tickets[0].order, stability.candidates
    assert dense is not None
    assert dense.validation_barrier == candidate.validation_barrier
    assert (stability.tickets[0].predecessor, dense.replicates) == (None, 2)


def test_the_report_draws_the_figure(joined: tuple[Results, Recorder, Path], tmp_path: Path) -> None:
    names = {path.name for path in write_figures(joined[2] / "out", tmp_path)}
    named = {name.split("-", 2)[2]: name for name in names}  # behind the figures' numbers
    assert {"ticket-barriers.svg", "ticket-barriers.csv", "stability-barriers.svg"} <= set(named)
    assert len((tmp_path / named["ticket-barriers.csv"]).read_text().splitlines()) == 1 + 3 + 2


def test_an_interrupted_experiment_ends_with_the_same_bytes(tmp_path: Path) -> None:
    recipe = tiny(**SHORT, stability=TICKETS)
    simulate(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        simulate(recipe, tmp_path / "stopped", stop_after=15)
    build_summary(read_results(tmp_path / "stopped/out"))
    simulate(recipe, tmp_path / "stopped")
    whole, stopped = (tmp_path / name / "out/stability.parquet" for name in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()


def test_without_lines_of_tickets_their_columns_are_not_written(tmp_path: Path) -> None:
    results, _ = simulate(tiny(**SHORT, stability={"candidates": ["0it"], "points": 3}), tmp_path)
    assert pq.read_table(tmp_path / "out/stability.parquet").column_names == OF_CANDIDATES
    assert {(row["line"], row["level"]) for row in results.stability} == {(None, None)}
    stability = build_summary(results).stability
    assert stability is not None
    assert stability.tickets == []


@pytest.mark.parametrize("search", [{"method": "early-bird"}, {"method": "edge-popup"}, {"one_shot": True}])
def test_other_searches_whose_tickets_are_rewound_have_lines_too(search: dict[str, Any], tmp_path: Path) -> None:
    options = {"early_bird": {"draws": 2, "window": 2}} if search.get("method") == "early-bird" else {}
    recipe = tiny(
        **{**SHORT, "search": {"levels": 1, "density": 0.3} | search, "replicates": 1, "stability": TICKETS} | options
    )
    results, _ = train(recipe, tmp_path, engine="eager")
    lines = {(row["line"], row["level"]) for row in results.stability}
    assert lines == {("order", 0), ("order", 1), ("predecessor", 1)}


def test_tickets_that_diverge_are_not_connected(tmp_path: Path) -> None:
    training = {"optimizer": "sgd", "lr": 1e30, "batch_size": 40, "length": "20it", "evaluate_every": "10it"}
    results, _ = train(tiny(replicates=1, controls={}, training=training, stability=TICKETS), tmp_path)
    stability = build_summary(results).stability
    assert stability is not None
    (dense,) = stability.tickets
    assert dense.order is not None
    assert (dense.order.validation_barrier.values, dense.order.stable) == ([1.0], 0)
