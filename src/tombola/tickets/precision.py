"""The precisions of the trained weights in a ticket file."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "none"]
