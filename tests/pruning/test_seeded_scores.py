"""The seed decides which batches scores see, and random states are restored."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.classifier import classifier, data
from tests.support.errors import raises_input_error
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune


class Loader:
    """Batches in an order that is drawn anew each time."""

    def __iter__(self) -> Any:
        shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()[0]), 2, shuffle=True)
        return iter([next(iter(shuffled))])


def loaders() -> list[Any]:
    dataset = torch.utils.data.TensorDataset(*data()[0])
    generator = torch.Generator().manual_seed(5)
    sampler = torch.utils.data.RandomSampler(dataset, generator=generator, num_samples=2)
    return [
        torch.utils.data.DataLoader(dataset, 2, sampler=sampler),
        torch.utils.data.DataLoader(dataset, 4, shuffle=True, drop_last=True, generator=generator),
        Loader(),
        ((x + torch.rand(x.shape), y) for x, y in data()),
    ]


@pytest.mark.parametrize("index", range(4))
def test_the_seed_decides_which_batches_are_drawn(index: int) -> None:
    def masks(seed: int) -> list[Mask]:
        return [
            prune(classifier(), 0.3, score="snip", scope="global", data=loaders()[index], seed=seed),
            prune(classifier(), 0.3, score="snip", scope="global", data=after_use(loaders()[index]), seed=seed),
        ]

    def after_use(loader: Any) -> Any:
        torch.rand(3)  # another global random state
        if hasattr(loader, "batch_size"):
            list(loader)  # another state of the loader's generator
        return loader

    one, again = masks(0)
    assert one == again
    assert masks(1)[0] != one


def test_random_states_are_restored() -> None:
    generator = torch.Generator().manual_seed(5)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data()[0]), 2, shuffle=True, generator=generator
    )
    network = classifier()
    before = torch.get_rng_state(), generator.get_state()
    prune(network, 0.5, score="snip", data=loader)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(generator.get_state(), before[1])


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_invalid_seeds_are_refused(seed: Any) -> None:
    with raises_input_error("seed:", repr(seed)):
        prune(classifier(), 0.5, seed=seed)
