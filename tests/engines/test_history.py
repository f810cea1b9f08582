"""The history of several runs, against one that looks at each run alone."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from tombola.engines.history import Evaluation, History

NAN, INF = math.nan, math.inf
losses = st.sampled_from([0.1, 0.2, 0.30000000000000004, 0.3, 7.0, 0.1 + 0.2])
rarely_diverging = st.one_of(losses, losses, losses, losses, st.sampled_from([NAN, INF, -INF]))
SCORES = Evaluation(0.5, 0.25), Evaluation(0.5, 0.75)


class OneByOne:
    """The evaluations of one run."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.diverged_at: int | None = None

    def add(self, iteration: int, train_loss: float, validation: Evaluation, test: Evaluation | None) -> bool:
        if self.diverged_at is not None:
            return False
        if not (math.isfinite(train_loss) and math.isfinite(validation.loss)):
            self.diverged_at = iteration
            return False
        best = all(validation.loss < row["validation_loss"] for row in self.rows)
        row = {"iteration": iteration, "train_loss": train_loss}
        row |= {"validation_loss": validation.loss, "validation_accuracy": validation.accuracy}
        self.rows.append(row | ({"test_loss": test.loss, "test_accuracy": test.accuracy} if test else {}))
        return best

    @property
    def stop(self) -> dict[str, Any]:
        return min(self.rows, key=lambda row: row["validation_loss"])


@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.booleans(), st.integers(0, 6))
def test_each_run_has_the_history_that_it_has_alone(
    data: st.DataObject, runs: int, evaluations: int, tested: bool, resumed_at: int
) -> None:
    history, alone = History(runs), [OneByOne() for _ in range(runs)]
    for number in range(evaluations):
        if number == resumed_at:
            state = history.state_dict()
            history = History(runs)
            history.load_state_dict(state)
        train = data.draw(st.lists(rarely_diverging, min_size=runs, max_size=runs))
        scores = [
            [Evaluation(loss, number / 7) for loss in data.draw(st.lists(each, min_size=runs, max_size=runs))]
            for each in (rarely_diverging, st.one_of(losses, st.just(NAN)))
        ]
        tests = scores[1] if tested else None
        found = history.add(10 * number, train, scores[0], tests)
        given_tests = tests or [None] * runs
        assert found == [
            one.add(10 * number, *each) for one, *each in zip(alone, train, scores[0], given_tests, strict=True)
        ]
    last = 10 * (evaluations - 1)
    assert history.diverged == all(one.diverged_at is not None for one in alone)
    assert history.improving == all(
        one.diverged_at is None and bool(one.rows) and one.stop["iteration"] == last for one in alone
    ) or any(one.diverged_at is not None for one in alone)
    every = [SCORES] * runs
    for one, curves, measures in zip(alone, history.curves(), history.measures(99, every, every), strict=True):
        assert list(curves) == list(one.rows[0] if one.rows else {})
        for name, curve in curves.items():
            expected = torch.tensor([row[name] for row in one.rows], dtype=curve.dtype)
            assert torch.equal(curve.nan_to_num(9), expected.nan_to_num(9))
            assert curve.dtype == (torch.int64 if name == "iteration" else torch.float64)
        assert measures.diverged == (one.diverged_at is not None)
        assert measures.iterations == (99 if one.diverged_at is None else one.diverged_at)
        if one.diverged_at is None:
            assert measures.stop_iteration == one.stop["iteration"]
            assert measures["validation_loss_at_stop"] == one.stop["validation_loss"]
            assert measures["validation_accuracy_at_stop"] == one.stop["validation_accuracy"]


def test_a_saved_history_does_not_change() -> None:
    history = History(2)
    history.add(10, [1.0, 1.0], [Evaluation(0.5, 0.5)] * 2)
    state = history.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    restored = History(2)
    restored.load_state_dict(state)
    for each in (history, restored):
        each.add(20, [1.0, NAN], [Evaluation(0.4, 0.5)] * 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_a_history_takes_24_bytes_for_each_evaluation_of_a_run() -> None:
    history = History(1000)
    sizes = []
    for iteration in range(4):
        history.add(iteration, [1.0] * 1000, [Evaluation(0.5, 0.5)] * 1000)
        sizes.append(sum(tensor.nbytes for tensor in history.state_dict().values()))
    assert [later - before for before, later in itertools.pairwise(sizes)] == [24_008] * 3
