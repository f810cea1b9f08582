"""A test set for data that comes without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tombola.utils.errors import InputError
from tombola.zoo.datasets.dataset import Array

FRACTION = 0.2


def hold_out(where: str, labels: Array, digests: Sequence[bytes]) -> tuple[Array, str]:
    """Which examples are the test set, bool of shape (examples,); and a line that says so.

    They are a fifth of each class: those whose digest, a hash of their content, comes first. So the test set is
    always the same, whatever the order and the names of files. Raises `InputError` if no class has two examples.
    """
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda index: (digests[index], index))
        test[members[: min(len(members) - 1, max(1, round(FRACTION * len(members))))]] = True
    if not test.any():
        raise InputError(
            f"{where}: no class has two examples, one to train on and one to test; are the labels classes?"
        )
    return (
        test,
        f"there is no separate test set: {test.sum():,} of {len(labels):,} examples are held out, always the same",
    )
