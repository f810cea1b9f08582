from __future__ import annotations

import torch

from tests.pruning.scores.helpers import grounds
from tombola.pruning.scores.weights import magnitude, random, small_final


def test_magnitude_is_the_absolute_value() -> None:
    assert magnitude(grounds(a=torch.tensor([-2.0, 0.0, 1.0])))["a"].tolist() == [2.0, 0.0, 1.0]


def test_small_final_is_the_opposite_of_magnitude() -> None:
    assert small_final(grounds(a=torch.tensor([-2.0, 0.5, 1.0])))["a"].tolist() == [-2.0, -0.5, -1.0]


def test_random_scores_come_from_the_seed_and_from_nothing_else() -> None:
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    first = random(grounds(seed=1, **weights))
    torch.manual_seed(99)
    again, other = random(grounds(seed=1, **weights)), random(grounds(seed=2, **weights))
    for name in weights:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].shape == weights[name].shape
