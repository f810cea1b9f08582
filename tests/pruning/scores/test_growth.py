from __future__ import annotations

import torch

from tests.pruning.scores.helpers import NETWORKS, examples, of_network
from tombola.pruning.scores.gradients import snip
from tombola.pruning.scores.growth import gradient


def test_it_is_the_gradient_of_one_batch_also_of_frozen_weights() -> None:
    make, shape = NETWORKS["linear"]
    network, batches = make().requires_grad_(False), examples(shape)
    found, weights = gradient(of_network(network, batches)), dict(network.named_parameters())
    for name, sensitivity in snip(of_network(network, batches[:1])).items():
        torch.testing.assert_close(found[name] * weights[name].abs(), sensitivity)
