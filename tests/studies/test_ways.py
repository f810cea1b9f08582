"""Whole experiments by every method: what is trained, what is kept, and what the results say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny
from tests.studies.test_transfer import other_data
from tombola._run_experiment import run_experiment
from tombola.experiments.method_options import IN_TRAINING
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results
from tombola.report.page import write_report
from tombola.report.prose import answer
from tombola.runs.outcome import Outcome
from tombola.runs.store import Store
from tombola.stats.summary import summarise
from tombola.studies.request import INTERMEDIATE, RunRequest
from tombola.tickets.ticket import Ticket

SHORT = {"training__length": "40it", "replicates": 2, "controls": {"reinit": 1, "random": 1}}
OPTIONS: dict[str, dict[str, Any]] = {
    "gradual": {"gradual": {"changes": 3}},
    "set": {"set": {"changes": 3, "fraction": 0.5}},
    "rigl": {"rigl": {"changes": 3, "fraction": 0.5}},
    "early-bird": {"early_bird": {"draws": 4, "window": 2}},
    "edge-popup": {},
}


def recipe_of(method: str, **changes: Any) -> Recipe:
    return tiny(**SHORT | {"search": {"levels": 1, "density": 0.2, "method": method}} | OPTIONS[method] | changes)


class Notes:
    """Listens; tells a training to stop after some of them, if it is to."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asks: list[tuple[int, RunRequest]] = []
        self.trained: list[str] = []
        self.stop_after = stop_after

    def started(self, study: int, ask: RunRequest) -> None:
        """Nothing to note."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.asks.append((study, ask))
        if trained:
            self.trained.append(ask.run.key)
        if self.stop_after is not None and len(self.trained) >= self.stop_after:
            raise KeyboardInterrupt


def performed(recipe: Recipe, folder: Path, notes: Notes, **options: Any) -> Results:
    return run_experiment(recipe, folder / "out", store=folder / "store", listeners=[notes], **options)


@pytest.mark.parametrize("method", OPTIONS)
def test_every_method_comes_to_an_end_and_what_was_stopped_goes_on(method: str, tmp_path: Path) -> None:
    recipe = recipe_of(method)
    notes = Notes()
    results = performed(recipe, tmp_path / "whole", notes)
    assert results.finished
    assert not {row.branch for row in results.rows} & set(INTERMEDIATE)
    with pytest.raises(KeyboardInterrupt):
        performed(recipe, tmp_path / "stopped", first := Notes(stop_after=5))
    again = performed(recipe, tmp_path / "stopped", rest := Notes())
    assert again.rows == results.rows
    assert sorted(first.trained + rest.trained) == sorted(notes.trained)  # nothing was trained twice
    assert (tmp_path / "stopped/out/levels.parquet").read_bytes() == (
        tmp_path / "whole/out/levels.parquet"
    ).read_bytes()
    if method == "edge-popup":  # rows of no iterations
        write_report(tmp_path / "whole/out", tmp_path / "page.html")
    (verdict,) = [level["verdict"] for level in summarise(results)["levels"] if level["level"] == 1]
    if method in IN_TRAINING:
        assert not verdict["fast"]
        assert "none of this is a lottery ticket" in answer(summarise(results))


@pytest.mark.parametrize("method", ["gradual", "rigl", "edge-popup"])
def test_engines_agree_on_how_many_weights_are_left(method: str, tmp_path: Path) -> None:
    counts = {}
    for engine in ("eager", "sparse", "stacked"):
        notes = Notes()
        performed(recipe_of(method), tmp_path / engine, notes, engine=engine)
        counts[engine] = sorted(
            (study, ask.branch, ask.level, ask.run.begin, tuple(ask.run.mask.counts.items()))
            for study, ask in notes.asks
        )
    assert counts["eager"] == counts["sparse"] == counts["stacked"]


@pytest.mark.parametrize("engine", ["eager", "sparse"])
@pytest.mark.parametrize("method", ["set", "rigl"])
def test_pruned_weights_are_exactly_zero_and_grown_ones_start_there(method: str, engine: str, tmp_path: Path) -> None:
    notes = Notes()
    performed(recipe_of(method, training__weight_decay=1e-3), tmp_path, notes, engine=engine)
    store = Store(tmp_path / "store")
    trained = [ask.run for study, ask in notes.asks if study == 0 and (ask.branch, ask.level) in TRAINED]
    assert len(trained) == 4
    for index, run in enumerate(trained):
        final = store.recall(run.key)
        before = store.recall(trained[index - 1].key) if index else None
        for name, kept in run.mask.items():
            assert not final[name][~kept].any()
            if before is not None:
                grown = kept & ~trained[index - 1].mask[name]
                assert grown.any()
                assert not before[name][grown].any()
                assert final[name][grown].any()


TRAINED = {("segment", 1), ("ticket", 1)}


def test_a_ticket_that_was_drawn_early_is_judged_and_written(tmp_path: Path) -> None:
    wins = {"accuracy_margin": 0.99, "stop_margin": 99.0, "max_density": 0.99}
    changes = {"model": {"name": "mlp", "widths": [200]}, "training__length": "160it", "training__lr": 0.1}
    recipe = recipe_of(
        "early-bird", verdict=wins | {"control": "random"}, replicates=5, controls={"reinit": 1}, **changes
    )
    results = performed(recipe, tmp_path, Notes())
    drawn = [row.measures.iterations for row in results.rows if row.branch == "drawn"]
    assert len(drawn) == 5
    assert set(drawn) <= {80, 120, 160}
    assert summarise(results)["smallest_winning"]
    ticket = Ticket.load(tmp_path / "out/ticket.safetensors")
    assert ticket.mask.density == pytest.approx(0.2, abs=1e-3)
    assert ticket.provenance["recipe"]["search"]["method"] == "early-bird"


def test_a_ticket_that_went_on_from_where_it_was_drawn_is_no_lottery_ticket(tmp_path: Path) -> None:
    recipe = recipe_of("early-bird", early_bird={"draws": 4, "window": 2, "go_on": True}, replicates=3)
    summary = summarise(performed(recipe, tmp_path, Notes()))
    assert not summary["levels"][1]["verdict"]["winning"]
    assert not summary["levels"][1]["verdict"]["fast"]
    assert "none of this is a lottery ticket" in answer(summary)


@pytest.mark.parametrize("engine", ["eager", "sparse"])
def test_masks_are_drawn_early_from_the_network_that_is_trained(engine: str, tmp_path: Path) -> None:
    """Pausing on the way changes no bit of the dense training."""
    recipe = recipe_of(
        "early-bird",
        model={"name": "mlp", "widths": [20, 10]},
        early_bird={"draws": 4, "window": 4, "tolerance": 1e-9},
    )
    performed(recipe, tmp_path, notes := Notes(), engine=engine)
    store = Store(tmp_path / "store")
    asks = {(study, ask.branch, ask.level): ask for study, ask in notes.asks}
    for study in range(2):
        whole, drawn = (
            store.recall(asks[study, branch, level].run.key) for branch, level in (("ticket", 0), ("drawn", 1))
        )
        assert all(torch.equal(whole[name], drawn[name]) for name in whole)  # they never agree: the last is the end


def test_untrained_subnetworks_are_runs_of_no_iterations(tmp_path: Path) -> None:
    results = performed(recipe_of("edge-popup", replicates=3), tmp_path, notes := Notes(), workers=2)
    store = Store(tmp_path / "store")
    trained = {study: store.get(ask.run) for study, ask in notes.asks if ask.branch == "edge_popup"}
    for row in results.rows:
        if row.branch == "supermask":  # the mask that was read off is that which was trained, and so are the weights
            outcome = trained[row.replicate]
            assert outcome is not None
            assert row.measures.test_accuracy == outcome.measures.test_accuracy
    for branch in ("supermask", "untrained"):
        rows = [row for row in results.rows if row.branch == branch]
        assert [(row.measures.iterations, row.measures.stop_iteration) for row in rows] == [(0, 0)] * 3


def test_tickets_are_trained_on_other_data_beside_the_search(tmp_path: Path) -> None:
    transfer = {"data": {"name": str(other_data(tmp_path, 5)), "validation": 100}, "levels": [2]}
    plain = performed(tiny(**SHORT, search__levels=2), tmp_path / "plain", Notes())
    results = performed(tiny(**SHORT, search__levels=2, transfer=transfer), tmp_path / "both", Notes())
    there = [row for row in results.rows if row.branch.startswith("transfer")]
    assert [(row.level, row.branch) for row in there] == [
        (0, "transfer"),
        (2, "transfer"),
        (2, "transfer_random"),
    ] * 2
    assert [row for row in results.rows if row not in there] == plain.rows  # the source's rows are as they were
    summary = summarise(results)
    assert [level["verdict"] for level in summary["levels"]] == [
        level["verdict"] for level in summarise(plain)["levels"]
    ]
    assert not any(set(level["against"]) & {"transfer", "transfer_random"} for level in summary["levels"])
    write_report(tmp_path / "both/out", tmp_path / "page.html")
    assert f"Rows named transfer are of {transfer['data']['name']}" in (tmp_path / "page.html").read_text()


def test_a_transferred_ticket_is_zero_where_it_is_pruned(tmp_path: Path) -> None:
    transfer = {"data": {"name": str(other_data(tmp_path, 5)), "validation": 100}}
    performed(tiny(**SHORT, search__levels=1, transfer=transfer), tmp_path, notes := Notes())
    run = next(ask.run for _, ask in notes.asks if (ask.branch, ask.level) == ("transfer", 1))
    final = Store(tmp_path / "store").recall(run.key)
    assert all(torch.equal(final[name] != 0, kept) or not final[name][~kept].any() for name, kept in run.mask.items())
