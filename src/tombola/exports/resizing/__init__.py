"""Resizing: the one place that makes modules smaller, and says so in their attributes."""

from __future__ import annotations

from tombola.exports.resizing.kept import Kept, resize
from tombola.exports.resizing.loading import load_resized
from tombola.exports.resizing.tensors import replace_tensors

__all__ = ["Kept", "load_resized", "replace_tensors", "resize"]
