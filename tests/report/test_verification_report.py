from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.reports import printed
from tombola.experiments.margin import Margin
from tombola.experiments.metric import ACCURACY
from tombola.experiments.results_schema import Tally
from tombola.experiments.sections import VerdictSection
from tombola.report.verification_report import reproduction, show_verification, verification_conclusion
from tombola.runs.outcome import Measures
from tombola.stats.summary import BranchSummary, Interval, MeasureSummary, VerdictSummary
from tombola.tickets.verification_summary import (
    FigureSummary,
    ReproductionSummary,
    VerificationSummary,
    WeightSummary,
)
from tombola.utils.libraries import versions


def measure(*values: float) -> MeasureSummary:
    if not values:
        return MeasureSummary(values=[], interval=None)
    mean = sum(values) / len(values)
    return MeasureSummary(values=list(values), interval=Interval(mean, mean - 0.01, mean + 0.01))


def branch(accuracy: float | None, stop: int | None) -> BranchSummary:
    """A branch with these means; None if it diverged."""
    measures: dict[str, MeasureSummary] = {}
    if accuracy is not None and stop is not None:
        measures = {"test_accuracy_at_stop": measure(*[accuracy] * 5), "stop_iteration": measure(*[stop] * 5)}
    return BranchSummary(runs=2, diverged=0, measures=measures)


RECORDED = Measures(
    diverged=False, iterations=500, stop_iteration=120, test_accuracy_at_stop=0.96, test_accuracy=0.999
)


def figures(here: Measures = RECORDED, **changes: Any) -> FigureSummary:
    same: dict[str, Any] = {"difference": 0.0, "off": [], "exact": here == RECORDED, "reproduced": here == RECORDED}
    allowed = {"tolerances": {"stop_iteration": 30.0}, "tolerance": 0.012}
    return FigureSummary(**(same | allowed | changes), recorded=RECORDED, here=here)


def reproduced(**changes: Any) -> ReproductionSummary:
    values: dict[str, Any] = {"reproduced": True, "exact": True, "remembered": False, "trained": None, "dense": None}
    values |= {"versions": versions(), "ticket": figures()}
    return ReproductionSummary.model_construct(**(values | changes))


def verdict(**changes: Any) -> VerdictSummary:
    values: dict[str, Any] = {"state": "winning", "stop_margin": 0.05, "p_better_than_control": 0.01}
    values |= {"more_replicates": None, "advice": ""}
    return VerdictSummary.model_construct(**(values | changes))


def summary(**changes: Any) -> VerificationSummary:
    """A claim that holds, with changes; without the fields that are not shown."""
    values: dict[str, Any] = {
        "weights": 107,
        "weights_left": 0.107,
        "weights_total": 1000,
        "rewound_to": 0,
        "iterations": 500,
        "state": "holds",
        "failing": None,
        "repeats": 6,
        "criteria": VerdictSection(margin=Margin(0.01)),
        "metric": ACCURACY,
        "timed": True,
        "own_state": None,
        "branches": {"dense": branch(0.95, 200), "ticket": branch(0.955, 150), "reinit": branch(0.94, 300)},
        "verdict": verdict(),
        "dense_without_early_stop": 0,
        "reproduction": reproduced(),
        "runs": Tally(20, 0, 0),
        "store": "checks/1",
    }
    return VerificationSummary.model_construct(**(values | changes))


def undecided(reason: str, **changes: Any) -> VerificationSummary:
    open_verdict = verdict(state="cannot tell", reason=reason, **changes)
    return summary(state="cannot tell", verdict=open_verdict)


def not_winning(reason: str, **changes: Any) -> VerificationSummary:
    lost = verdict(state="not winning", reason=reason)
    return summary(state="does not hold", failing="verdict", verdict=lost, **changes)


def not_reproduced(what: str, **changes: Any) -> VerificationSummary:
    found = reproduced(reproduced=False, exact=False, **changes)
    return summary(state="does not hold", failing=what, reproduction=found)


@pytest.mark.parametrize(
    ("found", "facts"),
    [
        (
            summary(),
            ["claim holds", "6 other orders", "10.7%", "1 point", "5% later", "newly drawn", "95% confidence"],
        ),
        (undecided("accuracy", more_replicates=4), ["Cannot tell", "1 point", "4 more repeats", "--repeats 10"]),
        (undecided("early stop", more_replicates=1), ["not 95% sure", "5% later", "--repeats 7"]),
        (undecided("early stop", stop_margin=0.0, more_replicates=1), ["not 95% sure", "sooner"]),
        (undecided("too few replicates", more_replicates=2), ["too few repeats"]),
        (undecided("no better than reinit", advice="No replicates."), ["no better than reinit", "No repeats."]),
        (not_winning("less accurate"), ["does not hold", "less accurate (95% confidence)"]),
        (not_winning("too many weights"), ["does not hold", "no match (too many weights)"]),
        (summary(rewound_to=20), ["rewound to iteration 20 of 500"]),
        (summary(runs=Tally(20, 5, 0)), ["5 of 25 runs", "checks/1"]),
    ],
)
def test_the_conclusion_states_facts(found: VerificationSummary, facts: list[str]) -> None:
    text = verification_conclusion(found)
    assert "test accuracy dense 95.00%, ticket 95.50%, reinit 94.00%; early stop dense 200, ticket 150" in text
    for fact in facts:
        assert fact in text


def test_a_claim_without_control_does_not_mention_new_weights() -> None:
    text = verification_conclusion(summary(verdict=verdict(p_better_than_control=None)))
    assert "newly drawn" not in text


def test_figures_that_were_not_reproduced() -> None:
    worse = RECORDED.model_copy(
        update={"test_accuracy_at_stop": 0.86, "stop_iteration": 140, "iterations": 1, "test_accuracy": 0.9}
    )
    found = not_reproduced("ticket", ticket=figures(worse, off=["iterations", "test_accuracy"]))
    for text in (verification_conclusion(found), reproduction(found)):
        for fact in (
            "96.00% at early stop, iteration 120",
            "86.00% at iteration 140",
            "1.2 points and 30 iterations",
            "iterations trained 500, here 1",
            "test accuracy at the end 99.90%, here 90.00%",
        ):
            assert fact in text
    assert "not reproduced" in reproduction(found)
    lost = not_reproduced("dense", dense=figures(Measures(diverged=True, iterations=10)))
    assert "figures of the dense network" in verification_conclusion(lost)
    assert "diverges here" in verification_conclusion(lost)


def test_figures_reproduced_up_to_rounding() -> None:
    near = reproduced(exact=False, remembered=True, versions={"torch": "1.0"}, dense=figures())
    text = reproduction(summary(reproduction=near))
    for fact in ("ticket and of the dense network: reproduced up to rounding", "from the store", "Ticket: 96.00%"):
        assert fact in text
    assert f"torch 1.0, here {versions()['torch']}." in text


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({}, ["are equal to those trained here."]),
        ({"apart": 1e-4}, ["up to rounding"]),
        ({"apart": 1 / 3, "same": False}, ["different", "0.33"]),
        ({"apart": 1 / 3, "same": False, "reproduced": False}, ["different", "0.33", "do not match the recorded"]),
        ({"apart": math.inf, "same": False, "reproduced": False}, ["different", "do not match the recorded"]),
    ],
)
def test_trained_weights_in_the_file(changes: dict[str, Any], facts: list[str]) -> None:
    same = {"apart": 0.0, "same": True, "reproduced": True, "figure": 0.95, "name": "test_accuracy", "recorded": 0.95}
    text = reproduction(summary(reproduction=reproduced(trained=WeightSummary(**(same | changes)))))
    for fact in facts:
        assert fact in text
    assert "inf" not in text


@pytest.mark.parametrize(("accuracy", "facts"), [(0.95, []), (0.5, ["95.00%", "50.00%"]), (None, ["not all finite"])])
def test_trained_weights_that_do_not_match_the_recorded_figures(accuracy: float | None, facts: list[str]) -> None:
    trained = WeightSummary(
        apart=1.0, same=False, reproduced=False, figure=accuracy, name="test_accuracy", recorded=0.95
    )
    text = verification_conclusion(not_reproduced("trained", trained=trained))
    assert "does not hold: its trained weights" in text
    for fact in facts:
        assert fact in text


def test_wider_criteria_of_the_file_are_stated() -> None:
    wide = VerdictSection(margin=Margin(0.5), stop_margin=1e308, confidence=0.6, max_density=0.99)
    text = verification_conclusion(summary(own_state="cannot tell", own_criteria=wide))
    for used, own in (("1 point", "50 points"), ("5%", "1e+308 times"), ("95%", "60%"), ("50%", "99%")):
        assert f"{used} (in the file: {own})" in text
    assert "the claim cannot be decided" in text


def test_control_characters_of_a_file_are_not_printed() -> None:
    found = reproduced(exact=False, versions={"torch": "\x1b[2J1.0"})
    assert "torch ?[2J1.0, here" in reproduction(summary(reproduction=found))


def test_the_table() -> None:
    lines = [line.split() for line in printed(show_verification, summary(), width=100).splitlines()]
    assert ["dense", "1,000", "(100%)", "95.00", "±1.00", "200", "±0"] in lines
    assert ["ticket", "107", "(10.7%)", "95.50", "±1.00", "150", "±0"] in lines
    assert ["reinit", "107", "(10.7%)", "94.00", "±1.00", "300", "±0"] in lines


def test_divergence_and_missing_early_stops_are_reported() -> None:
    branches = {"dense": branch(0.95, 200), "ticket": branch(None, None), "reinit": branch(0.94, 300)}
    found = not_winning("6 of 6 diverged", branches=branches, dense_without_early_stop=2, runs=Tally(20, 0, 6))
    text = " ".join(printed(show_verification, found).split())
    assert "ticket diverged, reinit 94.00%; early stop dense 200, reinit 300" in text
    assert "2 of 6 dense networks" in text
    assert "6 runs diverged" in text
    assert "6 orders of batches" in text
