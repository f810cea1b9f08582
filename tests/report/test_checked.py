from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tombola.report.checked import answer, reproduction, show_checked
from tombola.results import versions


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
    ticket = {"recorded": measured(0.96, 120), "here": measured(0.96, 120), "reproduced": True, "tolerance": 0.012}
    found: dict[str, Any] = {
        "state": "holds",
        "weights": 107,
        "weights_total": 1000,
        "weights_left": 0.107,
        "repeats": 6,
        "criteria": {"accuracy_margin": 0.01, "stop_margin": 0.05, "confidence": 0.95},
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
            "trained_apart": None,
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
            summary(state="does not hold", verdict__state="not winning", verdict__reason="less accurate"),
            "The claim does not hold: in 6 other orders of batches the ticket, 10.7% of the weights, is surely less "
            f"accurate: {FIGURES}.",
        ),
        (
            summary(state="does not hold", verdict__state="not winning", verdict__reason="too many weights"),
            "is no match (too many weights): ",
        ),
    ],
)
def test_the_answer(found: dict[str, Any], said: str) -> None:
    assert said in answer(found)


def test_figures_that_did_not_come_again() -> None:
    worse = {"recorded": measured(0.96, 120), "here": measured(0.86, 140), "reproduced": False, "tolerance": 0.012}
    found = summary(state="does not hold", reproduced__all=False, reproduced__exact=False, reproduced__ticket=worse)
    both = (
        "96.00% at early stop, iteration 120, and the same training gives 86.00% at iteration 140 here (rounding "
        "explains 1.2 points)"
    )
    assert answer(found) == f"The claim does not hold: of the ticket it says {both}."
    assert reproduction(found) == (f"Recorded figures of the ticket: not reproduced. Ticket: {both}.")
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
    assert reproduction(summary(reproduced__trained_apart=0.0)).endswith(
        "to the bit. The trained weights in the file are these, to the bit."
    )
    assert reproduction(summary(reproduced__trained_apart=1 / 3)).endswith(
        "are 0.33 of their length away from these."
    )


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
