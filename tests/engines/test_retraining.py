"""What every engine has to do alike with runs that begin, end or start otherwise than at the beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import random_mask
from tests.engines.helpers import CONVOLUTIONAL, Interrupted, Interrupting, dense_run, same_bits
from tombola.engines import Engine
from tombola.engines.eager import Eager
from tombola.engines.optimizers import normalising, optimizer
from tombola.engines.sparse import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.pruning.mask import State
from tombola.runs.initial_state import initial_network
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.runs.store import Checkpoint
from tombola.runs.training import Training
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

ENGINES = [Eager, Sparse, Stacked]
NORMED = CONVOLUTIONAL | {"dropout": 0.0}
PLAIN = {"optimizer": "sgd", "lr": 0.05, "batch_size": 40, "length": "40it", "evaluate_every": "10it"}
SCHEDULED = PLAIN | {"schedule": "step", "milestones": ["15it", "30it"], "warmup": "5it"}


def outcomes(engine: Callable[[], Engine], *runs: Run) -> list[Outcome]:
    """What comes of runs one after another, of which each may start after those before."""
    known: dict[str, State] = {}
    found = []
    for run in runs:
        (outcome,) = engine().train([run], Checkpoint(Path("nowhere")), known.__getitem__)
        known[run.key] = outcome.final
        found.append(outcome)
    return found


def close(a: State, b: State, rtol: float = 2e-2, atol: float = 2e-4) -> None:
    for name in b:
        torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=atol)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_momentum_a_training_in_two_parts_is_the_same_training(engine: Callable[[], Engine]) -> None:
    dense = dense_run(training=SCHEDULED)
    trunk = dense.until(17)
    whole, first, second = outcomes(engine, dense, trunk, dense.after(trunk, begin=17))
    assert all(torch.equal(whole.final[name], second.final[name]) for name in whole.final)
    assert first.measures.iterations == 17
    assert first.curves["iteration"].tolist() == [10, 17]
    assert second.curves["iteration"].tolist() == [20, 30, 40]
    assert torch.equal(second.curves["validation_loss"], whole.curves["validation_loss"][1:])


@pytest.mark.parametrize("engine", [Sparse, Stacked])
@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "lr": 3e-3}, {"momentum": 0.9, "nesterov": True}])
def test_engines_go_on_alike_from_an_earlier_training(engine: Callable[[], Engine], options: dict[str, Any]) -> None:
    dense = dense_run(training=SCHEDULED | options)
    trunk = dense.until(17)
    ticket = dense.masked(random_mask(dense, 0.3)).after(trunk, begin=17)
    fine_tuned = dense.masked(ticket.mask).after(ticket, begin=40, end=63)
    expected, found = outcomes(Eager, trunk, ticket, fine_tuned), outcomes(engine, trunk, ticket, fine_tuned)
    for one, other in zip(found, expected, strict=True):
        close(one.final, other.final)
        np.testing.assert_allclose(one.curves["validation_loss"], other.curves["validation_loss"], rtol=1e-2)
        assert one.measures.iterations == other.measures.iterations
    assert [o.measures.iterations for o in found] == [17, 40, 63]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_of_no_iterations_is_an_evaluation(engine: Callable[[], Engine]) -> None:
    one = dense_run(training=PLAIN)
    other = one.model_copy(update={"seed": 5})
    middle = one.between(one, other, 0.5)
    ends = outcomes(engine, one, other, middle)
    network = build(one.start).eval()
    network.load_state_dict({name: (value + ends[1].final[name]) / 2 for name, value in ends[0].final.items()})
    x, y = prepare(one.data).test[torch.arange(600)]
    assert ends[2].measures.test_accuracy == pytest.approx(
        (network(x).argmax(1) == y).float().mean().item(), abs=2e-3
    )
    assert ends[2].final == {}  # it can be had again from the two others
    assert ends[2].curves["iteration"].tolist() == [40]
    assert ends[2].curves["train_loss"].item() > 0  # there was no training: it is measured
    assert ends[2].measures.stop_iteration == 40
    (again,) = outcomes(engine, one.until(0))
    assert all(torch.equal(again.final[name], value) for name, value in build(one.start).state_dict().items())


@pytest.mark.parametrize("engine", ENGINES)
def test_statistics_of_batch_norm_are_rewound_with_the_weights(engine: Callable[[], Engine]) -> None:
    dense = dense_run(model=NORMED, training=PLAIN)
    trunk = dense.until(20)
    ticket = dense.masked(random_mask(dense, 0.5)).after(trunk, begin=20)
    known: dict[str, State] = {}
    for run in (trunk, ticket):
        (outcome,) = engine().train([run], Checkpoint(Path("nowhere")), known.__getitem__)
        known[run.key] = outcome.final
    start = initial_network(ticket.start, known.__getitem__).state_dict()
    assert torch.equal(start["norm.running_mean"], known[trunk.key]["norm.running_mean"])
    assert start["norm.num_batches_tracked"] == 20
    assert known[ticket.key]["norm.num_batches_tracked"] == 40
    (eager,) = outcomes(Eager, trunk)
    close(known[trunk.key], eager.final)


def test_statistics_in_a_stack_are_each_runs_own() -> None:
    dense = dense_run(model=NORMED, training=PLAIN)
    runs = [dense.reinitialised(n) for n in range(3)]
    runs = [runs[0], *(run.masked(random_mask(run, 0.4, n)) for n, run in enumerate(runs[1:]))]
    stacked = Stacked().train(runs, Checkpoint(Path("nowhere")))
    for run, outcome in zip(runs, stacked, strict=True):
        (alone,) = outcomes(Eager, run)
        close(outcome.final, alone.final)
        assert outcome.engine.startswith("stacked")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_earlier_training_that_is_not_known_is_an_error(engine: Callable[[], Engine]) -> None:
    dense = dense_run(training=PLAIN)
    with pytest.raises(LookupError, match="is not known here"):
        engine().train([dense.after(dense, begin=20)], Checkpoint(Path("nowhere")))


def test_normalisation_may_be_spared_weight_decay() -> None:
    network = build(dense_run(model=NORMED).start)
    names = normalising(network)
    assert names == ["norm.weight", "norm.bias"]
    parameters = dict(network.named_parameters())
    for decayed in (True, False):
        training = Training(
            optimizer="sgd", lr=0.1, batch_size=4, length="4it", weight_decay=0.5, decay_normalisation=decayed
        )  # type: ignore[arg-type]
        stepped = optimizer(parameters, names, training)
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        stepped.step()
        for name, parameter in parameters.items():
            factor = 0.95 if decayed or name not in names else 1.0
            torch.testing.assert_close(parameter.detach(), factor * before[name])


@pytest.mark.parametrize("engine", [Sparse, Stacked])
def test_engines_spare_normalisation_alike(engine: Callable[[], Engine]) -> None:
    runs = [
        dense_run(model=NORMED, training=PLAIN | {"weight_decay": 0.05, "decay_normalisation": decayed})
        for decayed in (True, False)
    ]
    scales = []
    for run in runs:
        (found,), (expected,) = outcomes(engine, run), outcomes(Eager, run)
        close(found.final, expected.final)
        scales.append(found.final["norm.weight"])
    assert scales[0].norm() < scales[1].norm()


@pytest.mark.parametrize("engine", [Sparse, Stacked])
def test_engines_augment_alike(engine: Callable[[], Engine]) -> None:
    data = {"name": "digits", "validation": 200, "scale": "standard"}
    still = dense_run(model=NORMED, training=PLAIN, data=data)
    moving = dense_run(model=NORMED, training=PLAIN, data=data | {"flip": True, "crop": 1})
    (found,), (expected,), (other,) = outcomes(engine, moving), outcomes(Eager, moving), outcomes(Eager, still)
    close(found.final, expected.final)
    assert not torch.allclose(found.final["conv.weight"], other.final["conv.weight"], atol=1e-3)


def test_stacks_of_linear_layers_are_augmented_too_by_plain_torch() -> None:
    moving = dense_run(training=PLAIN, data={"name": "digits", "validation": 200, "flip": True})
    (found,), (expected,) = outcomes(Sparse, moving), outcomes(Eager, moving)
    close(found.final, expected.final)
    assert "loop" not in found.engine


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", [{"optimizer": "adam", "lr": 3e-3}, {"momentum": 0.9}])
def test_a_rewound_training_that_was_interrupted_gives_the_same_bits(
    engine: Callable[[], Engine], options: dict[str, Any], tmp_path: Path
) -> None:
    dense = dense_run(training=SCHEDULED | options, data={"name": "digits", "validation": 200, "flip": True})
    trunk = dense.until(17)
    ticket = dense.masked(random_mask(dense, 0.3)).after(trunk, begin=17)
    _, whole = outcomes(engine, trunk, ticket)
    known = {trunk.key: outcomes(engine, trunk)[0].final}
    path = tmp_path / "checkpoint"
    for _ in range(2):
        with pytest.raises(Interrupted):
            engine().train([ticket], Once(path), known.__getitem__)
    (resumed,) = engine().train([ticket], Checkpoint(path), known.__getitem__)
    assert same_bits(resumed, whole)


class Once(Interrupting):
    """Stops at the first look."""

    looks = 1
