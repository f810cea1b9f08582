from __future__ import annotations

import torch

from tombola.scores import SCORES, magnitude, random


def test_magnitude_is_the_absolute_value() -> None:
    assert magnitude({"a": torch.tensor([-2.0, 0.0, 1.0])}, 0)["a"].tolist() == [2.0, 0.0, 1.0]


def test_random_scores_come_from_the_seed_and_from_nothing_else() -> None:
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    first = random(weights, 1)
    torch.manual_seed(99)
    again, other = random(weights, 1), random(weights, 2)
    for name in weights:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].shape == weights[name].shape


def test_scores_are_listed_by_name() -> None:
    assert {"magnitude": magnitude, "random": random} == SCORES
