from __future__ import annotations

import copy
import pickle

import pytest
import torch
from pydantic import ValidationError

from tests.support.training import same_state
from tombola.pruning.mask import Mask, State
from tombola.runs.initial_state import initial_network, interpolate, masked_network
from tombola.runs.run import Run, Training, key_of
from tombola.utils.duration import Duration
from tombola.zoo.datasets.description import Data
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start


def described(**training: object) -> Run:
    """A run described by hand, so that its key depends on nothing else."""
    options = {"optimizer": "adam", "lr": 1.2e-3, "batch_size": 60, "length": "50000it", **training}
    return Run(
        start=Start(network=Network(name="lenet-300-100", inputs=(28, 28), classes=10), seed=1),
        mask=Mask({"fc1.weight": torch.ones(300, 784, dtype=torch.bool)}),
        data=Data(name="mnist", digest="d" * 32, seed=2, validation=5000),
        training=Training(**options),  # type: ignore[arg-type]
        seed=3,
    )


def test_keys_never_change() -> None:
    """If one of these changed, existing stores would be useless."""
    run = described()
    assert run.key == "6d09e9c8cba258e8d17088124d732fc2"
    assert run.masked(Mask({"fc1.weight": torch.eye(300, 784).bool()})).key == "ce465fc6d78dedc8c112396f47ed5edf"
    assert run.reinitialised(7).key == "e18cde15f50ec265ca8349ab3290a282"
    assert (
        described(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4, test_curve=True).key
        == "b14e1404623cd6e9c5e2bd7477447f4f"
    )


GOLDEN = [
    "3b28b97de7377bb66d6944eac3171c71",
    "688d21ccad129bcdfda875f3be648ada",
    "c2ba3ac5f2a806c2c3da39c6541ee4d7",
    "747bce20deb5162fcbae3e05eac4d45b",
    "e68a1c87c6adbf7e73c81a0e5f6dfaab",
]


def test_keys_of_rewound_runs_never_change() -> None:
    """Trunks, runs that continue from them, interpolation, schedules, augmentation."""
    run = described(
        optimizer="sgd",
        momentum=0.9,
        nesterov=True,
        schedule="step",
        milestones=["2000it"],
        warmup="100it",
        decay=0.2,
    )
    images = run.data.model_copy(update={"flip": True, "crop": 4, "scale": "standard", "mean": (0.5,), "std": (0.2,)})
    run = run.model_copy(update={"data": images})
    trunk = run.until(500)
    continued = run.after(trunk, begin=500)
    middle = run.between(run, continued, 0.5, run.last)
    keys = [run, trunk, continued, run.after(run, begin=50000, end=60000), middle]
    assert [run.key for run in keys] == GOLDEN


def test_options_at_their_default_are_not_part_of_the_key() -> None:
    explicit = described(momentum=0.0, weight_decay=0.0, test_curve=False, evaluate_every="100it", precision="fp32")
    assert explicit.key == described().key
    assert "momentum" not in explicit.description["training"]


def test_everything_that_can_change_a_result_changes_the_key() -> None:
    run = described()
    data = run.data
    others = [
        run.masked(Mask({"fc1.weight": torch.eye(300, 784).bool()})),
        run.reinitialised(2),
        run.model_copy(update={"seed": 4}),
        run.model_copy(update={"data": data.model_copy(update={"digest": "e" * 32})}),
        run.model_copy(update={"data": data.model_copy(update={"seed": 9})}),
        run.model_copy(update={"data": data.model_copy(update={"validation": 1})}),
        run.model_copy(update={"data": data.model_copy(update={"scale": "standard"})}),
        described(lr=1e-3),
        described(batch_size=61),
        described(length="50001it"),
        described(evaluate_every="10it"),
        described(weight_decay=0.1),
        described(test_curve=True),
        described(precision="tf32"),
        described(precision="bf16"),
        run.until(10),
        run.paused(10),
        run.after(run.paused(10), begin=10),
        run.resuming(run.paused(10)),
        run.at_constant_rate(0.5),
        run.averaging([run, run.until(10)], 10),
        run.averaging([run, run.until(10)], 10, weights=(0.25, 0.75)),
        run.averaging([run, run.until(10)], 10, Duration(epochs=1)),
        run.between(run, run.until(10), 0.5, 10),
        run.between(run, run.until(10), 0.5, 10, Duration(epochs=1)),
    ]
    assert len({run.key, *(other.key for other in others)}) == len(others) + 1


def test_the_path_of_a_data_file_is_not_part_of_the_key() -> None:
    here = Data(name="a/arrays.npz", digest="d", seed=0, validation=1)
    there = Data(name="/elsewhere/other.npz", digest="d", seed=0, validation=1)
    assert here.model_dump() == there.model_dump()


def test_runs_are_values() -> None:
    assert described() == described()
    assert len({described(), described(), described(lr=0.5)}) == 2


def test_durations_become_iterations() -> None:
    training = described(length="2ep5it", evaluate_every="1ep").training.in_iterations(examples=601)
    assert training.length == Duration(iterations=27)
    assert training.evaluate_every == Duration(iterations=11)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "lbfgs"},
        {"lr": 0},
        {"lr": "fast"},
        {"lr": float("nan")},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"length": "0it"},
        {"evaluate_every": "0it"},
        {"momentum": 0.9},  # of adam
        {"momentun": 0.9},
    ],
)
def test_an_invalid_description_is_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        described(**wrong)


def final_states(*runs: Run) -> dict[str, State]:
    """Different weights for each run, by its key."""
    return {run.key: build(run.reinitialised(100 + n).start).state_dict() for n, run in enumerate(runs)}


def test_a_run_starts_with_the_final_weights_of_an_earlier_one(dense: Run) -> None:
    trunk = dense.until(20)
    final = final_states(trunk)
    continued = dense.after(trunk, begin=20)
    assert same_state(initial_network(continued.start, final.__getitem__).state_dict(), final[trunk.key])
    assert same_state(initial_network(dense.start).state_dict(), build(dense.start).state_dict())


def test_pruned_weights_are_zero(dense: Run) -> None:
    trunk = dense.until(20)
    final = final_states(trunk)
    mask = dense.mask - dense.mask
    network = masked_network(dense.after(trunk, begin=20).masked(mask), final.__getitem__)
    assert all((network.state_dict()[name] == 0).all() for name in mask)


def test_interpolated_weights_lie_on_the_straight_line_between_two_runs(dense: Run) -> None:
    one, other = dense.until(20), dense.until(30)
    final = final_states(one, other)
    for share in (0.0, 0.25, 1.0):
        state = initial_network(dense.between(one, other, share, one.last).start, final.__getitem__).state_dict()
        for name, value in state.items():
            expected = (1 - share) * final[one.key][name] + share * final[other.key][name]
            torch.testing.assert_close(value, expected)


def test_integer_tensors_are_not_interpolated() -> None:
    a, b = {"tracked": torch.tensor(3)}, {"tracked": torch.tensor(8)}
    assert interpolate(a, b, 0.5) == a


def test_complex_tensors_are_interpolated() -> None:
    a, b = ({"weight": torch.tensor([value], dtype=torch.complex64)} for value in (1 + 2j, 3.0))
    assert interpolate(a, b, 0.25)["weight"].tolist() == [1.5 + 1.5j]


def test_a_changed_copy_has_a_key_of_its_own() -> None:
    run = described()
    before = run.key
    copies = [
        run.reinitialised(7),
        run.model_copy(update={"seed": 4}),
        run.masked(Mask({"fc1.weight": torch.eye(300, 784).bool()})),
    ]
    assert len({before, *(changed.key for changed in copies)}) == 4
    assert all(changed.key == key_of(changed.description) for changed in copies)
    assert run.model_copy() == run
    assert described() == run  # one has been asked for its key, the other has not
    assert copy.deepcopy(run).key == pickle.loads(pickle.dumps(run)).key == before
