"""Metric: what a verdict judges, such as test accuracy or validation loss at early stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """The metric that is judged."""

    name: str
    """As in the figures of `Measures`: `accuracy`, `loss`."""
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

    def errors(self, values: Iterable[float | None]) -> list[float] | None:
        """How bad values are: lower is better. Of accuracies, 1 minus them; otherwise the values, with the other sign
        if higher is better. None if some are missing."""
        found = [*values]
        known = [value for value in found if value is not None]
        if len(known) < len(found):
            return None
        return [1 - value if self.fraction and self.maximize else -self.sign * value for value in known]

    @property
    def worse(self) -> str:
        """In words."""
        return "less accurate" if self.name == "accuracy" and self.maximize else f"worse in {self.name}"


ACCURACY = Metric("accuracy", fraction=True)
"""What recipes judge."""

VALIDATION_ACCURACY = replace(ACCURACY, split="validation")
"""By what they choose."""
