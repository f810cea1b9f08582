"""What is trained again, where results are stored, which figures and weights count as reproduced."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.experiments import Recorder
from tests.support.tickets import experiment_ticket, set_in, with_provenance
from tombola.engines import engine
from tombola.engines.device_choice import Demand
from tombola.pruning.mask import State
from tombola.runs.outcome import Outcome
from tombola.tickets.precision import Precision
from tombola.tickets.provenance import read_claim
from tombola.tickets.ticket import Ticket
from tombola.tickets.verification import RECORDED_RUN, Verification
from tombola.tickets.verify import default_store, expected_runs, verify_ticket
from tombola.utils.errors import InputError


def test_the_recorded_run_is_reproduced(plain: Path, verification: Verification) -> None:
    summary = verification.summary()
    assert summary["reproduced"]["exact"]
    assert summary["reproduced"]["trained_apart"] == 0
    assert not summary["reproduced"]["remembered"]
    assert verification.reproduced["ticket"].difference == 0
    assert summary["runs"]["trained"] == expected_runs(verification.claim, 5, 1) == 2 + 5 * 3
    assert {summary["rewound_to"], summary["runs"]["from_store"]} == {0}
    provenance = Ticket.load(plain).provenance
    recorded = next(row for row in verification.rows if (row.replicate, row.level) == (RECORDED_RUN, 1))
    assert recorded.run == provenance["key"]
    assert recorded.measures.model_dump() == provenance["measures"]


def test_a_rewound_ticket_is_trained_from_the_trunk(rewound: Path) -> None:
    claim = read_claim(rewound)
    result = verify_ticket(claim, repeats=5)
    assert claim.k == 20
    summary = result.summary()
    assert summary["reproduced"]["exact"]
    assert result.tally.trained == expected_runs(claim, 5, 1) == 1 + 2 + 5 * 3
    assert (summary["rewound_to"], summary["iterations"]) == (20, 500)


def test_a_store_beside_the_file_is_not_used(plain: Path, tmp_path: Path, cache: Path) -> None:
    """It could have come with the file."""
    file = tmp_path / "ticket.safetensors"
    file.write_bytes(plain.read_bytes())
    shutil.copytree(plain.parents[1] / "store", tmp_path / ".tombola-check")
    store = default_store(file)
    assert store.parent == cache / "tombola" / "checks"
    assert store == default_store(plain)
    other = with_provenance(plain, tmp_path, set_in("verdict", value={}))
    assert default_store(other) != store
    result = verify_ticket(read_claim(other), repeats=1, reinit=0)
    assert not result.remembered
    assert result.tally.from_store == 0
    assert result.store == str(default_store(other))
    assert (Path(result.store) / "runs").is_dir()
    again = verify_ticket(read_claim(other), repeats=1, reinit=0)
    assert again.remembered
    assert (again.tally.trained, again.tally.from_store) == (0, 4)


def test_the_store_of_the_experiment_answers_its_own_runs(plain: Path) -> None:
    result = verify_ticket(read_claim(plain), repeats=1, reinit=0, store=plain.parents[1] / "store")
    assert result.remembered
    assert result.tally.trained == 2


def test_more_repeats_include_the_earlier_ones(plain: Path, verification: Verification) -> None:
    more = verify_ticket(read_claim(plain), repeats=6)
    assert [row for row in more.rows if row.replicate <= 5] == verification.rows
    assert more.tally.trained == 3
    assert more.remembered
    others = verify_ticket(read_claim(plain), repeats=1, reinit=0, seed=1)
    orders = {row.run for row in others.rows if row.replicate == 1}
    assert orders.isdisjoint(row.run for row in more.rows)
    assert others.summary()["verdict"]["p_better_than_control"] is None


def test_an_interrupted_verification_resumes(plain: Path, verification: Verification, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        verify_ticket(read_claim(plain), repeats=5, store=tmp_path, listeners=[Recorder(stop_after=4)])
    again = verify_ticket(read_claim(plain), repeats=5, store=tmp_path)
    assert again.tally.from_store == 4
    assert again.tally.trained == expected_runs(again.claim, 5, 1) - 4
    assert again.rows == verification.rows


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("iterations", 480),
        ("test_accuracy_at_stop", 1.0),
        ("test_accuracy", 0.5),
        ("validation_loss_at_stop", 9.0),
        ("stop_iteration", 20),
    ],
)
def test_a_false_figure_of_the_ticket_is_found(
    plain: Path, verification: Verification, tmp_path: Path, figure: str, value: float
) -> None:
    file = with_provenance(plain, tmp_path, set_in("measures", figure, value=value))
    result = verify_ticket(read_claim(file), repeats=5, reinit=0, store=verification.store)
    summary = result.summary()
    assert (summary["state"], summary["failing"]) == ("does not hold", "ticket")
    assert summary["reproduced"]["ticket"]["off"] == [figure]
    assert not summary["reproduced"]["all"]


def test_a_false_figure_of_the_dense_network_is_found(
    plain: Path, verification: Verification, tmp_path: Path
) -> None:
    true = next(row.measures for row in verification.rows if (row.replicate, row.level) == (RECORDED_RUN, 0))
    worse = true.model_copy(update={"test_accuracy_at_stop": (true.test_accuracy_at_stop or 0) - 0.5})
    for dense, reproduced in ((true, True), (worse, False)):
        file = with_provenance(plain, tmp_path, set_in("dense", value=dense.model_dump()))
        result = verify_ticket(read_claim(file), repeats=5, reinit=0, store=verification.store)
        assert result.reproduced["dense"].reproduced is reproduced
        assert (result.summary()["failing"] == "dense") is not reproduced


def test_the_initial_weights_must_match_the_provenance(plain: Path, rewound: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    for file in (plain, rewound):
        ticket = Ticket.load(file)
        start = {name: tensor * 1.01 for name, tensor in ticket.start.items()}
        Ticket(ticket.mask, start, ticket.provenance).save(path)
        with pytest.raises(InputError, match="initial weights do not match"):
            verify_ticket(read_claim(path), repeats=1)


@pytest.mark.parametrize(("option", "value"), [("repeats", 0), ("reinit", -1)])
def test_invalid_numbers_are_refused(plain: Path, option: str, value: int) -> None:
    with pytest.raises(InputError, match=option):
        verify_ticket(read_claim(plain), **{option: value})


Change = Callable[[str, torch.Tensor], torch.Tensor]


def summary_with_trained(file: Path, folder: Path, change: Change, precision: Precision = "fp32") -> dict[str, Any]:
    """The verification of a ticket whose trained weights are changed."""
    ticket, path = Ticket.load(file), folder / "other.safetensors"
    trained: State = {name: change(name, tensor) for name, tensor in (ticket.trained or {}).items()}
    Ticket(ticket.mask, ticket.start, ticket.provenance, trained, drawn=ticket.drawn).save(path, trained=precision)
    return verify_ticket(read_claim(path), repeats=1, reinit=0, store=default_store(file)).summary()


@pytest.mark.parametrize(
    ("change", "distance"),
    [
        (lambda name, tensor: 1.5 * tensor, 1 / 3),  # noqa: ARG005
        (lambda name, tensor: tensor * (1 + 1e-5 * (name == "fc2.bias")), 1e-5),  # however small
        (lambda name, tensor: torch.full_like(tensor, math.nan) if name == "fc1.bias" else tensor, math.inf),
        (lambda name, tensor: torch.full_like(tensor, math.inf) if name == "fc1.bias" else tensor, math.inf),
    ],
)
def test_other_trained_weights_are_found(plain: Path, tmp_path: Path, change: Change, distance: float) -> None:
    summary = summary_with_trained(plain, tmp_path, change)
    assert (summary["state"], summary["failing"]) == ("does not hold", "trained")
    assert not summary["reproduced"]["all"]
    trained = summary["reproduced"]["trained"]
    assert trained["apart"] == summary["reproduced"]["trained_apart"] == pytest.approx(distance, rel=0.05)
    assert not trained["same"]
    assert (trained["accuracy"] is None) == math.isinf(distance)


def test_a_ticket_needs_no_trained_weights(plain: Path, tmp_path: Path) -> None:
    ticket, path = Ticket.load(plain), tmp_path / "untrained.safetensors"
    Ticket(ticket.mask, ticket.start, ticket.provenance).save(path)
    summary = verify_ticket(read_claim(path), repeats=1, reinit=0, store=default_store(plain)).summary()
    assert (summary["reproduced"]["trained"], summary["reproduced"]["trained_apart"]) == (None, None)
    assert summary["failing"] is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_trained_weights_may_be_rounded(plain: Path, tmp_path: Path, precision: Precision) -> None:
    summary = summary_with_trained(plain, tmp_path, lambda name, tensor: tensor, precision)  # noqa: ARG005
    assert summary["reproduced"]["trained"]["reproduced"]
    assert (summary["reproduced"]["trained"]["apart"] == 0) == (precision == "fp32")
    again = summary_with_trained(tmp_path / "other.safetensors", tmp_path, lambda name, tensor: tensor)  # noqa: ARG005
    assert again["reproduced"]["trained"]["reproduced"]


def test_trained_weights_of_another_architecture_are_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fc1\.bias"):
        summary_with_trained(plain, tmp_path, lambda name, tensor: tensor[:3] if name == "fc1.bias" else tensor)


SHORT: dict[str, Any] = {
    "training": {"optimizer": "sgd", "lr": 0.1, "batch_size": 60, "length": "60it", "evaluate_every": "20it"}
}
AUTO_REWIND = {
    "rewind": {"to": "auto"},
    "stability": {"candidates": ["10it", "20it"], "points": 3, "tolerance": 0.99},
}


EARLY_BIRD = {
    "search": {"levels": 1, "density": 0.3, "method": "early-bird"},
    "early_bird": {"draws": 3, "window": 2},
}


class WinningEngine:
    """A real engine, but for the figures that the verdict compares: every ticket wins."""

    def __init__(self, *arguments: Any) -> None:
        self.engine = engine(*arguments)
        self.capacity = self.engine.capacity

    def train(self, *arguments: Any) -> list[Outcome]:
        figures = {"stop_iteration": 20, "test_accuracy_at_stop": 0.9}
        return [
            replace(outcome, measures=outcome.measures.model_copy(update=figures))
            for outcome in self.engine.train(*arguments)
        ]


@pytest.fixture
def _winning(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tombola._trainers", "tombola.tickets.recipe_claim"):
        monkeypatch.setattr(f"{module}.named_engine", WinningEngine)


@pytest.mark.usefixtures("_winning")
@pytest.mark.parametrize(
    ("changes", "k"),
    [
        ({}, 0),
        (AUTO_REWIND, 10),
        (EARLY_BIRD, 0),
    ],
)
def test_a_real_training_is_reproduced_bitwise(tmp_path: Path, changes: dict[str, Any], k: int) -> None:
    claim = read_claim(experiment_ticket(tmp_path, **SHORT | changes))
    assert claim.k == k
    summary = verify_ticket(claim, repeats=1, reinit=0, store=tmp_path / "verification").summary()
    assert summary["reproduced"]["exact"]
    assert summary["reproduced"]["trained"]["same"]


@pytest.mark.usefixtures("_winning")
def test_an_automatic_rewind_point_must_be_a_candidate(tmp_path: Path) -> None:
    file = experiment_ticket(tmp_path, **SHORT | AUTO_REWIND)
    for begin in (-1, 60, "10", 50):
        with pytest.raises(InputError, match=r"run\.begin"):
            read_claim(with_provenance(file, tmp_path, set_in("run", "begin", value=begin)))


@pytest.mark.usefixtures("_winning")
@pytest.mark.parametrize(("option", "value"), [("engine", "egar"), ("device", "gpu")])
def test_unknown_engines_and_devices_are_refused(plain: Path, option: str, value: str) -> None:
    with pytest.raises(InputError, match=value):
        verify_ticket(read_claim(plain), **{option: value})  # type: ignore[arg-type]


def test_a_verification_may_be_faster_on_a_gpu(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = read_claim(plain)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    demands: list[Demand] = []

    def choose(demand: Demand, *_: Any) -> tuple[str, str]:
        demands.append(demand)
        return "cuda", "cuda"

    monkeypatch.setattr("tombola.engines.device_choice.choose", choose)
    monkeypatch.setattr("tombola.engines.device_choice._why_not_usable", lambda: None)
    assert claim.choose_device("auto", "auto", None, repeats=3, reinit=2) == "cuda"
    assert claim.choose_device("cpu", "auto", None, repeats=3, reinit=2) == "cpu"
    (demand,) = demands
    assert list(demand.at_once) == [2 + 3 * (2 + 2)]
    tickets = 1 + 3 * 3
    assert demand.density == pytest.approx((14 - tickets + tickets * claim.ticket.mask.density) / 14)
