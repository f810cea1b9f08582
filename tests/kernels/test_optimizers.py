from __future__ import annotations

import numpy as np
import pytest
import torch

from tombola.kernels.optimizers import step_sizes, update
from tombola.kernels.training.tables import Options, TrainingWeights


@pytest.mark.parametrize("adam", [True, False])
def test_moments_without_gradients_become_zero_and_not_subnormal(adam: bool) -> None:
    options = Options(adam, momentum=0.9, nesterov=False, weight_decay=0.0, decoupled=False, noise=0, begin=0)
    arrays = [np.full(16, value, np.float32) for value in (1, 0, 1e-25, 1e-25)]
    weights = TrainingWeights(*arrays, means=np.empty(0, np.float32), variances=np.empty(0, np.float32))
    for count in range(1, 1000):
        update(weights, weights.gradients, 0, options, step_sizes(options, 1e-3, count), 0.0, 0, 16)
        assert not ((weights.first != 0) & (weights.first < np.finfo(np.float32).tiny)).any()
    assert not weights.first.any()


@pytest.mark.parametrize("decoupled", [True, False])
def test_weight_decay_of_adam_is_that_of_torch(decoupled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, generator=generator)
    options = Options(True, 0.0, False, weight_decay=0.3, decoupled=decoupled, noise=0, begin=0)
    zeros = np.zeros(16, np.float32)
    arrays = weight.numpy().copy(), zeros.copy(), zeros.copy(), zeros.copy()
    weights = TrainingWeights(*arrays, means=zeros[:0], variances=zeros[:0])
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([weight], lr=0.01, weight_decay=0.3)
    for count in range(1, 8):
        weight.grad = torch.randn(16, generator=generator)
        weights.gradients[:] = weight.grad.numpy()
        update(weights, weights.gradients, 0, options, step_sizes(options, 0.01, count), 0.3, 0, 16)
        optimizer.step()
    np.testing.assert_allclose(weights.parameters, weight.numpy(), rtol=1e-5, atol=1e-6)
