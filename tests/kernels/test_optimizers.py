from __future__ import annotations

import numpy as np
import pytest

from tombola.kernels.optimizers import step_sizes, update
from tombola.kernels.training.tables import Options, TrainingWeights


@pytest.mark.parametrize("adam", [True, False])
def test_moments_without_gradients_become_zero_and_not_subnormal(adam: bool) -> None:
    options = Options(adam, momentum=0.9, nesterov=False, weight_decay=0.0, noise=0, begin=0)
    arrays = [np.full(16, value, np.float32) for value in (1, 0, 1e-25, 1e-25)]
    weights = TrainingWeights(*arrays, means=np.empty(0, np.float32), variances=np.empty(0, np.float32))
    for count in range(1, 1000):
        update(weights, weights.gradients, 0, options, step_sizes(options, 1e-3, count), 0.0, 0, 16)
        assert not ((weights.first != 0) & (weights.first < np.finfo(np.float32).tiny)).any()
    assert not weights.first.any()
