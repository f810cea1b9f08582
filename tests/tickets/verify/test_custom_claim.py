"""Tickets of own functions that can be imported, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.support.custom_search import Small, X, Y
from tests.support.errors import raises_input_error
from tests.support.in_loop_training import Training
from tombola import mark
from tombola._find_ticket import find_ticket
from tombola.report.verification_report import reproduction, verification_conclusion
from tombola.tickets.custom_claim import CustomClaim
from tombola.tickets.provenance import read_claim
from tombola.tickets.ticket import Ticket
from tombola.tickets.verify import verify_ticket

STEPS = 12


def train(network: nn.Module, begin: int = 0) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for step in range(begin, STEPS):
        if step == 4:
            mark()
        batch = torch.randint(100, (20,))
        optimizer.zero_grad()
        functional.cross_entropy(network(X[batch]), Y[batch]).backward()
        optimizer.step()


def evaluate(network: nn.Module) -> dict[str, float]:
    return {"loss": float(functional.cross_entropy(network(X[:100]), Y[:100]))}


def hits(network: nn.Module) -> dict[str, float]:
    return {"hits": float((network(X[100:]).argmax(1) == Y[100:]).sum())}


def accuracy_at_end(network: nn.Module) -> float:
    train(network)
    return float((network(X[100:]).argmax(1) == Y[100:]).float().mean())


def always_alike() -> Small:
    torch.manual_seed(0)
    return Small()


OPTIONS: dict[str, Any] = {"levels": 2, "margin": 100.0, "rate": 0.4, "replicates": 3, "progress": False}


def found(tmp_path: Path, train: Any = train, model: Any = Small, **options: Any) -> Path:
    """The file of the sparsest ticket."""
    options = OPTIONS | {"store": tmp_path / "runs"} | options
    ticket, _ = find_ticket(model, train, **options)
    path = tmp_path / "own.safetensors"
    ticket.save(path)
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    ticket = Ticket.load(path)
    provenance = json.loads(json.dumps(ticket.provenance))
    change(provenance)
    Ticket(ticket.mask, ticket.start, provenance, ticket.trained).save(path.with_name("changed.safetensors"))
    return path.with_name("changed.safetensors")


@pytest.mark.parametrize(
    ("options", "k"),
    [
        ({"evaluate": evaluate, "test": hits, "every": 4}, 0),
        ({"evaluate": evaluate, "rewind": 3}, 3),
        ({"evaluate": evaluate, "rewind": "mark"}, 4),
        ({"evaluate": evaluate, "rewind": "auto", "stability": {"candidates": [2], "points": 3}}, 2),
        ({"train": accuracy_at_end}, 0),
        ({"evaluate": evaluate, "settings": {"data": 2}}, 0),
        ({"evaluate": evaluate, "rate": None, "density": {"output": 0.5, "fc1": 0.2}, "include": ["norm.weight"]}, 0),
    ],
)
def test_the_recorded_training_is_reproduced_exactly(tmp_path: Path, options: dict[str, Any], k: int) -> None:
    path = found(tmp_path, **options)
    claim = read_claim(path, trust=True, settings=options.get("settings"))
    assert isinstance(claim, CustomClaim)
    assert claim.k == k
    summary = verify_ticket(claim, repeats=5, store=tmp_path / "check").build_summary()
    assert summary.reproduction.exact
    assert summary.reproduction.reproduced
    assert summary.failing in (None, "verdict")
    assert (summary.rewound_to, summary.iterations) == (k, STEPS)
    assert summary.timed == ("every" in options)
    assert "reproduced exactly" in reproduction(summary)
    assert summary.metric.name in verification_conclusion(summary) or summary.metric.name == "figure"


def test_code_is_imported_only_with_trust_and_must_be_that_of_the_search(tmp_path: Path) -> None:
    path = found(tmp_path, evaluate=evaluate)
    with raises_input_error("--trust", "custom_search:Small"):
        read_claim(path)
    with raises_input_error("functions", "changed", "settings"):
        read_claim(path, trust=True, settings=1)
    for name, facts in (("nowhere:train", ["nowhere"]), ("train", ["cannot be imported", "script"])):
        other = changed(path, lambda given: given["recipe"]["functions"].update(train=name))  # noqa: B023
        with raises_input_error(*facts):
            read_claim(other, trust=True)


@pytest.mark.parametrize("model", [Small(), partial(Small)])
def test_what_is_no_function_of_a_module_cannot_be_imported(tmp_path: Path, model: Any) -> None:
    with raises_input_error("model", "cannot be imported"):
        read_claim(found(tmp_path, model=model, evaluate=evaluate), trust=True)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda given: given.update(level=1), ["level 1", "weights"]),
        (lambda given: given.update(level=3), ["level is 3"]),
        (lambda given: given.update(replicate=(given["replicate"] + 1) % 3), ["run."]),
        (lambda given: given["recipe"].update(seed=1), ["run."]),
        (lambda given: given["run"].update(seed=1), ["run.seed"]),
        (lambda given: given.update(key="0" * 32), ["key"]),
        (lambda given: given["measures"].pop("validation_loss_at_stop"), ["at_stop is missing"]),
        (lambda given: given["recipe"]["rewind"].update(to="3it"), ["run.begin"]),
    ],
)
def test_an_inconsistent_provenance_is_refused(tmp_path: Path, change: Any, facts: list[str]) -> None:
    path = found(tmp_path, evaluate=evaluate)
    assert Ticket.load(path).provenance["level"] == 2
    with raises_input_error(*facts):
        read_claim(changed(path, change), trust=True)


def test_a_false_figure_is_found(tmp_path: Path) -> None:
    path = found(tmp_path, evaluate=evaluate)
    better = changed(path, lambda given: given["measures"].update(validation_loss_at_stop=0.001))
    summary = verify_ticket(read_claim(better, trust=True), repeats=3, store=tmp_path / "check").build_summary()
    assert (summary.state, summary.failing) == ("does not hold", "ticket")
    assert "0.001" in verification_conclusion(summary)


def test_without_other_initial_weights_there_is_no_control(tmp_path: Path) -> None:
    claim = read_claim(found(tmp_path, model=always_alike, evaluate=evaluate), trust=True)
    with raises_input_error("reinit", "0"):
        verify_ticket(claim, repeats=3, store=tmp_path / "check")
    assert verify_ticket(claim, repeats=3, reinit=0, store=tmp_path / "check").build_summary().reproduction.exact


def test_the_training_of_a_callback_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "callback.safetensors"
    Training().run().search.ticket.save(path)
    with raises_input_error("own loop", "callback", "again"):
        read_claim(path, trust=True)
