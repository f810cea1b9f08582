"""Metric: what a verdict judges, such as test accuracy or validation loss at early stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """The metric that is judged."""

    name: str
    """The name of the figure in `Measures`: `accuracy`, `loss`."""
    split: Literal["test", "validation"] = "test"
    """The examples that it is measured on."""
    maximize: bool = True
    """Whether higher is better."""
    fraction: bool = False
    """Whether it is a fraction, shown in percent, with differences in points."""

    @property
    def at_stop(self) -> str:
        """The name of the figure at early stop."""
        return f"{self.split}_{self.name}_at_stop"

    @property
    def at_end(self) -> str:
        """The name of the figure at the end of training."""
        return f"{self.split}_{self.name}"

    @property
    def sign(self) -> int:
        """What the figure is multiplied by to make higher better."""
        return 1 if self.maximize else -1

    def bounds(self, low: float | None, high: float | None) -> tuple[float | None, float | None]:
        """The bounds of a difference in the metric, of which those of the gain, larger where better, are given."""
        if self.maximize:
            return low, high
        return None if high is None else -high, None if low is None else -low

    def errors(self, values: Iterable[float | None]) -> list[float] | None:
        """The values as errors, so that lower is better: 1 minus accuracy; for other metrics the values, with their
        sign changed if higher is better. None if some are missing."""
        found = [*values]
        known = [value for value in found if value is not None]
        if len(known) < len(found):
            return None
        return [1 - value if self.fraction and self.maximize else -self.sign * value for value in known]

    @property
    def worse(self) -> str:
        """The word for a worse value, such as "less accurate"."""
        return "less accurate" if self.name == "accuracy" and self.maximize else f"worse in {self.name}"


ACCURACY = Metric("accuracy", fraction=True)
"""The metric that recipes judge."""

VALIDATION_ACCURACY = replace(ACCURACY, split="validation")
"""The metric by which recipes choose."""
