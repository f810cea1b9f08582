"""Runs that are interrupted, begin or end at other iterations, or start from other weights, with every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.networks import BATCH_NORM, CONVOLUTIONAL, MLP_WITH_DROPOUT
from tests.support.outcomes import random_mask
from tests.support.training import (
    ENGINES,
    SGD,
    STEP_SCHEDULE,
    Interrupted,
    InterruptingCheckpoint,
    assert_close,
    dense_run,
    no_checkpoint,
    same_bits,
    same_state,
    train_alone,
    train_in_order,
    variants,
)
from tombola.engines import Engine
from tombola.engines.eager import Eager
from tombola.engines.optimizers import build_optimizer
from tombola.engines.sparse.engine import Sparse
from tombola.engines.sparse.speeds import Speeds
from tombola.engines.stacked.engine import Stacked
from tombola.pruning.mask import State
from tombola.pruning.normalisation import normalisation_parameters
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.initial_state import initial_network
from tombola.runs.run import Run, Training
from tombola.zoo.datasets import prepare
from tombola.zoo.models import build

MOMENTUM = {"training__optimizer": "sgd", "training__lr": 0.05, "training__momentum": 0.9}
with_every_engine = pytest.mark.parametrize("engine", ENGINES)


@with_every_engine
def test_without_momentum_a_training_in_two_runs_is_the_same_training(engine: Callable[[], Engine]) -> None:
    dense = dense_run(training=STEP_SCHEDULE)
    trunk = dense.until(17)
    whole, first, second = train_in_order(engine, dense, trunk, dense.after(trunk, begin=17))
    assert all(torch.equal(whole.final[name], second.final[name]) for name in whole.final)
    assert first.measures.iterations == 17
    assert first.curves["iteration"].tolist() == [10, 17]
    assert second.curves["iteration"].tolist() == [20, 30, 40]
    assert torch.equal(second.curves["validation_loss"], whole.curves["validation_loss"][1:])


@pytest.mark.parametrize("engine", [Sparse, Stacked])
@pytest.mark.parametrize("options", [{}, {"optimizer": "adam", "lr": 3e-3}, {"momentum": 0.9, "nesterov": True}])
def test_engines_agree_on_runs_that_start_from_earlier_ones(
    engine: Callable[[], Engine], options: dict[str, Any]
) -> None:
    dense = dense_run(training=STEP_SCHEDULE | options)
    trunk = dense.until(17)
    ticket = dense.masked(random_mask(dense, 0.3)).after(trunk, begin=17)
    fine_tuned = dense.masked(ticket.mask).after(ticket, begin=40, end=63)
    expected, found = (
        train_in_order(Eager, trunk, ticket, fine_tuned),
        train_in_order(engine, trunk, ticket, fine_tuned),
    )
    for one, other in zip(found, expected, strict=True):
        assert_close(one.final, other.final)
        np.testing.assert_allclose(one.curves["validation_loss"], other.curves["validation_loss"], rtol=1e-2)
        assert one.measures.iterations == other.measures.iterations
    assert [o.measures.iterations for o in found] == [17, 40, 63]


@with_every_engine
def test_a_run_of_no_iterations_is_an_evaluation(engine: Callable[[], Engine]) -> None:
    one = dense_run(training=SGD)
    other = one.model_copy(update={"seed": 5})
    middle = one.between(one, other, 0.5, one.last)
    ends = train_in_order(engine, one, other, middle)
    network = build(one.start).eval()
    network.load_state_dict({name: (value + ends[1].final[name]) / 2 for name, value in ends[0].final.items()})
    x, y = prepare(one.data).test[torch.arange(600)]
    assert ends[2].measures["test_accuracy"] == pytest.approx(
        (network(x).argmax(1) == y).float().mean().item(), abs=5e-3
    )
    assert ends[2].final == {}  # it can be computed again from the two others
    assert ends[2].curves["iteration"].tolist() == [40]
    assert ends[2].curves["train_loss"].item() > 0  # evaluated, as there was no training
    assert ends[2].measures.stop_iteration == 40
    (again,) = train_in_order(engine, one.until(0))
    assert all(torch.equal(again.final[name], value) for name, value in build(one.start).state_dict().items())


@with_every_engine
def test_an_average_of_runs_is_evaluated_and_kept(engine: Callable[[], Engine]) -> None:
    dense = dense_run(training=SGD)
    runs = [dense.model_copy(update={"seed": seed}) for seed in (1, 2, 3)]
    average = dense.masked(random_mask(dense, 0.5)).averaging(runs, dense.last)
    *ends, found = train_in_order(engine, *runs, average)
    for name, value in found.final.items():
        mean = sum(end.final[name].double() for end in ends) / 3
        assert torch.allclose(value.double(), mean * average.mask.get(name, 1), atol=1e-6)
    assert found.measures.iterations == 40
    assert average.key == dense.masked(average.mask).averaging([runs[0], runs[2], runs[1]], dense.last).key


@with_every_engine
def test_statistics_of_batch_norm_are_rewound_with_the_weights(engine: Callable[[], Engine]) -> None:
    dense = dense_run(model=BATCH_NORM, training=SGD)
    trunk = dense.until(20)
    ticket = dense.masked(random_mask(dense, 0.5)).after(trunk, begin=20)
    first, second = (outcome.final for outcome in train_in_order(engine, trunk, ticket))
    start = initial_network(ticket.start, {trunk.key: first}.__getitem__).state_dict()
    assert torch.equal(start["norm.running_mean"], first["norm.running_mean"])
    assert (start["norm.num_batches_tracked"], second["norm.num_batches_tracked"]) == (20, 40)
    assert_close(first, train_alone(trunk).final)


@with_every_engine
def test_an_unknown_parent_run_is_an_error(engine: Callable[[], Engine]) -> None:
    dense = dense_run(training=SGD)
    with pytest.raises(LookupError, match=dense.key):
        engine().train([dense.after(dense, begin=20)], no_checkpoint())


def test_weight_decay_may_leave_out_normalisation_layers() -> None:
    network = build(dense_run(model=BATCH_NORM).start)
    names = normalisation_parameters(network)
    assert names == ["norm.weight", "norm.bias"]
    parameters = dict(network.named_parameters())
    for decayed in (True, False):
        training = Training(
            optimizer="sgd", lr=0.1, batch_size=4, length="4it", weight_decay=0.5, decay_normalisation=decayed
        )  # type: ignore[arg-type]
        stepped = build_optimizer(parameters, names, training)
        before = {name: p.detach().clone() for name, p in parameters.items()}
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        stepped.step()
        for name, parameter in parameters.items():
            factor = 0.95 if decayed or name not in names else 1.0
            torch.testing.assert_close(parameter.detach(), factor * before[name])


@pytest.mark.parametrize("engine", [Sparse, Stacked])
def test_engines_agree_on_weight_decay_without_normalisation_layers(engine: Callable[[], Engine]) -> None:
    runs = [
        dense_run(model=BATCH_NORM, training=SGD | {"weight_decay": 0.05, "decay_normalisation": decayed})
        for decayed in (True, False)
    ]
    scales = []
    for run in runs:
        (found,), (expected,) = train_in_order(engine, run), train_in_order(Eager, run)
        assert_close(found.final, expected.final)
        scales.append(found.final["norm.weight"])
    assert scales[0].norm() < scales[1].norm()


@pytest.mark.parametrize("engine", [Sparse, Stacked])
def test_engines_agree_on_augmentation(engine: Callable[[], Engine]) -> None:
    data = {"name": "digits", "validation": 200, "scale": "standard"}
    still = dense_run(model=BATCH_NORM, training=SGD, data=data)
    moving = dense_run(model=BATCH_NORM, training=SGD, data=data | {"flip": True, "crop": 1})
    (found,), (expected,), (other,) = (
        train_in_order(engine, moving),
        train_in_order(Eager, moving),
        train_in_order(Eager, still),
    )
    assert_close(found.final, expected.final)
    assert not torch.allclose(found.final["conv.weight"], other.final["conv.weight"], atol=1e-3)


def test_augmented_images_are_trained_in_compiled_loops() -> None:
    moving = dense_run(training=SGD, data={"name": "digits", "validation": 200, "flip": True})
    (found,), (expected,) = train_in_order(Sparse, moving), train_in_order(Eager, moving)
    assert_close(found.final, expected.final)
    assert "loop" in found.engine


@pytest.fixture
def _always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speeds, "sparse_is_faster", lambda *_: True)


def pruned_runs(engine: Callable[[], Engine[Run]], **changes: Any) -> list[Run]:
    """As many as the engine trains at once."""
    return variants(dense_run(**changes), 4)[1 : 4 if engine is Stacked else 2]


@with_every_engine
@pytest.mark.usefixtures("_always_sparse")
@pytest.mark.parametrize("model", [MLP_WITH_DROPOUT, CONVOLUTIONAL])
def test_the_same_runs_give_the_same_bits_whatever_the_global_state(
    model: dict[str, Any], engine: Callable[[], Engine[Run]]
) -> None:
    runs = pruned_runs(engine, model=model)
    first = engine().train(runs, no_checkpoint())
    torch.manual_seed(1234)
    np.random.seed(1234)  # noqa: NPY002 - the global state
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    assert all(map(same_bits, first, engine().train(runs, no_checkpoint())))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 2
    others = [run.model_copy(update={"seed": 77}) for run in runs]
    assert not any(map(same_bits, first, engine().train(others, no_checkpoint())))


@with_every_engine
@pytest.mark.usefixtures("_always_sparse")
@pytest.mark.parametrize(
    ("changes", "max_steps"),
    [
        ({"model": MLP_WITH_DROPOUT}, 1000),
        ({"model": CONVOLUTIONAL} | MOMENTUM, 1000),
        ({"training__length": "57it", "training__test_curve": True}, 1000),
        ({"training__evaluate_every": "1000it"} | MOMENTUM, 7),  # the only evaluation is the last
        ({"training__evaluate_every": "25it"}, 10),
    ],
)
def test_an_interrupted_training_gives_the_same_bits(
    changes: dict[str, Any],
    max_steps: int,
    engine: Callable[[], Engine[Run]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs, path = pruned_runs(engine, **changes), tmp_path / "checkpoint.safetensors"
    whole = engine().train(runs, no_checkpoint())
    monkeypatch.setattr("tombola.engines.training_loop.MAX_STEPS", max_steps)
    with pytest.raises(Interrupted):
        engine().train(runs, InterruptingCheckpoint(path))
    assert all(map(same_bits, whole, engine().train(runs, Checkpoint(path))))


class KeepingCheckpoint(Checkpoint):
    """Keeps what is saved at every opportunity, and copies of it."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.saved: list[State] = []
        self.copies: list[State] = []

    def due(self) -> bool:
        return True

    def save(self, tensors: Any, about: Any, engine: str) -> None:  # noqa: ARG002
        self.saved.append(tensors)
        self.copies.append({name: tensor.clone() for name, tensor in tensors.items()})


@with_every_engine
@pytest.mark.usefixtures("_always_sparse")
@pytest.mark.parametrize("changes", [{"model": BATCH_NORM}, {"model": BATCH_NORM} | MOMENTUM, {}, MOMENTUM])
def test_a_saved_state_does_not_change_when_the_training_goes_on(
    changes: dict[str, Any], engine: Callable[[], Engine[Run]]
) -> None:
    checkpoint = KeepingCheckpoint()
    engine().train(pruned_runs(engine, **changes), checkpoint)
    assert len(checkpoint.saved) > 2
    assert all(map(same_state, checkpoint.saved, checkpoint.copies))
    changed = {
        name for name, tensor in checkpoint.saved[0].items() if not torch.equal(tensor, checkpoint.saved[1][name])
    }
    assert {"learner", "history"} <= {name.partition("/")[0] for name in changed}


@with_every_engine
@pytest.mark.usefixtures("_always_sparse")
def test_training_ends_where_all_runs_have_diverged(engine: Callable[[], Engine[Run]], tmp_path: Path) -> None:
    runs = pruned_runs(engine, training__optimizer="sgd", training__lr=1e30)
    path = tmp_path / "checkpoint.safetensors"
    for checkpoint in (InterruptingCheckpoint(path, saves=10**9), Checkpoint(path)):
        for outcome in engine().train(runs, checkpoint):
            assert outcome.measures.diverged
            assert outcome.measures.iterations == 10
            assert outcome.measures["test_accuracy"] is None
