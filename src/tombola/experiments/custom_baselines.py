"""Other training functions for the dense network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.engines.custom.engine import TrainFunction
from tombola.experiments.custom_config import import_path
from tombola.utils.errors import InputError

Baselines = Sequence[TrainFunction] | Mapping[str, TrainFunction]
"""Training functions, as a sequence or by the names that tables show."""


def by_label(train: TrainFunction, baselines: Baselines) -> dict[str, TrainFunction]:
    """Training functions by labels that differ from each other and from that of `train`. Raises `InputError` for
    anything else."""
    if isinstance(baselines, Mapping):
        labelled = {str(name): function for name, function in baselines.items()}
    elif isinstance(baselines, Sequence):
        labelled = {}
        for function in baselines:
            label, alike = import_path(function), 1
            while (numbered := f"{label} ({alike})" if alike > 1 else label) in {import_path(train), *labelled}:
                alike += 1
            labelled[numbered] = function
    else:
        raise InputError(f"baselines: should be a list of training functions, not {baselines!r}")
    for function in labelled.values():
        if not callable(function):
            raise InputError(f"baselines: should be functions that train a network, not {function!r}")
    return labelled
