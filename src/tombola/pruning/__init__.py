"""Pruning: masks, and the scores, scopes and structures that decide what they keep."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

_MOVED = {"Density": "options", "Pruner": "pruner", "prune": "prune_model"}
"""What this package had when it was a module, and where it is now."""


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = f"{__name__}.{_MOVED[name]}"
    warnings.warn(f"{__name__}.{name} is deprecated: use {module}.{name}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(module), name)
