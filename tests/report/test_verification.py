from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from tombola.report.verification import answer, reproduction, show_checked
from tombola.utils.versions import versions


def figure(*values: float) -> dict[str, Any]:
    if not values:
        return {"values": []}
    mean = sum(values) / len(values)
    return {"values": list(values), "mean": mean, "low": mean - 0.01, "high": mean + 0.01}


def branch(accuracy: float, stop: int) -> dict[str, Any]:
    return {"test_accuracy_at_stop": figure(accuracy, accuracy), "stop_iteration": figure(stop, stop)}


def measured(accuracy: float, stop: int, **more: Any) -> dict[str, Any]:
    return {"diverged": False, "test_accuracy_at_stop": accuracy, "stop_iteration": stop} | more


def summary(**changes: Any) -> dict[str, Any]:
    """A check that holds; `section__key=value` changes a value."""
    both = {"recorded": measured(0.96, 120), "here": measured(0.96, 120)}
    ticket = both | {"reproduced": True, "off": [], "tolerance": 0.012, "tolerances": {"stop_iteration": 30.0}}
    found: dict[str, Any] = {
        "state": "holds",
        "failing": None,
        "rewound_to": 0,
        "iterations": 500,
        "own_state": None,
        "own_criteria": {"accuracy_margin": 0.01, "stop_margin": 0.05, "confidence": 0.95, "max_density": 0.5},
        "store": "checks/1",
        "weights": 107,
        "weights_total": 1000,
        "weights_left": 0.107,
        "repeats": 6,
        "criteria": {"accuracy_margin": 0.01, "stop_margin": 0.05, "confidence": 0.95, "max_density": 0.5},
        "branches": {"dense": branch(0.95, 200), "ticket": branch(0.955, 150), "reinit": branch(0.94, 300)},
        "verdict": {
            "state": "winning",
            "reason": "",
            "p_better_than_control": 0.01,
            "stop_margin": 0.05,
            "more_replicates": None,
            "instead": "",
        },
        "late": 0,
        "reproduced": {
            "all": True,
            "exact": True,
            "remembered": False,
            "trained": None,
            "versions": versions(),
            "ticket": ticket,
        },
        "runs": {"trained": 20, "from_store": 0, "diverged": 0},
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            found[section][key] = value
        else:
            found[section] = value
    return found


def not_winning(reason: str) -> dict[str, Any]:
    return summary(state="does not hold", failing="verdict", verdict__state="not winning", verdict__reason=reason)


def not_reproduced(what: str, **reproduced: Any) -> dict[str, Any]:
    changes = {f"reproduced__{name}": value for name, value in ({"all": False} | reproduced).items()}
    return summary(state="does not hold", failing=what, **changes)


FIGURES = "test accuracy dense 95.00%, ticket 95.50%, reinit 94.00%; early stop dense 200, ticket 150, reinit 300"


def open_at(reason: str, **verdict: Any) -> dict[str, Any]:
    return summary(
        state="cannot tell", **{f"verdict__{name}": v for name, v in (verdict | {"reason": reason}).items()}
    )


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            summary(),
            "The claim holds: in 6 other orders of batches the ticket, 10.7% of the weights, is at most 1 point less "
            "accurate than the dense network and stops at most 5% later, and is better than newly drawn weights "
            f"(95% sure): {FIGURES}.",
        ),
        (summary(verdict__p_better_than_control=None), "stops at most 5% later (95% sure): "),
        (
            open_at("accuracy", more_replicates=4),
            "Cannot tell: in 6 other orders of batches the ticket, 10.7% of the weights, is not 95% sure to be at "
            f"most 1 point less accurate: {FIGURES}. About 4 more repeats would probably decide (--repeats 10).",
        ),
        (open_at("early stop", more_replicates=1), "is not 95% sure to stop at most 5% later: "),
        (open_at("early stop", stop_margin=0.0, more_replicates=1), "is not 95% sure to stop sooner: "),
        (open_at("too few replicates", more_replicates=2), "is not sure to win (too few repeats): "),
        (
            open_at("no better than reinit", instead="No reasonable number of replicates would decide it."),
            "(no better than reinit): " + FIGURES + ". No reasonable number of repeats would decide it.",
        ),
        (
            not_winning("less accurate"),
            "The claim does not hold: in 6 other orders of batches the ticket, 10.7% of the weights, is surely less "
            f"accurate: {FIGURES}.",
        ),
        (
            not_winning("too many weights"),
            "is no match (too many weights): ",
        ),
    ],
)
def test_the_answer(found: dict[str, Any], said: str) -> None:
    assert said in answer(found)


def test_figures_that_did_not_come_again() -> None:
    worse = summary()["reproduced"]["ticket"] | {"here": measured(0.86, 140), "reproduced": False}
    found = not_reproduced("ticket", exact=False, ticket=worse)
    both = (
        "96.00% at early stop, iteration 120, and the same training gives 86.00% at iteration 140 here (rounding "
        "explains 1.2 points and 30 iterations)"
    )
    assert answer(found) == f"The claim does not hold: of the ticket it says {both}."
    assert reproduction(found) == (f"Recorded figures of the ticket: not reproduced. Ticket: {both}.")
    worse |= {"recorded": measured(0.96, 120, test_accuracy=0.999), "off": ["iterations", "test_accuracy"]}
    worse["recorded"]["iterations"] = 500
    worse["here"] |= {"test_accuracy": 0.9, "iterations": 1}
    assert answer(not_reproduced("ticket", ticket=worse)).endswith(
        "30 iterations); iterations trained 500, here 1; test accuracy at the end 99.90%, here 90.00%."
    )
    found["reproduced"]["ticket"]["here"] = {"diverged": True}
    assert "and the same training diverges here" in answer(found)


def test_figures_that_came_again_nearly() -> None:
    found = summary(reproduced__exact=False, reproduced__remembered=True, reproduced__versions={"torch": "1.0"})
    found["reproduced"]["dense"] = found["reproduced"]["ticket"]
    said = reproduction(found)
    assert said.startswith(
        "Recorded figures of the ticket and of the dense network: reproduced but for rounding (as the "
        "store remembers them; not trained anew). Ticket: 96.00%"
    )
    assert said.endswith(f"Made with torch 1.0, here {versions()['torch']}.")


def test_trained_weights_in_the_file() -> None:
    same = {"apart": 0.0, "same": True, "reproduced": True, "accuracy": 0.95, "recorded": 0.95}
    for changes, said in (
        ({}, "to the bit. The trained weights in the file are these, to the bit."),
        ({"apart": 1e-4}, "are these, rounded."),
        ({"apart": 1 / 3, "same": False}, "are 0.33 of a layer's length away from these."),
        (
            {"apart": 1 / 3, "same": False, "reproduced": False},
            "are 0.33 of a layer's length away from these; not those of the record.",
        ),
        ({"apart": math.inf, "same": False, "reproduced": False}, "are not these; not those of the record."),
    ):
        assert reproduction(summary(reproduced__trained=same | changes)).endswith(said)


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (0.95, "."),
        (0.5, ": test accuracy 95.00% at the end, and they have 50.00% here."),
        (None, ": they are not all finite."),
    ],
)
def test_trained_weights_that_are_not_those_of_the_record(accuracy: float | None, said: str) -> None:
    trained = {"apart": 1.0, "same": False, "reproduced": False, "accuracy": accuracy, "recorded": 0.95}
    assert answer(not_reproduced("trained", trained=trained)) == (
        f"The claim does not hold: its trained weights are not those of the record{said}"
    )


def test_what_the_answer_rests_on() -> None:
    assert "10.7% of the weights, rewound to iteration 20 of 500, is at most" in answer(summary(rewound_to=20))
    assert answer(summary(runs__from_store=5)).endswith(
        "5 of 25 runs came from the store checks/1, and were not trained now."
    )
    wide = {"accuracy_margin": 0.5, "stop_margin": 1e308, "confidence": 0.6, "max_density": 0.99}
    assert answer(summary(own_state="cannot tell", own_criteria=wide)).endswith(
        ". It is judged by an accuracy margin of 1 point (the file's own: 50 points) and a stop margin of 5% (the "
        "file's own: 1e+308 times) and a confidence of 95% (the file's own: 60%) and at most so many weights left: "
        "50% (the file's own: 99%); by the file's own it cannot be told."
    )


def test_a_file_has_no_say_over_the_terminal() -> None:
    said = reproduction(summary(reproduced__exact=False, reproduced__versions={"torch": "\x1b[2J1.0"}))
    assert "Made with torch ?[2J1.0, here" in said


def shown(found: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    show_checked(console, found)
    return console.export_text()


def test_the_table() -> None:
    lines = [line.split() for line in shown(summary()).splitlines()]
    assert ["dense", "1,000", "(100.0%)", "95.00", "±", "1.00", "200", "±", "0"] in lines
    assert ["ticket", "107", "(10.7%)", "95.50", "±", "1.00", "150", "±", "0"] in lines
    assert ["reinit", "107", "(10.7%)", "94.00", "±", "1.00", "300", "±", "0"] in lines


def test_what_must_not_go_unsaid() -> None:
    found = summary(
        state="does not hold",
        failing="verdict",
        verdict__state="not winning",
        verdict__reason="6 of 6 diverged",
        late=2,
        runs__diverged=6,
    )
    found["branches"]["ticket"] = {"test_accuracy_at_stop": figure(), "stop_iteration": figure()}
    text = " ".join(shown(found).split())
    assert "ticket diverged, reinit 94.00%; early stop dense 200, reinit 300" in text
    assert "2 of 6 dense networks had the minimum of validation loss at the last iteration" in text
    assert "6 runs diverged" in text
    assert "in 6 orders of batches that the ticket was not chosen by" in text
