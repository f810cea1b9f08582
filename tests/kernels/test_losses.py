from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tombola.kernels.losses import cross_entropy


@settings(deadline=None)
@given(
    classes=st.integers(1, 40),
    width=st.sampled_from([16, 32, 64]),
    missing=st.integers(0, 16),
    scale=st.sampled_from([1, 10, 100]),
    seed=st.integers(0, 999),
)
def test_losses_and_gradients_are_those_of_torch(
    classes: int, width: int, missing: int, scale: int, seed: int
) -> None:
    random, batch = np.random.default_rng(seed), width - missing
    logits = random.standard_normal((classes, width), np.float32) * scale
    logits[:, batch:] = np.nan
    labels, deltas = random.integers(0, classes, batch), np.full(classes * width, np.nan, np.float32)
    loss, correct = cross_entropy(logits.reshape(-1), labels, width, 100, deltas)
    theirs, targets = torch.tensor(logits[:, :batch].T, dtype=torch.float64, requires_grad=True), torch.tensor(labels)
    expected = functional.cross_entropy(theirs, targets, reduction="sum")
    (expected / 100).backward()  # type: ignore[no-untyped-call]
    assert theirs.grad is not None
    gradient = deltas.reshape(classes, width)
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    assert correct == (theirs.argmax(1) == targets).sum()
    np.testing.assert_allclose(gradient[:, :batch].T, theirs.grad.numpy(), rtol=1e-5, atol=1e-8)
    assert not gradient[:, batch:].any()


def test_the_first_of_equal_logits_wins() -> None:
    _, correct = cross_entropy(np.zeros(3 * 16, np.float32), np.array([0, 1, 2]), 16, 3, np.empty(48, np.float32))
    assert correct == 1


def test_a_logit_that_is_no_number_makes_the_loss_none() -> None:
    logits = np.zeros(3 * 16, np.float32)
    logits[16] = np.nan
    loss, _ = cross_entropy(logits, np.array([0, 1, 2]), 16, 3, np.empty(48, np.float32))
    assert np.isnan(loss)


@pytest.mark.parametrize(
    "row", [[np.nan, 1, np.nan], [1, np.nan, 2], [2, 1, np.nan], [np.nan] * 3, [np.inf, 1, np.inf], [1, np.inf, 2]]
)
def test_the_prediction_is_that_of_argmax(row: list[float]) -> None:
    logits = np.zeros((3, 16), np.float32)
    logits[:, 5] = row
    labels = np.zeros(16, np.int64)
    labels[:5] = labels[6:] = 1
    labels[5] = torch.tensor(row).argmax()
    _, correct = cross_entropy(logits.reshape(-1), labels, 16, 16, np.empty(48, np.float32))
    assert correct == 1
