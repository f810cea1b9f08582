"""The seed decides which batches scores see, and random states are restored."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.classifier import classifier, data
from tests.support.errors import raises_input_error
from tombola.pruning.mask import Mask
from tombola.pruning.prune_model import prune
from tombola.pruning.scores.inputs import generators


class Loader:
    """Batches in an order that is drawn anew each time."""

    def __iter__(self) -> Any:
        shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()[0]), 2, shuffle=True)
        return iter([next(iter(shuffled))])


class Noisy(torch.utils.data.Dataset[Any]):
    """Adds noise from a generator of its own."""

    def __init__(self, rng: Any) -> None:
        self.rng = rng

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        x, y = data()[0]
        noise = (
            torch.randn(x[0].shape, generator=self.rng)
            if isinstance(self.rng, torch.Generator)
            else torch.tensor([self.rng.normal() for _ in range(x[0].numel())]).view(x[0].shape).float()
        )
        return x[index % len(x)] + noise, y[index % len(y)]


class Transformed(Noisy):
    """The generator is that of one of its transforms."""

    def __init__(self, rng: Any) -> None:
        self.transforms = [len, {"noise": Noisy(rng)}]

    def __getitem__(self, index: int) -> Any:
        return self.transforms[1]["noise"][index]  # type: ignore[index]


def own_generators() -> dict[str, Any]:
    """Batches from datasets with a generator of their own."""
    torch_rng, rng = torch.Generator().manual_seed(7), np.random.default_rng
    return {
        "torch": Noisy(torch_rng),
        "numpy": Noisy(rng(7)),
        "legacy": Noisy(np.random.RandomState(7)),
        "subset": torch.utils.data.Subset(Noisy(rng(7)), range(8)),
        "concatenated": torch.utils.data.ConcatDataset([Noisy(rng(7)), Noisy(rng(8))]),
        "transform": Transformed(rng(7)),
    }


@pytest.mark.parametrize("kind", own_generators())
def test_generators_of_datasets_start_at_the_seed_and_are_restored(kind: str) -> None:
    dataset, unused = own_generators()[kind], own_generators()[kind]
    batches = torch.utils.data.DataLoader(dataset, 4)
    masks = [prune(classifier(), 0.3, score="snip", scope="global", data=batches, seed=s) for s in (0, 0, 1)]
    assert masks[0] == masks[1] != masks[2]
    assert torch.equal(dataset[0][0], unused[0][0])


def test_long_lists_of_examples_are_not_searched_and_cycles_end() -> None:
    noisy = Noisy(np.random.default_rng(7))
    noisy.itself = [noisy]  # type: ignore[attr-defined]
    assert generators(noisy) == [noisy.rng]
    assert generators([noisy] * 1000) == []
    assert generators([random.SystemRandom(), np.random, nn.Linear]) == []


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
