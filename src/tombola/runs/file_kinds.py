"""The kinds of files that a store has."""

from __future__ import annotations

KINDS = ("outcomes", "checkpoints", "damaged", "leftovers")
