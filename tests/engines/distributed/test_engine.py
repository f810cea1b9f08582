"""Trainings by two processes equal those by one up to rounding, and are resumed to the bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.support.distributed import in_two_processes, needs_gloo
from tests.support.distributed_trainings import (
    REFUSED,
    RESUMED,
    TRAININGS,
    a_run,
    streamed,
    train_in_order,
    work,
)
from tests.support.image_folders import write_shards
from tests.support.networks import BATCH_NORM
from tests.support.training import assert_close, same_bits, train_alone
from tombola.engines.eager import Eager
from tombola.utils.errors import InputError

pytestmark = needs_gloo

Found = Callable[..., Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each process returned or raised, by name and rank."""
    folder = tmp_path_factory.mktemp("job")
    (write_shards(folder) / "data" / "test-00000-of-00001.parquet").unlink()  # its labels are hidden
    in_two_processes(work, folder)
    return lambda name, rank=0: pickle.loads((folder / f"{name}-{rank}.pickle").read_bytes())


def test_streamed_images_are_those_of_one_process(found: Found) -> None:
    outcome = found("streamed")
    expected = train_alone(streamed(found("folder") / "data"))
    assert_close(outcome.final, expected.final)
    torch.testing.assert_close(outcome.curves["train_loss"], expected.curves["train_loss"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_train_as_one_does(found: Found, name: str) -> None:
    runs, outcomes = TRAININGS[name], found(name)
    for run, outcome, expected in zip(runs, outcomes, train_in_order(Eager(), runs), strict=True):
        assert outcome.engine == expected.engine.replace("eager on", "distributed on 2 x")
        assert_close(outcome.final, expected.final)
        assert outcome.curves.keys() == expected.curves.keys()
        for curve, values in expected.curves.items():
            torch.testing.assert_close(outcome.curves[curve], values, rtol=1e-3, atol=3e-3)
        for parameter, kept in run.mask.items():
            assert not outcome.final[parameter][~kept].any()


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_training_gives_the_same_bits(found: Found, name: str) -> None:
    whole, resumed = found(f"resumed {name}")
    assert same_bits(whole, resumed)
    assert not same_bits(whole, train_alone(RESUMED[name]))


def test_all_processes_return_the_same(found: Found) -> None:
    (first,), (second,) = (found("adam", rank) for rank in (0, 1))
    assert same_bits(first, second)


def test_batch_norm_has_the_statistics_of_the_first_process(found: Found) -> None:
    outcome, alone = found("norm"), train_alone(a_run(model=BATCH_NORM))
    assert outcome.final["norm.num_batches_tracked"] == 20
    assert not torch.equal(outcome.final["norm.running_mean"], alone.final["norm.running_mean"])
    assert outcome.measures["test_accuracy"] == pytest.approx(alone.measures["test_accuracy"], abs=0.3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("batch", "training.batch_size: should be a multiple of 2, the number of processes, such as 40 or 42"),
        ("noisy", "the optimizer draws random numbers"),
        ("elsewhere", "process 1 of 2: model.name: cannot call"),
    ],
)
def test_what_cannot_be_trained_is_an_error_in_all_processes(found: Found, name: str, said: str) -> None:
    assert name in REFUSED
    for rank in (0, 1):
        error = found(f"refused {name}", rank)
        assert isinstance(error, InputError)
        assert said in str(error)


def test_processes_that_make_different_calls_are_refused(found: Found) -> None:
    for rank in (0, 1):
        assert isinstance(found("different", rank), InputError)
        assert "arguments differ" in str(found("different", rank))


def test_experiments_return_their_results_in_all_processes(found: Found) -> None:
    first, second = (found("experiment", rank) for rank in (0, 1))
    assert first.rows == second.rows
    assert first.tally.trained == 2


@pytest.mark.parametrize("name", ["workers", "engine"])
def test_arguments_that_contradict_a_job_are_refused(found: Found, name: str) -> None:
    for rank in (0, 1):
        assert f"{name}: " in str(found(name, rank))
        assert "torchrun" in str(found(name, rank))
