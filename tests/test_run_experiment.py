"""Whole experiments that rewind: what is trained, how often, and what the results say."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from tests.conftest import TINY, tiny
from tombola._run_experiment import run_experiment
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results, read_results
from tombola.report.page import write_figures, write_report
from tombola.report.prose import answer
from tombola.report.terminal import show_summary
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.stats.stability import lines, rewound_to
from tombola.stats.summary import summarise
from tombola.studies.request import RunRequest
from tombola.tickets.ticket import Ticket

SHORT = {"training__length": "40it", "search__levels": 2, "controls__reinit": 1}
STABILITY = {"candidates": ["0it", "10it", "20it"], "points": 4, "tolerance": 0.5}
EVERYTHING_WINS = {"accuracy_margin": 0.99, "stop_margin": 99.0, "max_density": 0.99}


class Notes:
    """Listens, and notes what was asked and what was trained."""

    def __init__(self) -> None:
        self.asks: list[tuple[int, RunRequest]] = []
        self.trained: list[Run] = []

    def started(self, study: int, ask: RunRequest) -> None:
        """Nothing to note."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:
        self.asks.append((study, ask))
        if trained:
            self.trained.append(ask.run)
        assert outcome.measures.diverged or outcome.measures.iterations == ask.run.last


def performed(recipe: Recipe, tmp_path: Path, **options: Any) -> tuple[Results, Notes]:
    notes = Notes()
    results = run_experiment(recipe, tmp_path / "out", store=tmp_path / "store", listeners=[notes], **options)
    return results, notes


def test_the_trunk_is_trained_once_per_replicate_and_remembered(tmp_path: Path) -> None:
    recipe = tiny(**SHORT, rewind={"to": "20it"})
    results, notes = performed(recipe, tmp_path)
    assert Counter(run.last for run in notes.trained)[20] == 2  # one for each replicate
    assert len({run.key for run in notes.trained}) == len(notes.trained) == results.tally.trained
    trained_for = sum(run.last - run.begin for run in notes.trained)
    assert trained_for == 2 * (20 + 3 * 20 + 2 * 40)  # trunk, three levels from there, two reinitialised from 0
    again, noted = performed(recipe, tmp_path)
    assert noted.trained == []
    assert again.tally.from_store == results.tally.trained
    assert again.rows == results.rows
    rows = {(row.replicate, row.level, row.branch) for row in results.rows}
    assert {branch for _, _, branch in rows} == {"ticket", "reinit"}  # a trunk is nobody's ticket
    assert any(cost.branch == "trunk" and cost.runs == 2 for cost in results.costs)


@pytest.mark.parametrize("engine", ["eager", "stacked"])
def test_every_engine_rewinds(tmp_path: Path, engine: str) -> None:
    sparse, _ = performed(tiny(**SHORT, rewind={"to": "20it"}), tmp_path / "sparse")
    other, _ = performed(tiny(**SHORT, rewind={"to": "20it"}), tmp_path / engine, engine=engine)
    for one, two in zip(sparse.rows, other.rows, strict=True):
        assert (one.level, one.branch, one.weights) == (two.level, two.branch, two.weights)
        assert one.measures.test_accuracy == pytest.approx(two.measures.test_accuracy, abs=0.05)


def test_a_ticket_holds_the_weights_it_is_rewound_to(tmp_path: Path) -> None:
    recipe = tiny(
        replicates=3,
        training={**TINY["training"], "length": "300it", "lr": 0.05},
        search=TINY["search"] | {"levels": 1},
        controls={},
        rewind={"to": "20it"},
        verdict=EVERYTHING_WINS,
    )
    _, notes = performed(recipe, tmp_path)
    ticket = Ticket.load(tmp_path / "out" / "ticket.safetensors")
    trunks = {study: ask.run for study, ask in notes.asks if ask.branch == "trunk"}
    from tombola.runs.store import Store

    left = Store(tmp_path / "store").recall(trunks[ticket.provenance["replicate"]].key)
    for name, kept in ticket.mask.items():
        assert torch.equal(ticket.start[name], left[name] * kept)


@pytest.mark.parametrize("method", ["learning-rate", "fine-tuning"])
def test_weights_are_kept_where_only_the_learning_rate_goes_back(tmp_path: Path, method: str) -> None:
    recipe = tiny(**SHORT, rewind={"to": "20it", "method": method})
    results, notes = performed(recipe, tmp_path)
    assert results.finished
    tickets = [(study, ask) for study, ask in notes.asks if ask.branch == "ticket"]
    for study, ask in tickets:
        if ask.level:
            before = next(a.run for s, a in tickets if (s, a.level) == (study, ask.level - 1))
            assert ask.run.start.trained is not None
            assert ask.run.start.trained.run == before.key


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Notes, Path]:
    """An experiment that chooses what it rewinds to."""
    folder = tmp_path_factory.mktemp("chosen")
    recipe = tiny(**SHORT, rewind={"to": "auto"}, stability=STABILITY | {"tolerance": 0.0})
    return *performed(recipe, folder), folder


def test_rewinding_chooses_the_smallest_stable_iteration(chosen: tuple[Results, Notes, Path]) -> None:
    results, notes, folder = chosen
    began = {study: ask.run.begin for study, ask in notes.asks if ask.branch == "ticket"}
    assert [began[study] for study in sorted(began)] == [
        20 if k is None else k for k in rewound_to(lines(results.stability, 4), 0.0)
    ]
    walked = lines(results.stability, 4)
    assert {line.k for line in walked} <= {0, 10, 20}
    for line in walked:
        assert line.errors is not None
        assert len(line.errors["validation"]) == 4
    table = pq.read_table(folder / "out" / "stability.parquet").to_pylist()
    assert table == results.stability
    assert [(row["replicate"], row["k"]) for row in table] == sorted((row["replicate"], row["k"]) for row in table)


def test_the_evidence_says_how_stable_it_is(chosen: tuple[Results, Notes, Path]) -> None:
    found = summarise(chosen[0])["stability"]
    assert found["tolerance"] == 0.0
    assert found["rewound_to"] == rewound_to(lines(chosen[0].stability, 4), 0.0)
    first = found["candidates"][0]
    assert first["k"] == 0
    table = rows_of(chosen[2] / "out" / "stability.parquet")
    for replicate, value in enumerate(first["validation_barrier"]["values"]):
        errors = [1 - row["validation_accuracy"] for row in table if (row["replicate"], row["k"]) == (replicate, 0)]
        assert value == pytest.approx(max(errors) - (errors[0] + errors[-1]) / 2)
    assert summarise(performed_without(chosen))["stability"] is None


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def performed_without(chosen: tuple[Results, Notes, Path]) -> Results:
    folder = chosen[2] / "plain"
    return run_experiment(tiny(**SHORT, replicates=1), folder / "out", store=chosen[2] / "store")


def test_the_report_shows_it(chosen: tuple[Results, Notes, Path], tmp_path: Path) -> None:
    folder = chosen[2] / "out"
    write_report(folder, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Error barriers in points" in page
    assert "rewound to the smallest stable k" in page
    write_figures(folder, tmp_path / "figures")
    assert (tmp_path / "figures" / "stability-lines.svg").exists()
    assert (tmp_path / "figures" / "stability-barriers.csv").exists()
    console = Console(width=80, record=True, file=io.StringIO())
    show_summary(console, summarise(read_results(folder)))
    shown = console.export_text()
    assert "Stability" in shown
    assert "rewound to the smallest stable k" in shown


def test_all_candidates_are_looked_at_where_nothing_is_to_be_chosen(tmp_path: Path) -> None:
    recipe = tiny(**SHORT, replicates=1, stability=STABILITY | {"pairs": 2})
    results, notes = performed(recipe, tmp_path)
    assert {(line.k, line.pair) for line in lines(results.stability, 4)} == {
        (k, p) for k in (0, 10, 20) for p in (0, 1)
    }
    assert len({run.key for run in notes.trained}) == len(notes.trained) == results.tally.trained
    # k = 0: the dense network itself is one end of both lines
    ends = [run for run in notes.trained if run.begin == 0 and run.end is None and run.mask.density == 1]
    assert len(ends) == 3


@pytest.mark.parametrize("to", ["20it", "auto"])
def test_a_trunk_that_diverges_is_survived(tmp_path: Path, to: str) -> None:
    recipe = tiny(
        replicates=1,
        training=TINY["training"] | {"optimizer": "sgd", "lr": 1e30, "length": "40it"},
        controls={},
        rewind={"to": to},
        stability=STABILITY,
    )
    results, _ = performed(recipe, tmp_path)
    assert results.finished
    assert [row.measures.diverged for row in results.rows] == [True]
    assert all(figure is None for figure in (results.layers[0]["sign_changes"], results.layers[0]["distance"]))
    assert summarise(results)["stability"]["candidates"][0]["stable"] == 0


def test_weights_that_are_not_rewound_win_nothing(tmp_path: Path) -> None:
    recipe = tiny(
        replicates=3,
        training={**TINY["training"], "length": "300it", "lr": 0.05},
        search=TINY["search"] | {"levels": 1},
        rewind={"to": "20it", "method": "learning-rate"},
        verdict=EVERYTHING_WINS,
    )
    results, _ = performed(recipe, tmp_path)
    summary = summarise(results)
    verdict = summary["levels"][1]["verdict"]
    assert (verdict["state"], verdict["reason"], verdict["fast"]) == ("not winning", "trained longer", False)
    assert "stop" not in verdict["better"]
    assert summary["smallest_winning"] is None
    assert not (tmp_path / "out" / "ticket.safetensors").exists()
    assert answer(summary).startswith("Weights were not rewound after pruning (learning-rate)")
