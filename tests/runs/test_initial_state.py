from __future__ import annotations

import pytest
import torch

from tombola.pruning.mask import State
from tombola.runs.initial_state import initial_network, interpolate, masked_network
from tombola.runs.run import Run
from tombola.zoo.models import build


def states(*runs: Run) -> dict[str, State]:
    """Other weights for each run, by its key."""
    return {run.key: build(run.reinitialised(100 + n).start).state_dict() for n, run in enumerate(runs)}


def same(a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in b)


def test_a_network_starts_with_the_weights_that_a_training_left(dense: Run) -> None:
    trunk = dense.until(20)
    left = states(trunk)
    going_on = dense.after(trunk, begin=20)
    assert same(initial_network(going_on.start, left.__getitem__).state_dict(), left[trunk.key])
    assert same(initial_network(dense.start).state_dict(), build(dense.start).state_dict())


def test_what_is_pruned_is_zero(dense: Run) -> None:
    trunk = dense.until(20)
    left = states(trunk)
    mask = dense.mask - dense.mask
    network = masked_network(dense.after(trunk, begin=20).masked(mask), left.__getitem__)
    assert all((network.state_dict()[name] == 0).all() for name in mask)


def test_between_two_trainings_weights_are_on_the_straight_line(dense: Run) -> None:
    one, other = dense.until(20), dense.until(30)
    left = states(one, other)
    for share in (0.0, 0.25, 1.0):
        state = initial_network(dense.between(one, other, share).start, left.__getitem__).state_dict()
        for name, value in state.items():
            expected = (1 - share) * left[one.key][name] + share * left[other.key][name]
            torch.testing.assert_close(value, expected)


def test_counts_are_not_mixed() -> None:
    a, b = {"tracked": torch.tensor(3)}, {"tracked": torch.tensor(8)}
    assert interpolate(a, b, 0.5) == a


def test_a_run_that_nobody_knows_is_an_error(dense: Run) -> None:
    with pytest.raises(LookupError, match="not known"):
        initial_network(dense.after(dense, begin=0).start)
