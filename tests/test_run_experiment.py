"""Whole experiments: which runs are trained, and what the results say."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from tests.support.experiments import Recorder, rotated_digits, simulate, train
from tests.support.fake_engine import FakeEngine
from tests.support.recipes import TINY, tiny
from tombola._run_experiment import run_experiment
from tombola.experiments.methods import METHODS
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results
from tombola.report.html import static_svg
from tombola.report.page import write_report
from tombola.report.page_sections import document
from tombola.report.printable_results import read_results
from tombola.report.prose import conclusion
from tombola.report.report_data import read_report_data
from tombola.report.terminal import show_summary
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.stats.error_barriers import BarrierCriteria, interpolation_paths, stable_rewind_points
from tombola.stats.summarise import build_summary
from tombola.studies.request import INTERMEDIATE
from tombola.tickets.ticket import Ticket
from tombola.utils.workers import InlineExecutor
from tombola.zoo.models import build
from tombola.zoo.models.description import Start

SHORT = {"training__length": "40it", "search__levels": 2, "controls__reinit": 1}
STABILITY = {"candidates": ["0it", "10it", "20it"], "points": 4, "tolerance": 0.5}
EASY_TO_WIN = {"margin": 0.99, "stop_margin": 99.0, "max_density": 0.99}


def test_the_trunk_is_trained_once_per_replicate_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    recipe = tiny(**SHORT, rewind={"to": "20it"})
    results, recorder = simulate(recipe, tmp_path)
    ranges = Counter((each.begin, each.last) for each in recorder.trained)
    assert ranges == {(0, 20): 2, (20, 40): 2 * 3, (0, 40): 2 * 2}  # trunks, tickets, reinitialised from iteration 0
    assert len({each.key for each in recorder.trained}) == len(recorder.trained) == results.tally.trained
    again, recorder = simulate(recipe, tmp_path)
    assert recorder.trained == []
    assert again.tally.from_store == results.tally.trained
    assert again.rows == results.rows
    assert {row.branch for row in results.rows} == {"ticket", "reinit"}
    assert any(cost.branch == "trunk" and cost.runs == 2 for cost in results.costs)


def test_every_engine_rewinds(tmp_path: Path) -> None:
    recipe = tiny(**SHORT, rewind={"to": "20it"}, replicates=1)
    one, *others = (train(recipe, tmp_path / engine, engine=engine)[0] for engine in ("eager", "sparse", "stacked"))
    for other in others:
        for a, b in zip(one.rows, other.rows, strict=True):
            assert (a.level, a.branch, a.weights, a.run) == (b.level, b.branch, b.weights, b.run)


def test_a_saved_ticket_has_the_weights_it_is_rewound_to(tmp_path: Path) -> None:
    recipe = tiny(replicates=5, search__levels=1, controls={}, rewind={"to": "20it"}, verdict=EASY_TO_WIN)
    _, recorder = simulate(recipe, tmp_path)
    ticket = Ticket.load(tmp_path / "out" / "ticket.safetensors")
    trunks = {study: request.run for study, request in recorder.answers if request.branch == "trunk"}
    state = Store(tmp_path / "store").load_state(trunks[ticket.provenance["replicate"]].key)
    for name, kept in ticket.mask.items():
        assert torch.equal(ticket.start[name], state[name] * kept)


@pytest.mark.parametrize("method", ["learning-rate", "fine-tuning"])
def test_without_weight_rewinding_each_ticket_resumes_from_the_one_before(tmp_path: Path, method: str) -> None:
    _, recorder = simulate(tiny(**SHORT, rewind={"to": "20it", "method": method}), tmp_path)
    tickets = {(s, request.level): request.run for s, request in recorder.answers if request.branch == "ticket"}
    for (study, level), ticket in tickets.items():
        earlier = ticket.start.trained
        assert (earlier and earlier.run) == (tickets[study, level - 1].key if level else None)


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Recorder, Path]:
    """An experiment that rewinds to where it is stable."""
    folder = tmp_path_factory.mktemp("stable")
    recipe = tiny(**SHORT, rewind={"to": "auto"}, stability=STABILITY | {"tolerance": 0.0})
    return *train(recipe, folder), folder


def test_each_replicate_rewinds_to_its_smallest_stable_iteration(stable: tuple[Results, Recorder, Path]) -> None:
    results, recorder, folder = stable
    paths = interpolation_paths(results.stability, 4)
    expected = [20 if k is None else k for k in stable_rewind_points(paths, BarrierCriteria(0.0, 0.95))]
    begins = {study: request.run.begin for study, request in recorder.answers if request.branch == "ticket"}
    assert [begins[study] for study in sorted(begins)] == expected
    assert {path.k for path in paths} <= {0, 10, 20}
    assert all(path.errors and len(path.errors["validation"]) == 4 for path in paths)
    table = pq.read_table(folder / "out" / "stability.parquet").to_pylist()
    assert results.stability == [row | {"line": None, "level": None} for row in table]
    stability = build_summary(results).stability
    assert stability is not None
    assert stability.rewound_to == stable_rewind_points(paths, BarrierCriteria(0.0, 0.95))
    assert [(row["replicate"], row["k"]) for row in table] == sorted((row["replicate"], row["k"]) for row in table)


def test_report_and_terminal_show_stability(stable: tuple[Results, Recorder, Path]) -> None:
    results, _, folder = stable
    figures = {figure.name: figure for figure in document(read_report_data(folder / "out")).figures}
    for name in ("stability-lines", "stability-barriers"):
        assert figures[name].rows
        assert "<svg" in static_svg(figures[name])
    console = Console(width=80, record=True, file=io.StringIO())
    show_summary(console, build_summary(results))
    text = console.export_text()
    assert "barrier" in text
    assert "smallest stable k" in text


def test_all_candidates_are_evaluated_if_rewinding_does_not_depend_on_them(tmp_path: Path) -> None:
    recipe = tiny(**SHORT, replicates=1, stability=STABILITY | {"pairs": 2})
    results, recorder = simulate(recipe, tmp_path)
    paths = interpolation_paths(results.stability, 4)
    assert {(path.k, path.pair) for path in paths} == {(k, pair) for k in (0, 10, 20) for pair in (0, 1)}
    trained = recorder.trained
    assert len({each.key for each in trained}) == len(trained) == results.tally.trained
    whole = [each for each in trained if each.begin == 0 and each.end is None and each.mask.density == 1]
    assert len(whole) == 3  # for k = 0, the dense network is one end of both lines


@pytest.mark.parametrize("to", ["20it", "auto"])
def test_a_diverged_trunk_ends_the_search(tmp_path: Path, to: str) -> None:
    recipe = tiny(
        replicates=1,
        training=TINY["training"] | {"optimizer": "sgd", "lr": 1e30, "length": "40it"},
        controls={},
        rewind={"to": to},
        stability=STABILITY,
    )
    results, _ = train(recipe, tmp_path)
    assert results.finished
    assert [row.measures.diverged for row in results.rows] == [True]
    assert (results.layers[0]["sign_changes"], results.layers[0]["distance"]) == (None, None)
    stability = build_summary(results).stability
    assert stability is not None
    assert stability.candidates[0].stable == 0


def test_weights_that_are_not_rewound_are_no_tickets(tmp_path: Path) -> None:
    rewind = {"to": "20it", "method": "learning-rate"}
    results, _ = simulate(tiny(replicates=3, search__levels=1, rewind=rewind, verdict=EASY_TO_WIN), tmp_path)
    summary = build_summary(results)
    verdict = summary.levels[1].verdict
    assert (verdict.state, verdict.reason, verdict.fast) == ("not winning", "trained longer", False)
    assert "stop" not in verdict.better_in
    assert summary.smallest_winning is None
    assert not (tmp_path / "out" / "ticket.safetensors").exists()


COMMON = {"training__length": "40it", "replicates": 2, "controls": {"reinit": 1, "random": 1}}
OPTIONS: dict[str, dict[str, Any]] = {
    "gradual": {"gradual": {"changes": 3}},
    "set": {"set": {"changes": 3, "fraction": 0.5}},
    "rigl": {"rigl": {"changes": 3, "fraction": 0.5}},
    "acdc": {"acdc": {"changes": 2}},
    "granet": {"granet": {"changes": 3}},
    "srigl": {"srigl": {"changes": 3}},
    "top-kast": {},
    "str": {},
    "early-bird": {"early_bird": {"draws": 4, "window": 2}},
    "edge-popup": {},
    "biprop": {},
    "bernoulli-gates": {"bernoulli_gates": {"rescale": True}},
}


def recipe_of(method: str, **changes: Any) -> Recipe:
    return tiny(**COMMON | {"search": {"levels": 1, "density": 0.2, "method": method}} | OPTIONS[method] | changes)


@pytest.mark.parametrize("method", OPTIONS)
def test_every_method_finishes_and_can_be_interrupted_and_resumed(method: str, tmp_path: Path) -> None:
    recipe = recipe_of(method)
    results, recorder = simulate(recipe, tmp_path / "whole")
    assert results.finished
    assert not {row.branch for row in results.rows} & set(INTERMEDIATE)
    with pytest.raises(KeyboardInterrupt):
        simulate(recipe, tmp_path / "stopped", stop_after=5)
    again, resumed = simulate(recipe, tmp_path / "stopped")
    assert again.rows == results.rows
    assert len(resumed.trained) == len(recorder.trained) - 5  # nothing was trained twice
    whole, stopped = (tmp_path / name / "out" / "levels.parquet" for name in ("whole", "stopped"))
    assert whole.read_bytes() == stopped.read_bytes()
    if method == "edge-popup":  # it has rows of no iterations
        write_report(tmp_path / "whole/out", tmp_path / "page.html")
    summary = build_summary(results)
    assert (summary.no_ticket is not None) == METHODS[method].mask_changes
    if METHODS[method].mask_changes:
        assert not summary.levels[1].verdict.fast
        assert not summary.levels[1].verdict.winning


def test_the_conclusion_gives_the_reason_why_there_is_no_ticket(tmp_path: Path) -> None:
    results, _ = simulate(recipe_of("edge-popup", edge_popup={"scale_fan": True}), tmp_path)
    assert results.config.no_ticket_reason is not None
    text = conclusion(build_summary(results)).lower()
    assert results.config.no_ticket_reason in text
    assert "continued training" not in text


@pytest.mark.parametrize("method", ["gradual", "rigl", "edge-popup", "biprop", "bernoulli-gates"])
def test_engines_keep_the_same_numbers_of_weights(method: str, tmp_path: Path) -> None:
    counts = []
    for engine in ("eager", "sparse", "stacked"):
        _, recorder = train(recipe_of(method, replicates=1), tmp_path / engine, engine=engine)
        requests = [request for _, request in recorder.answers]
        counts.append(sorted((r.branch, r.level, r.run.begin, *r.run.mask.counts.items()) for r in requests))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("engine", ["eager", "sparse"])
@pytest.mark.parametrize("method", ["set", "rigl"])
def test_pruned_weights_are_zero_and_grown_weights_start_at_zero(method: str, engine: str, tmp_path: Path) -> None:
    recipe = recipe_of(method, training__weight_decay=1e-3, replicates=1)
    _, recorder = train(recipe, tmp_path, engine=engine)
    store = Store(tmp_path / "store")
    branches = {("segment", 1), ("ticket", 1)}
    segments = [request.run for _, request in recorder.answers if (request.branch, request.level) in branches]
    assert len(segments) == 4
    states = [store.load_state(segment.key) for segment in segments]
    for index, (segment, final) in enumerate(zip(segments, states, strict=True)):
        for name, kept in segment.mask.items():
            assert not final[name][~kept].any()
            if index:
                grown = kept & ~segments[index - 1].mask[name]
                assert grown.any()
                assert not states[index - 1][name][grown].any()
                assert final[name][grown].any()


def test_an_early_bird_ticket_can_win_and_is_saved(tmp_path: Path) -> None:
    easy = {"margin": 0.99, "stop_margin": 99.0, "max_density": 0.99}
    results, _ = simulate(recipe_of("early-bird", verdict=easy, replicates=5, controls={"reinit": 1}), tmp_path)
    assert sum(row.branch == "drawn" for row in results.rows) == 5
    assert build_summary(results).smallest_winning
    ticket = Ticket.load(tmp_path / "out/ticket.safetensors")
    assert ticket.mask.density == pytest.approx(0.2, abs=1e-3)
    assert ticket.provenance["recipe"]["search"]["method"] == "early-bird"


def test_a_ticket_that_resumes_from_where_its_mask_was_drawn_is_no_lottery_ticket(tmp_path: Path) -> None:
    recipe = recipe_of("early-bird", early_bird={"draws": 4, "window": 2, "go_on": True}, replicates=3)
    summary = build_summary(simulate(recipe, tmp_path)[0])
    verdict = summary.levels[1].verdict
    assert (summary.no_ticket, verdict.winning, verdict.fast) == ("weights not rewound", False, False)


@pytest.mark.parametrize("engine", ["eager", "sparse"])
def test_drawing_masks_changes_no_bit_of_the_dense_training(engine: str, tmp_path: Path) -> None:
    never_agree = {"draws": 4, "window": 4, "tolerance": 1e-9}  # so the last mask is drawn at the end
    _, recorder = train(recipe_of("early-bird", early_bird=never_agree, replicates=1), tmp_path, engine=engine)
    runs = {(request.branch, request.level): request.run for _, request in recorder.answers}
    store = Store(tmp_path / "store")
    whole, drawn = (store.load_state(runs[key].key) for key in (("ticket", 0), ("drawn", 1)))
    assert all(torch.equal(whole[name], drawn[name]) for name in whole)


@pytest.mark.parametrize("method", ["edge-popup", "biprop", "bernoulli-gates"])
def test_untrained_subnetworks_are_runs_of_no_iterations(method: str, tmp_path: Path) -> None:
    results, recorder = train(recipe_of(method, replicates=1), tmp_path)
    scored = next(request.run for _, request in recorder.answers if request.branch == "scores")
    outcome = Store(tmp_path / "store").get(scored)
    assert outcome is not None
    measures = {row.branch: row.measures for row in results.rows}
    assert measures["supermask"]["test_accuracy"] == outcome.measures["test_accuracy"]  # of the same mask and weights
    for branch in ("supermask", "untrained"):
        assert (measures[branch].iterations, measures[branch].stop_iteration) == (0, 0)


def test_transferring_tickets_changes_nothing_in_the_search(tmp_path: Path) -> None:
    transfer = {"data": {"name": str(rotated_digits(tmp_path, 5)), "validation": 100}, "levels": [2]}
    options = {**COMMON, "search__levels": 2}
    plain, _ = train(tiny(**options), tmp_path / "plain", engine="eager")
    results, recorder = train(tiny(**options, transfer=transfer), tmp_path / "both", engine="eager")
    transferred = [row for row in results.rows if row.branch.startswith("transfer")]
    expected = [(0, "transfer"), (2, "transfer"), (2, "transfer_random")]
    assert [(row.level, row.branch) for row in transferred] == expected * 2
    assert [row for row in results.rows if row not in transferred] == plain.rows
    levels, plain_levels = build_summary(results).levels, build_summary(plain).levels
    assert [level.verdict for level in levels] == [level.verdict for level in plain_levels]
    assert [level.controls.keys() for level in levels] == [level.controls.keys() for level in plain_levels]
    write_report(tmp_path / "both/out", tmp_path / "page.html")
    assert transfer["data"]["name"] in (tmp_path / "page.html").read_text()
    runs = [request.run for _, request in recorder.answers if (request.branch, request.level) == ("transfer", 2)]
    weights = Store(tmp_path / "both/store").load_state(runs[0].key)
    assert all(weights[name][kept].any() and not weights[name][~kept].any() for name, kept in runs[0].mask.items())


class SeeingEngine(FakeEngine):
    """Its outcomes name the GPUs that were visible."""

    def train(self, runs: Sequence[Run], checkpoint: object, load_state: Any) -> list[Outcome]:
        outcomes = super().train(runs, checkpoint, load_state)
        return [replace(outcome, engine=os.environ["CUDA_VISIBLE_DEVICES"]) for outcome in outcomes]


def test_several_gpus_have_a_worker_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[Any, ...]] = []

    def named(*arguments: Any) -> SeeingEngine:
        chosen.append(arguments)
        return SeeingEngine()

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr("tombola._trainers.named_engine", named)
    results = run_experiment(tiny(**SHORT), tmp_path / "out", device="cuda", progress=False)
    assert set(results.engines) <= {"GPU-a", "GPU-b"}
    run_experiment(tiny(**SHORT), tmp_path / "out", device="cuda", workers=1, progress=False)  # nothing is left to do
    assert [arguments[2:] for arguments in chosen] == [("cuda", 1), ("cuda", 1)]


def test_the_device_is_chosen_before_workers_and_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    @contextmanager
    def executor(*arguments: Any) -> Iterator[Executor]:
        seen["executor"] = arguments
        yield InlineExecutor()

    def named(*arguments: Any) -> FakeEngine:
        seen["engine"] = arguments
        return FakeEngine()

    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setattr("tombola.engines.device_choice.CUDA_START", -1.0)
    monkeypatch.setattr("tombola.engines.device_choice._why_not_usable", lambda: None)
    monkeypatch.setattr("tombola._trainers.parallel_executor", executor)
    monkeypatch.setattr("tombola._trainers.named_engine", named)
    run_experiment(tiny(**SHORT), tmp_path / "out", workers=4, progress=False)
    assert seen["engine"] == ("auto", None, "cuda", 2)
    workers, threads, gpus = seen["executor"]
    assert (workers, threads(), gpus) == (4, False, ["4", "5", "6"])


def test_where_nothing_is_trained_each_network_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(**SHORT)
    simulate(recipe, tmp_path)
    built: Counter[str] = Counter()

    def counted(start: Start) -> Any:
        built[start.model_dump_json()] += 1
        return build(start)

    monkeypatch.setattr("tombola.runs.initial_state.build", counted)
    _, recorder = simulate(recipe, tmp_path)
    assert recorder.trained == []
    assert len(built) == 2 * (1 + 2)  # by replicate: of the search, and of a control at two levels
    assert built.total() == len(built)


@pytest.mark.parametrize("options", [{}, {"rewind": {"to": "20it"}, "stability": STABILITY}])
def test_results_are_those_of_the_folder(tmp_path: Path, options: dict[str, Any]) -> None:
    results, _ = simulate(tiny(**SHORT, **options), tmp_path)
    assert results.folder is not None
    read = read_results(results.folder)
    assert read == results
    assert (read.summary, read.curves) == (results.summary, results.curves)
