"""Random states, global ones and those of generators: set for a while, and restored.

Global random states are shared by all threads, so only one thread at a time is in a block that changes them.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch

RandomGenerator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random


_IN_USE = threading.RLock()


@contextmanager
def preserve_rng_state(devices: Iterable[torch.device | int] = ()) -> Iterator[None]:
    """Within it, torch's global random state, on the CPU and on these CUDA devices, can be changed; it is restored at
    the end. Other threads wait with theirs."""
    with _IN_USE, torch.random.fork_rng(devices=list(devices)):
        yield


@contextmanager
def seeded(seed: int, generators: Iterable[RandomGenerator] = ()) -> Iterator[None]:
    """Within it, the global random states of Python, NumPy and torch, and `generators`, start at `seed`; the previous
    ones are restored at the end. Other threads wait with theirs."""
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with _IN_USE, ExitStack() as restored:
        # GPUs start at torch's seed when they are first used; this is called last, for that seed.
        if _has_gpus() and not initialized:
            restored.callback(lambda: torch.cuda.manual_seed_all(torch.initial_seed()))
        if torch.backends.mps.is_available():
            restored.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        restored.enter_context(preserve_rng_state(range(torch.cuda.device_count()) if initialized else ()))
        restored.callback(random.setstate, random.getstate())
        restored.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - a user's code may draw from it
        for generator in generators:
            restored.callback(_reseed(generator, seed))
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if _has_gpus():
            torch.manual_seed(seed)
        else:  # torch would keep a traceback of each call for a GPU
            torch.default_generator.manual_seed(seed)
            if torch.backends.mps.is_available():
                torch.mps.manual_seed(seed)
        yield


def _has_gpus() -> bool:
    return torch.cuda.device_count() > 0 or torch.xpu.is_available()


def _reseed(generator: RandomGenerator, seed: int) -> Callable[[], object]:
    """Start the generator at `seed`. Returns a function that restores its state."""
    restore: Callable[[], object]
    if isinstance(generator, torch.Generator):
        restore = partial(generator.set_state, generator.get_state())
        generator.manual_seed(seed)
    elif isinstance(generator, random.Random):
        restore = partial(generator.setstate, generator.getstate())
        generator.seed(seed)
    elif isinstance(generator, np.random.RandomState):
        restore = partial(generator.set_state, generator.get_state(legacy=False))
        kind = type(generator._bit_generator)
        generator.set_state(np.random.RandomState(kind(seed % 2**32)).get_state(legacy=False))
    else:
        bits = generator.bit_generator
        restore = partial(setattr, bits, "state", bits.state)
        bits.state = type(bits)(seed).state
    return restore
