"""The kinds of files in a store."""

from __future__ import annotations

KINDS = ("outcomes", "checkpoints", "damaged", "leftovers")
