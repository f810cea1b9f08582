from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tombola.engines.lr_schedule import learning_rates
from tombola.runs.training import Training

STEPS = {"schedule": "step", "milestones": ["6it", "9it"]}


def training(**options: object) -> Training:
    return Training(optimizer="sgd", lr=0.1, batch_size=10, length="12it", **options)  # type: ignore[arg-type]


def test_constant_is_constant() -> None:
    assert learning_rates(training(), 0, 12).tolist() == [0.1] * 12


def test_steps_come_at_the_milestones() -> None:
    rates = learning_rates(training(**STEPS), 0, 12)
    assert rates.tolist() == pytest.approx([0.1] * 6 + [0.01] * 3 + [0.001] * 3)
    assert learning_rates(training(**STEPS, decay=0.5), 9, 1).tolist() == [0.025]


def test_a_cosine_falls_to_almost_nothing() -> None:
    rates = learning_rates(training(schedule="cosine"), 0, 12)
    assert rates[0] == 0.1
    assert rates[6] == pytest.approx(0.05)
    assert (np.diff(rates) < 0).all()
    assert 0 < rates[-1] < 0.002


def test_a_warm_up_grows_in_equal_steps_to_the_whole_rate() -> None:
    rates = learning_rates(training(**STEPS, warmup="4it"), 0, 12)
    assert rates[:4].tolist() == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4:].tolist() == pytest.approx([0.1] * 2 + [0.01] * 3 + [0.001] * 3)
    cosine = learning_rates(training(schedule="cosine", warmup="4it"), 0, 12)
    assert cosine[4] == 0.1
    assert cosine[8] == pytest.approx(0.05)


def test_past_the_end_the_last_rate_stays() -> None:
    assert learning_rates(training(**STEPS), 10, 6).tolist() == pytest.approx([0.001] * 6)
    cosine = learning_rates(training(schedule="cosine"), 11, 3)
    assert len(set(cosine.tolist())) == 1


@given(
    schedule=st.sampled_from([{}, {"schedule": "cosine"}, STEPS]),
    warmup=st.integers(0, 11),
    first=st.integers(0, 20),
    count=st.integers(0, 20),
)
def test_any_stretch_is_part_of_the_whole(schedule: dict[str, object], warmup: int, first: int, count: int) -> None:
    options = training(**schedule, warmup=f"{warmup}it")
    whole = learning_rates(options, 0, 40)
    assert learning_rates(options, first, count).tolist() == whole[first : first + count].tolist()


def test_it_agrees_with_torchs_own_schedulers() -> None:
    for ours, make in (
        (STEPS, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [6, 9], 0.1)),
        ({"schedule": "cosine"}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 12)),
    ):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        scheduler = make(optimizer)
        theirs = []
        for _ in range(12):
            theirs.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert learning_rates(training(**ours), 0, 12).tolist() == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "step"}, "go with schedule"),
        ({"milestones": ["3it"]}, "go with schedule"),
        ({"nesterov": True}, "a momentum"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training(**options)


def test_epochs_become_iterations_and_have_to_be_in_order() -> None:
    options = training(schedule="step", milestones=["1ep", "1ep1it"], warmup="1ep").in_iterations(20)
    assert [m.iterations for m in options.milestones] == [2, 3]
    assert options.warmup.iterations == 2
    with pytest.raises(ValueError, match="in order, between 0it and the length, 12it, not 9it, 6it"):
        training(schedule="step", milestones=["9it", "6it"]).in_iterations(20)
    with pytest.raises(ValueError, match="warmup: should be shorter than the length, 12it, not 6ep"):
        training(warmup="6ep").in_iterations(20)
