from __future__ import annotations

import pytest
import torch

from tombola.pruning.mask import Mask
from tombola.pruning.random_mask import random_mask

DENSE = Mask({"one": torch.ones(20, 10, dtype=torch.bool), "two": torch.ones(5, 10, dtype=torch.bool)})


def test_counts_are_exact_in_each_group() -> None:
    mask = random_mask(DENSE, DENSE, {("one",): 70, ("two",): 3}, seed=1)
    assert mask.counts == {"one": 70, "two": 3}
    assert random_mask(DENSE, DENSE, {("one", "two"): 99}, seed=1).count == 99


def test_masks_of_one_seed_are_nested_whatever_they_are_compared_with() -> None:
    larger = random_mask(DENSE, DENSE, {("one",): 70}, seed=1)
    smaller = random_mask(larger, DENSE, {("one",): 30}, seed=1)
    assert smaller <= larger
    assert not random_mask(larger, DENSE, {("one",): 30}, seed=2) <= larger


def test_only_weights_of_the_dense_mask_are_kept() -> None:
    some = random_mask(DENSE, DENSE, {("one",): 70}, seed=3)
    assert random_mask(DENSE, some, {("one",): 30}, seed=1) <= some


@pytest.mark.parametrize("layer", ["one", "two"])
def test_other_layers_stay_as_they_are(layer: str) -> None:
    mask = random_mask(DENSE, DENSE, {(layer,): 5}, seed=1)
    (other,) = {*DENSE} - {layer}
    assert mask[other].all()
