from __future__ import annotations

import logging

import pytest

from tests.support.outcomes import outcome_of
from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun, Run
from tombola.studies.early_bird import EarlyBirdPlan, early_bird_search
from tombola.studies.rehearsal import MadeUp, rehearse
from tombola.studies.request import RunRequest
from tombola.studies.search import iterative_search, one_shot_search


def keep(outcome: Outcome, run: BaseRun, level: int) -> Mask:  # noqa: ARG001
    return run.mask


def made_up(request: RunRequest, alone: bool) -> Outcome:  # noqa: ARG001
    return MadeUp.of(request.run, request.run.key)


def test_requests_come_in_order_with_their_outcomes(dense: Run) -> None:
    known = outcome_of(dense)
    found = list(
        rehearse(iterative_search(dense, 2, keep), lambda r, alone: known if r.level == 0 else made_up(r, alone))
    )
    assert [each.request.level for each in found] == [0, 1, 2]
    assert all(each.alone for each in found)
    assert found[0].outcome is known
    assert all(isinstance(each.outcome, MadeUp) for each in found[1:])


def test_runs_of_a_list_are_not_alone(dense: Run) -> None:
    asked: list[tuple[int, bool]] = []

    def answer(request: RunRequest, alone: bool) -> Outcome:
        asked.append((request.level, alone))
        return made_up(request, alone)

    found = list(rehearse(one_shot_search(dense, 2, keep), answer))
    assert asked == [(each.request.level, each.alone) for each in found] == [(0, True), (1, False), (2, False)]


def test_a_made_up_training_reaches_its_end(dense: Run) -> None:
    assert MadeUp.of(dense, "").measures.iterations == dense.last
    assert MadeUp.of(dense.until(7), "").measures.iterations == 7
    assert not MadeUp.of(dense, "").measures.diverged


def test_studies_do_not_warn_of_made_up_outcomes(dense: Run, caplog: pytest.LogCaptureFixture) -> None:
    other = Mask({name: ~kept for name, kept in dense.mask.items()})
    plan = EarlyBirdPlan([10, 20], window=2)
    study = early_bird_search(dense, plan, lambda outcome, run, level: other if run.last == 10 else dense.mask)  # noqa: ARG005
    with caplog.at_level(logging.WARNING):
        found = list(rehearse(study, made_up))
        logging.getLogger("tombola.studies").warning("heard again")
    assert [each.request.branch for each in found] == ["ticket", "segment", "segment", "drawn", "ticket"]
    assert [record.message for record in caplog.records] == ["heard again"]
