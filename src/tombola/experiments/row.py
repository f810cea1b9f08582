"""Row: what came of one run, where in the experiment it stands; one line of the table of levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tombola.runs.outcome import Measures


@dataclass(frozen=True)
class Row:
    """One replicate x level x branch x draw."""

    replicate: int
    level: int
    branch: str
    draw: int
    weights: int
    """How many prunable weights are left."""
    weights_total: int
    """How many the dense network has."""
    run: str
    """The run's key in the store."""
    measures: Measures

    @property
    def weights_left(self) -> float:
        """The fraction of weights left."""
        return self.weights / self.weights_total

    def to_dict(self) -> dict[str, Any]:
        """Flat: the measures' names beside the others."""
        own = {name: getattr(self, name) for name in PLACE}
        return own | self.measures.model_dump()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Row:
        """Read back what `to_dict` gave."""
        own = {name: values[name] for name in PLACE}
        return cls(**own, measures=Measures(**{name: values[name] for name in Measures.model_fields}))


PLACE = ("replicate", "level", "branch", "draw", "weights", "weights_total", "run")
