"""What computes here."""

from __future__ import annotations

from importlib import metadata


def versions() -> dict[str, str]:
    """What computes here: tombola and the libraries that results depend on."""
    return {name: metadata.version(name) for name in ("tombola", "torch", "numpy")}
