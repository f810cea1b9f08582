from __future__ import annotations

from tests.conftest import random_mask
from tombola.runs.run import Run
from tombola.studies.checking import verification_runs


def test_all_of_one_order_share_it_and_nothing_else_differs(dense: Run) -> None:
    mask = random_mask(dense, 0.3)
    asks = next(verification_runs(dense, mask, 4, order=7, reinit=[11, 12]))
    assert isinstance(asks, list)
    assert [(ask.branch, ask.level, ask.draw) for ask in asks] == [
        ("ticket", 0, 0),
        ("ticket", 4, 0),
        ("reinit", 4, 0),
        ("reinit", 4, 1),
    ]
    whole, ticket, *controls = (ask.run for ask in asks)
    assert {ask.run.seed for ask in asks} == {7}
    assert whole == dense.model_copy(update={"seed": 7})
    assert ticket == whole.masked(mask)
    assert [run.start.seed for run in controls] == [11, 12]
    assert all(run == ticket.reinitialised(run.start.seed) for run in controls)


def test_in_the_order_of_the_search_it_is_the_run_of_the_search(dense: Run) -> None:
    mask = random_mask(dense, 0.3)
    asks = next(verification_runs(dense, mask, 1, dense.seed))
    assert isinstance(asks, list)
    assert [ask.run.key for ask in asks] == [dense.key, dense.masked(mask).key]


def test_controls_of_a_rewound_ticket_are_trained_from_the_beginning(dense: Run) -> None:
    rewound = dense.after(dense.until(10), begin=10)
    asks = next(verification_runs(rewound, random_mask(dense, 0.3), 1, order=7, reinit=[3]))
    assert isinstance(asks, list)
    _, ticket, control = (ask.run for ask in asks)
    assert (ticket.begin, ticket.start.trained) == (10, rewound.start.trained)
    assert (control.begin, control.start.trained) == (0, None)
