"""The verdict on the repeats, by no wider margins than a file may set; `tombola ticket check` prints it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.support.command_line import tombola
from tests.support.fake_engine import RESULTS
from tests.support.tickets import set_in, with_provenance
from tombola.experiments.margin import Margin
from tombola.experiments.sections import VerdictSection
from tombola.report.verification_report import verification_conclusion
from tombola.runs.outcome import Measures
from tombola.tickets.verification import RECORDED_RUN, WIDEST_CRITERIA, Verification, accepted_criteria
from tombola.tickets.verification_summary import VerificationSummary


def with_results(
    verification: Verification, results: Callable[[str, int], tuple[float, int] | None]
) -> VerificationSummary:
    """The summary for other results of the repeats: (accuracy, early stop) by branch and repeat; None: diverged."""
    rows = []
    for row in verification.rows:
        found = results("dense" if row.level == 0 else row.branch, row.replicate)
        if row.replicate == RECORDED_RUN:
            rows.append(row)
        elif found is None:
            rows.append(replace(row, measures=Measures(diverged=True, iterations=5)))
        else:
            at_stop = {"test_accuracy_at_stop": found[0], "stop_iteration": found[1]}
            rows.append(replace(row, measures=row.measures.model_copy(update=at_stop)))
    return replace(verification, rows=rows).build_summary()


def with_criteria(verification: Verification, criteria: VerdictSection) -> Verification:
    recipe = verification.claim.config.model_copy(update={"verdict": criteria})
    return replace(verification, claim=replace(verification.claim, config=recipe))


@pytest.fixture(scope="module")
def strict(verification: Verification) -> Verification:
    """Five repeats, of a claim with an accuracy margin of 0.1 points and a stop margin of 5%."""
    return with_criteria(verification, VerdictSection(margin=Margin(0.001)))


def test_only_the_repeats_are_judged(verification: Verification) -> None:
    """The recorded run was selected among replicates."""
    branches = verification.summary()["branches"]
    assert list(branches) == ["dense", "ticket", "reinit"]
    for name, branch in (("dense", "ticket"), ("ticket", "ticket"), ("reinit", "reinit")):
        values = [
            row.measures["test_accuracy_at_stop"]
            for row in verification.rows
            if row.replicate != RECORDED_RUN and (row.branch, row.level) == (branch, int(name != "dense"))
        ]
        assert len(values) == 5
        assert branches[name]["test_accuracy_at_stop"]["values"] == values
    assert len({row.run for row in verification.rows}) == len(verification.rows)


@pytest.mark.parametrize(
    ("ticket", "reinit", "state", "reason"),
    [
        ((0.9495, 200), (0.93, 440), "holds", ""),
        ((0.9485, 200), (0.93, 440), "does not hold", "less accurate"),
        ((0.9495, 460), (0.93, 440), "does not hold", "slower"),
        ((0.9495, 420), (0.93, 440), "cannot tell", "early stop"),
        (None, (0.93, 440), "does not hold", "5 of 5 diverged"),
        ((0.9495, 200), (0.9495, 200), "cannot tell", "no better than reinit"),
        ((0.9495, 200), (0.97, 180), "does not hold", "worse than reinit"),
    ],
)
def test_the_margins_and_other_initial_weights_decide(
    strict: Verification, ticket: tuple[float, int] | None, reinit: tuple[float, int], state: str, reason: str
) -> None:
    results = {"dense": (0.95, 400), "ticket": ticket, "reinit": reinit}
    summary = with_results(strict, lambda branch, repeat: results[branch])  # noqa: ARG005
    assert (summary.state, summary.verdict.reason) == (state, reason)


def test_one_diverged_repeat_fails_the_claim(strict: Verification) -> None:
    summary = with_results(strict, lambda branch, repeat: None if (branch, repeat) == ("ticket", 2) else (0.95, 200))
    assert (summary.state, summary.verdict.reason) == ("does not hold", "1 of 5 diverged")
    assert len(summary.branches["ticket"]["stop_iteration"].values) == 4


WIDE: dict[str, Any] = {"margin": 0.99, "stop_margin": 1e308, "confidence": 0.51, "max_density": 0.99}


def test_only_narrower_margins_than_those_of_built_in_recipes_are_accepted(
    verification: Verification, strict: Verification
) -> None:
    assert accepted_criteria(VerdictSection(**WIDE, control="random")) == WIDEST_CRITERIA
    narrow = {"margin": 0.0, "stop_margin": 0.01, "confidence": 0.99, "max_density": 0.2}
    assert accepted_criteria(VerdictSection(**narrow)) == VerdictSection(**narrow)
    wide = with_criteria(verification, VerdictSection(**WIDE))
    worse = {"dense": (0.95, 400), "ticket": (0.90, 450), "reinit": (0.85, 460)}
    summary = with_results(wide, lambda branch, repeat: worse[branch])  # noqa: ARG005
    assert (summary.state, summary.own_state) == ("does not hold", "holds")
    assert summary.criteria == WIDEST_CRITERIA
    assert summary.own_criteria == VerdictSection(**WIDE)
    for part in ("1 point", "99 points", "5%"):
        assert part in verification_conclusion(summary)
    assert json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert strict.build_summary().criteria.margin.value == 0.001
    assert strict.build_summary().own_state is None


def check(*arguments: str) -> Result:
    return tombola("ticket", "check", *arguments, "--workers", "1")


def test_a_claim_that_holds(plain: Path, verification: Verification) -> None:
    result = check(str(plain), "--repeats", "5")
    assert result.exit_code == 0, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert text.startswith("The claim holds")
    assert "17 of 17 runs came from the store" in text  # the fixture `verification` filled it
    assert "0 runs trained, 17 from the store." in text
    document = json.loads(check(str(plain), "--repeats", "5", "--json").stdout)
    assert document.pop("answer").startswith("The claim holds")
    expected = json.loads(json.dumps(verification.summary()))
    for names in ("runs", "reproduced"):
        assert document.pop(names) != expected.pop(names)
    assert document == expected


@pytest.mark.parametrize(("ticket", "exit_code"), [((0.9, 300), 0), ((0.7, 300), 1), ((0.9, 490), 1)])
def test_the_exit_status_is_1_unless_the_ticket_wins(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ticket: tuple[float, int], exit_code: int
) -> None:
    monkeypatch.setitem(RESULTS, "ticket", ticket)
    result = check(str(plain), "--repeats", "5", "--store", str(tmp_path))
    assert result.exit_code == exit_code
    assert result.stdout.startswith("The claim holds") == (exit_code == 0)


def test_a_false_figure_is_named(plain: Path, verification: Verification, tmp_path: Path) -> None:
    file = with_provenance(plain, tmp_path, set_in("measures", "test_accuracy_at_stop", value=0.999))
    result = check(str(file), "--repeats", "5", "--store", str(verification.store))
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert text.startswith("The claim does not hold")
    assert "99.90%" in text


def test_too_few_repeats_cannot_tell(plain: Path) -> None:
    result = check(str(plain), "--repeats", "1", "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert (summary["state"], summary["verdict"]["reason"]) == ("cannot tell", "too few replicates")


def test_an_invalid_file_has_exit_status_2(plain: Path, tmp_path: Path) -> None:
    assert check(str(tmp_path / "none.safetensors")).exit_code == 2
    assert check(str(with_provenance(plain, tmp_path, set_in("key", value="0")))).exit_code == 2
