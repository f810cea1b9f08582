"""Global random states: set for a while, and restored."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, generators: Iterable[torch.Generator] = ()) -> Iterator[None]:
    """Within it, the global random states of Python, NumPy and torch, and `generators`, start at `seed`; the previous
    ones are restored at the end."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - a user's code may draw from it
    others = [(generator, generator.get_state()) for generator in generators]
    on_gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=on_gpus):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        for generator, _ in others:
            generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            for generator, state in others:
                generator.set_state(state)
