from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tombola.utils import random_state
from tombola.utils.random_state import RandomGenerator, seeded
from tombola.zoo.models import build
from tombola.zoo.models.description import Network, Start

NETWORK = Network(name="mlp", options={"widths": [20, 10]}, inputs=(8, 8), classes=10)


def draw(generator: torch.Generator) -> tuple[float, ...]:
    found = random.random(), np.random.rand(), torch.rand(()), torch.rand((), generator=generator)  # noqa: NPY002
    return tuple(map(float, found))


def test_all_states_start_at_the_seed_and_are_restored() -> None:
    generator = torch.Generator().manual_seed(9)
    states = random.getstate(), torch.get_rng_state(), generator.get_state()
    numpy = np.random.get_state()[1]  # noqa: NPY002
    found = []
    for seed in (1, 1, 2**63 - 1):
        with seeded(seed, [generator]):
            found.append(draw(generator))
    assert found[0] == found[1]
    assert not {*found[0]} & {*found[2]}
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert torch.equal(generator.get_state(), states[2])
    assert np.array_equal(np.random.get_state()[1], numpy)  # noqa: NPY002


def test_states_are_restored_after_an_error() -> None:
    generator = torch.Generator()
    before = generator.get_state(), torch.get_rng_state()
    with pytest.raises(KeyError), seeded(1, [generator]):
        raise KeyError
    assert torch.equal(generator.get_state(), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


KINDS: dict[str, Callable[[], RandomGenerator]] = {
    "numpy": lambda: np.random.default_rng(3),
    "other bits": lambda: np.random.Generator(np.random.Philox(3)),
    "legacy": lambda: np.random.RandomState(3),
    "legacy, other bits": lambda: np.random.RandomState(np.random.PCG64(3)),
    "python": lambda: random.Random(3),
    "torch": lambda: torch.Generator().manual_seed(3),
}


def numbers(generator: RandomGenerator) -> list[float]:
    if isinstance(generator, torch.Generator):
        return torch.randn(3, generator=generator).tolist()
    normal = generator.gauss if isinstance(generator, random.Random) else generator.normal
    return [float(normal(0, 1)) for _ in range(3)]  # an odd number: some keep every second for the next call


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [None, KeyError()])
def test_generators_of_every_kind_start_at_the_seed_and_are_restored(kind: str, error: Exception | None) -> None:
    generator, other = KINDS[kind](), KINDS[kind]()
    assert numbers(generator) == numbers(other)
    found = []
    for seed in (1, 1, 2**63 - 1):
        with contextlib.suppress(KeyError), seeded(seed, [generator]):
            found.append(numbers(generator))
            if error:
                raise error
    assert found[0] == found[1] != found[2]
    assert numbers(generator) == numbers(other)


def test_only_one_thread_at_a_time_has_the_global_random_state() -> None:
    expected = build(Start(network=NETWORK, seed=0)).state_dict()
    stop = threading.Event()

    def draw() -> None:
        while not stop.is_set():
            with seeded(1):
                torch.rand(100)

    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        for _ in range(200):
            built = build(Start(network=NETWORK, seed=0)).state_dict()
            assert all(torch.equal(tensor, expected[name]) for name, tensor in built.items())
    finally:
        stop.set()
        drawing.join()


def test_nothing_else_changes_the_global_random_state() -> None:
    """A block without the lock would disturb the initial weights that another thread draws."""
    source = Path(random_state.__file__).parent.parent
    using = {path.name for path in source.rglob("*.py") if "fork_rng" in path.read_text(encoding="utf-8")}
    assert using == {"random_state.py"}


def test_without_a_gpu_nothing_is_kept_of_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    kept = len(torch.cuda._queued_calls)
    with seeded(5):
        drawn = torch.rand(3)
    assert len(torch.cuda._queued_calls) == kept
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)


def test_gpus_that_are_used_later_start_at_the_seed_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with seeded(5):
        with seeded(6):
            assert seeds[-1:] == [6]
        assert seeds[-1:] == [5]
