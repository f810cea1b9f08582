"""Optimizers, smoothed labels, mixup, averages of weights and clipping: in every engine, with pruned weights zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.support.networks import BATCH_NORM
from tests.support.outcomes import random_mask
from tests.support.training import (
    ENGINES,
    SGD,
    Interrupted,
    InterruptingCheckpoint,
    assert_close,
    module_learner,
    no_checkpoint,
    pruned_run,
    same_bits,
    same_state,
    train_alone,
    train_in_order,
    train_stacked,
    variants,
)
from tombola.engines import Engine
from tombola.engines.eager import Eager
from tombola.engines.mixup import Mixup
from tombola.engines.sparse.engine import Sparse
from tombola.engines.stacked.engine import Stacked
from tombola.engines.weight_average import WeightAverage
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.local_training import train_missing
from tombola.utils.errors import InputError

CPU = torch.device("cpu")
LION = {"optimizer": "tests.support.lion:Lion", "lr": 1e-3, "weight_decay": 0.1}
MUON = {
    "optimizer": "torch.optim:Muon",
    "optimizer_options": {"adjust_lr_fn": "match_rms_adamw"},
    "other_optimizer": "adamw",
    "lr": 3e-3,
    "weight_decay": 0.1,
}
EMA = {"momentum": 0.9, "ema": 0.8}
OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.1},
    "undecayed": {"optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.5, "decay_normalisation": False},
    "lion": LION,
    "muon": MUON,
    "smoothing": {"momentum": 0.9, "label_smoothing": 0.1},
    "mixup": {"momentum": 0.9, "mixup": 0.4},
    "ema": EMA,
    "clipped": {"momentum": 0.9, "clip_norm": 0.05},
    "all": MUON | {"label_smoothing": 0.1, "mixup": 0.4, "ema": 0.8, "clip_norm": 0.1},
}


def a_run(density: float = 0.3, **training: Any) -> Run:
    return pruned_run(
        density, model=BATCH_NORM, training=SGD | {"length": "20it", "evaluate_every": "5it"} | training
    )


@pytest.mark.parametrize("options", OPTIONS)
def test_every_engine_trains_as_eager_does(options: str) -> None:
    run = a_run(**OPTIONS[options])
    expected = train_alone(run)
    for engine in (Sparse, Stacked):
        found = train_alone(run, engine=engine)
        assert_close(found.final, expected.final)
        torch.testing.assert_close(
            found.curves["validation_loss"], expected.curves["validation_loss"], rtol=1e-2, atol=1e-4
        )


@pytest.mark.parametrize("options", ["adamw", "undecayed", "smoothing"])
def test_stacks_train_as_eager_does(options: str) -> None:
    runs = variants(a_run(**OPTIONS[options]), 3)
    assert Stacked().capacity(runs[0]).max_runs > 1
    for found, run in zip(train_stacked(runs), runs, strict=True):
        assert found.engine.startswith("stacked")
        assert_close(found.final, train_alone(run).final)


@pytest.mark.parametrize("options", ["mixup", "ema", "clipped", "lion"])
def test_stacks_leave_other_options_to_eager(options: str) -> None:
    run = a_run(**OPTIONS[options])
    assert Stacked().capacity(run).max_runs == 1
    assert train_alone(run, engine=Stacked).engine.startswith("eager")


def test_compiled_loops_take_adamw_and_leave_other_options_to_layers() -> None:
    engines = {options: train_alone(a_run(**OPTIONS[options]), engine=Sparse).engine for options in OPTIONS}
    assert {options for options, engine in engines.items() if "loop" in engine} == {"adamw", "undecayed"}
    assert {options for options, engine in engines.items() if engine.startswith("eager")} == {"lion", "muon", "all"}


@pytest.mark.parametrize("options", OPTIONS)
def test_pruned_weights_are_zero_after_every_step_and_in_averages(options: str) -> None:
    run = a_run(**OPTIONS[options])
    learner = module_learner(run)
    order = torch.arange(40).expand(1, 1, -1)
    for step in range(8):
        learner.train(order, step)
        averages = learner.average.state() if learner.average else {}
        for name, kept in run.mask.items():
            assert not learner.parameters[name][~kept].any()
            assert name not in averages or not averages[name][~kept].any()
            assert learner.parameters[name][kept].all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_pause_does_not_change_a_bit(engine: Callable[[], Engine[Run]], options: str, tmp_path: Path) -> None:
    whole = a_run(**OPTIONS[options])
    first = whole.paused(7)
    store = Store(tmp_path)
    runs = first, whole.resuming(first), whole
    for run in runs:
        train_missing([run], store, engine())
    _, resumed, expected = (store.get(run) for run in runs)
    assert resumed is not None
    assert expected is not None
    assert same_state(resumed.final, expected.final)
    assert resumed.curves["validation_loss"][-1] == expected.curves["validation_loss"][-1]


@pytest.mark.parametrize("options", ["all", "lion"])
def test_an_interrupted_training_resumes_with_the_same_bits(options: str, tmp_path: Path) -> None:
    run = a_run(**OPTIONS[options])
    with pytest.raises(Interrupted):
        Eager().train([run], InterruptingCheckpoint(tmp_path / "checkpoint"))
    assert same_bits(train_alone(run, tmp_path / "checkpoint"), train_alone(run))


@pytest.mark.parametrize("options", ["ema", "muon", "lion", "all"])
def test_a_mask_that_changes_in_a_pause_keeps_what_it_prunes_zero(options: str, tmp_path: Path) -> None:
    run = a_run(**OPTIONS[options])
    moved = run.masked(random_mask(run, 0.3, seed=9))
    first = run.paused(7)
    store = Store(tmp_path)
    last = moved.resuming(first)
    for each in (first, last):
        train_missing([each], store, Eager())
    outcome = store.get(last)
    assert outcome is not None
    for name, kept in moved.mask.items():
        assert not outcome.final[name][~kept].any()
        assert outcome.final[name][kept].any()


def test_mixup_and_clipping_are_what_the_papers_say() -> None:
    run = a_run(mixup=0.4, label_smoothing=0.1, clip_norm=0.01)
    learner = module_learner(run)
    before = {name: value.detach().clone() for name, value in learner.parameters.items()}
    network = copy.deepcopy(learner.network)
    (mixed,) = Mixup(run, CPU).draws(0, 1)
    assert sorted(mixed.others.tolist()) == list(range(40))
    assert 0 <= mixed.share <= 1
    order = torch.arange(40)
    learner.train(order.expand(1, 1, -1), 0)
    x, y = learner.split.train[order]
    labels = functional.one_hot(y, 10).float() * 0.9 + 0.1 / 10
    share = mixed.share
    logits = network(share * x + (1 - share) * x[mixed.others])
    loss = functional.cross_entropy(logits, share * labels + (1 - share) * labels[mixed.others])
    assert learner.take_losses()[0] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    gradients = {
        name: value.grad * run.mask[name] if name in run.mask else value.grad
        for name, value in network.named_parameters()
        if value.grad is not None
    }
    norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
    assert norm > 0.01
    for name, gradient in gradients.items():
        expected = before[name] - 0.05 * 0.01 / norm * gradient
        torch.testing.assert_close(learner.parameters[name].detach(), expected, rtol=1e-4, atol=1e-7)


def test_draws_of_mixup_do_not_depend_on_where_they_begin() -> None:
    run = a_run(mixup=0.4)
    whole = Mixup(run, CPU).draws(0, 210)
    for found, expected in zip(Mixup(run, CPU).draws(90, 120), whole[90:], strict=True):
        assert found.share == expected.share
        assert torch.equal(found.others, expected.others)
    assert len({each.share for each in whole}) == 210


def test_the_average_is_evaluated_and_is_the_result_unless_the_run_is_continued() -> None:
    run = a_run(**EMA)
    (averaged,) = train_in_order(Eager, run)
    (raw,) = Eager().train([run.paused(20)], no_checkpoint())
    plain = train_alone(a_run(momentum=0.9))
    assert same_state(raw.final, plain.final)
    assert not same_state(averaged.final, plain.final)
    assert torch.equal(averaged.curves["validation_loss"], raw.curves["validation_loss"])
    assert not torch.equal(averaged.curves["validation_loss"], plain.curves["validation_loss"])
    averages = {
        entry.removeprefix("ema:/"): value for entry, value in raw.optimizer.items() if entry.startswith("ema:/")
    }
    assert all(torch.equal(averaged.final[name], value) for name, value in averages.items())
    trunk = train_alone(run.until(10))
    assert same_state(trunk.final, train_alone(a_run(momentum=0.9).until(10)).final)


def test_the_average_is_that_of_all_steps() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = WeightAverage(network, 0.75)
    expected = 1.0
    for value in (3.0, -2.0, 5.0):
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(value)
        average.update()
        expected = 0.75 * expected + 0.25 * value
    assert average.state()["weight"].item() == pytest.approx(expected)
    assert average.state()["running_mean"].item() == pytest.approx(expected - 0.75**3)


def test_muon_trains_matrices_and_the_other_optimizer_the_rest() -> None:
    (outcome,) = Eager().train([a_run(**MUON).paused(5)], no_checkpoint())
    kinds = {
        kind: {entry.partition("/")[2] for entry in outcome.optimizer if entry.startswith(f"{kind}/")}
        for kind in ("momentum_buffer", "exp_avg")
    }
    shapes = {name: outcome.final[name].ndim for names in kinds.values() for name in names}
    assert {shapes[name] for name in kinds["momentum_buffer"]} == {2}
    assert 2 not in {shapes[name] for name in kinds["exp_avg"]}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "nowhere:Class"}, "cannot import"),
        ({"optimizer": "torch.optim:Adamm"}, "cannot import"),
        ({"optimizer": "torch.nn:Linear"}, "torch.optim.Optimizer"),
        (LION | {"optimizer_options": {"beta": 0.9}}, "beta"),
        (MUON | {"other_optimizer": None}, "other_optimizer"),
        ({"optimizer": "torch.optim:LBFGS"}, "LBFGS"),
        ({"optimizer": "tests.support.lion:Forgetful"}, "resumed"),
        ({"optimizer": "tests.support.lion:Undecayed", "weight_decay": 0.1}, "weight_decay"),
        (LION | {"optimizer_source": "0"}, "optimizer_source"),
    ],
)
def test_unsuitable_optimizers_are_refused_before_training(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        a_run(**options)
    assert "\n" not in str(error.value)


def test_the_source_of_an_optimizer_is_part_of_the_key() -> None:
    run = a_run(**LION)
    assert run.training.optimizer_source
    edited = run.training.model_copy(update={"optimizer_source": "0"})
    other = run.model_copy(update={"training": edited})
    assert other.key != run.key
    with pytest.raises(InputError, match="changed"):
        train_alone(other)
