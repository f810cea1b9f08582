"""Trainings see the network as it was given and leave no traces; what the store answers, and what is trained anew."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.custom_search import Recorder, Small, X, Y, draw, evaluate, small, train
from tombola._find_ticket import SearchResult, find_ticket
from tombola.pruning.hold import held, hold
from tombola.pruning.mask import Mask
from tombola.utils.errors import InputError


def seed_global_random_states() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def parameters_and_buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def attributes(model: nn.Module) -> list[list[str]]:
    return [
        [f"{key} {len(v) if hasattr(v, '__len__') else ''}" for key, v in m.__dict__.items()] for m in model.modules()
    ]


def careless(network: nn.Module) -> None:
    """Changes everything about the network."""
    train(network)
    functional.cross_entropy(network(X), Y).backward()  # gradients that the next training would see
    network.register_forward_hook(lambda *_: None)
    network.extra = 1  # type: ignore[assignment]
    network.eval().bfloat16().requires_grad_(False)


def test_trainings_change_neither_the_model_nor_each_other() -> None:
    model = small()
    model.norm.eval()
    initial, before = parameters_and_buffers(model), attributes(model)
    starts = []

    def train_and_record(network: nn.Module) -> None:
        modes = [module.training for module in network.modules()]
        parameters = {(p.dtype, p.requires_grad, p.grad) for p in network.parameters()}
        starts.append((modes, parameters, len(network._forward_hooks), hasattr(network, "extra")))
        careless(network)

    with hold(model, Mask.full(model)) as own:
        find_ticket(model, train_and_record, levels=2)
        assert held(model) == own.mask
    assert starts[0] == starts[1] == starts[2]
    assert starts[0][1:] == ({(torch.float32, True, None)}, 0, False)
    assert starts[0][0] == [module.training for module in model.modules()]
    for name, tensor in parameters_and_buffers(model).items():
        assert torch.equal(tensor, initial[name]), name
    assert attributes(model) == before


def test_exceptions_of_train_pass_through() -> None:
    def failing(network: nn.Module) -> None:
        train(network)
        raise RuntimeError("out of patience")

    model = small()
    with pytest.raises(RuntimeError, match="out of patience"):
        find_ticket(model, failing, levels=2)
    assert held(model) is None


def test_a_function_that_returns_a_trained_network_again_is_refused() -> None:
    """Otherwise rewinding would not rewind."""
    model = small()
    with pytest.raises(InputError, match="model: made other initial weights"):
        find_ticket(lambda: model, train, levels=2)


def test_training_another_model_is_refused() -> None:
    other = small()
    with pytest.raises(InputError, match="train: did not change the network"):
        find_ticket(small(), lambda _: train(other), levels=1)


def test_networks_that_change_their_layers_are_refused() -> None:
    def another_head(network: Any) -> None:
        network.output = nn.Linear(20, 3)
        network(X).sum().backward()
        torch.optim.SGD(network.parameters(), 0.1).step()

    def renaming(network: Any) -> None:
        network.wrapped = network.fc1
        del network.fc1

    with pytest.raises(InputError, match=r"train: removed fc1\.weight"):
        find_ticket(small(), renaming, levels=1)
    with pytest.raises(InputError, match=r"model: .*torch\.compile"):
        find_ticket(torch.compile(small(), backend="eager"), train)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"output\.weight"):
        find_ticket(small(), another_head, levels=1)


def test_evaluate_does_not_affect_masks() -> None:
    def breaking(network: nn.Module) -> float:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        return 1.0

    ours = find_ticket(small(), train, evaluate=breaking, levels=2).ticket
    assert ours.mask == find_ticket(small(), train, evaluate=lambda _: 1.0, levels=2).ticket.mask


def test_pruned_weights_are_zero_at_every_step_and_in_evaluate() -> None:
    checks = []

    def look(model: nn.Module) -> None:
        mask = held(model)
        if mask is not None:
            checks.append(all(p[~mask[n]].count_nonzero() == 0 for n, p in model.named_parameters() if n in mask))

    def watched(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(10):
            optimizer.zero_grad()
            functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
            look(model)

    def judged(model: nn.Module) -> float:
        look(model)
        return evaluate(model)

    find_ticket(small(), watched, evaluate=judged, levels=2, rate=0.6)
    assert checks == [True] * 33  # the dense network included


def test_global_random_states_are_set_for_each_replicate_and_restored() -> None:
    recorder = Recorder()
    model = small()
    seed_global_random_states()
    expected = draw()
    seed_global_random_states()
    find_ticket(model, recorder, levels=2, replicates=2)
    assert draw() == expected
    assert len(recorder.draws) == 6
    assert len(set(recorder.draws)) == 2


class Tally:
    """Counts trainings. Its content is not part of the key of a run."""

    def __init__(self) -> None:
        self.n = self.stop_at = 0

    def __getstate__(self) -> None:
        return None

    def train(self, model: nn.Module, steps: int = 30) -> None:
        self.n += 1
        if self.n == self.stop_at:
            raise KeyboardInterrupt
        train(model, steps)


def test_the_same_call_gives_the_same_table() -> None:
    first, second = (find_ticket(Small, train, evaluate=evaluate, levels=2, replicates=2) for _ in range(2))
    assert first.levels.rows == second.levels.rows
    assert first.ticket.mask == second.ticket.mask
    other = find_ticket(Small, train, evaluate=evaluate, levels=2, replicates=2, seed=1)
    assert other.ticket.mask != first.ticket.mask


def test_an_interrupted_search_resumes_from_the_store(tmp_path: Path) -> None:
    tally = Tally()

    def search(store: Path) -> SearchResult:
        tally.n = 0
        return find_ticket(small(), lambda m: tally.train(m), evaluate=evaluate, levels=4, rate=0.4, store=store)

    whole = search(tmp_path / "whole")
    assert tally.n == 5
    tally.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "parts")
    tally.stop_at = 0
    resumed = search(tmp_path / "parts")
    assert tally.n == 2
    assert resumed.levels.rows == whole.levels.rows
    assert resumed.ticket.mask == whole.ticket.mask
    search(tmp_path / "parts")
    assert tally.n == 0


def test_other_functions_settings_and_weights_are_trained_anew(tmp_path: Path) -> None:
    tally = Tally()

    def search(steps: int = 5, settings: object = None, weights: int = 0, judge: Any = evaluate) -> int:
        tally.n, model = 0, small(weights)
        options: dict[str, Any] = {"levels": 1, "store": tmp_path, "settings": settings}
        find_ticket(model, lambda network: tally.train(network, steps), evaluate=judge, **options)
        return tally.n

    assert search() == 2
    assert search() == 0
    assert search(steps=6) == 2
    assert search(settings={"data": "version 2"}) == 2
    assert search(weights=1) == 2
    assert search(judge=lambda network: -evaluate(network)) == 2
    assert search() == 0
