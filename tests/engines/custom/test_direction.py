from __future__ import annotations

from typing import Any

import pytest

from tests.support.errors import raises_input_error
from tombola.engines.custom.direction import check_direction, is_valid, lower_is_better


@pytest.mark.parametrize(
    ("minimize", "lower"),
    [
        (True, True),
        (False, False),
        ("loss", True),
        ("accuracy", False),
        (["a", "loss"], True),
        ({"a"}, False),
        ([], False),
    ],
)
def test_minimize_is_a_choice_or_names(minimize: Any, lower: bool) -> None:
    assert is_valid(minimize)
    assert lower_is_better("loss", minimize) == lower


@pytest.mark.parametrize("minimize", [1, 0.5, ["loss", 1], len])
def test_other_values_are_invalid(minimize: Any) -> None:
    assert not is_valid(minimize)


@pytest.mark.parametrize(
    "name", ["loss", "Loss", "val_loss", "valLoss", "test/error", "error rate", "perplexity", "MSE"]
)
def test_a_name_of_a_loss_without_minimize_is_a_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    check_direction({name: 0.1, "other": 1}, False)
    (message,) = caplog.messages
    assert name in message
    assert "minimize" in message
    check_direction({name: 0.1}, True)
    check_direction({name: 0.1}, name)
    check_direction({name: -0.1}, False)  # it is negated already
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "name",
    ["accuracy", "minus loss", "neg_log_loss", "-loss", "1 - error", "glossary", "figure", "terror", "lossless"],
)
def test_other_names_are_not(name: str, caplog: pytest.LogCaptureFixture) -> None:
    check_direction({name: 0.1, "loss": 1}, False)
    assert not caplog.messages


@pytest.mark.parametrize("minimize", ["los", ["loss", "los"]])
def test_unknown_names_are_refused(minimize: Any) -> None:
    with raises_input_error("minimize", '"los"', '"loss"?'):
        check_direction({"loss": 1.0, "accuracy": 1.0}, minimize)
    check_direction({"loss": 1.0}, "loss")


@pytest.mark.parametrize(
    "name", ["cross_entropy", "bce", "neg_log_likelihood", "valCE", "brier", "rmsle", "kl_divergence"]
)
def test_lower_is_better_by_name(name: str) -> None:
    assert lower_is_better(name, None)


@pytest.mark.parametrize("name", ["log_likelihood", "entropy", "f1", "R2", "negative cross entropy", "force"])
def test_higher_is_better_by_name(name: str) -> None:
    assert not lower_is_better(name, None)


def test_a_choice_is_about_the_first_figure_of_a_function() -> None:
    assert lower_is_better("energy", True, first=True)
    assert not lower_is_better("accuracy", True, first=False)
    assert lower_is_better("loss", False, first=False)


def test_minimizing_an_accuracy_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    check_direction({"val_accuracy": 0.5}, True)
    assert "val_accuracy" in caplog.text
