"""Metric: what a verdict judges, such as test accuracy or validation loss at early stop."""

from __future__ import annotations

from dataclasses import dataclass
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

    @property
    def worse(self) -> str:
        """In words."""
        return "less accurate" if self.name == "accuracy" else f"worse in {self.name}"


ACCURACY = Metric("accuracy", fraction=True)
"""What recipes judge."""
