"""Checked: what came of a check, and what that says of the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second longer to import

from tombola.evidence.summary import summarise
from tombola.evidence.verdict import FEWEST_REPLICATES
from tombola.outcome import Measures
from tombola.recipe import Recipe
from tombola.record import Claim
from tombola.results import Results, Tally
from tombola.sections import ControlSection
from tombola.table import Row

LEAST_TOLERANCE = 0.01
"""A test accuracy at early stop this near to the recorded one, as a fraction of the examples, always counts as it."""

SURE = 0.99
"""How sure it must be that a figure that did not come again is not another draw of the same; see `tolerance`."""

RECORDED = 0
"""The repeat that is the recorded run."""

Answer = Literal["holds", "does not hold", "cannot tell"]


def tolerance(values: Sequence[float]) -> float:
    """How far a test accuracy may be from the recorded one and still be called reproduced, after other orders of
    batches gave these `values`.

    Other machines, engines and versions round otherwise, and trainings amplify that until they are as far apart as
    trainings in another order. So two such are allowed the difference of two draws: Student's t.
    """
    if len(values) < FEWEST_REPLICATES:
        return LEAST_TOLERANCE
    spread = float(np.std(values, ddof=1)) * 2**0.5
    return max(LEAST_TOLERANCE, float(stdtrit(len(values) - 1, (1 + SURE) / 2)) * spread)


@dataclass(frozen=True)
class Figures:
    """What the record says of a run, and what came of it here."""

    recorded: Measures
    here: Measures
    tolerance: float
    """How far apart, in test accuracy at early stop, they may be by rounding."""

    @property
    def difference(self) -> float | None:
        """Of test accuracy at early stop, here minus recorded; None where it diverged."""
        here, recorded = self.here.test_accuracy_at_stop, self.recorded.test_accuracy_at_stop
        return None if here is None or recorded is None else here - recorded

    @property
    def exact(self) -> bool:
        """Whether every figure is the same to the bit."""
        return self.here == self.recorded

    @property
    def reproduced(self) -> bool:
        """Whether they are the same but for rounding."""
        return self.exact or (self.difference is not None and abs(self.difference) <= self.tolerance)


@dataclass(frozen=True)
class Checked:
    """What came of a check."""

    claim: Claim
    repeats: int
    reinit: int
    seed: int
    rows: list[Row]
    """Replicate 0 is the recorded run, those after it are the repeats."""
    tally: Tally
    remembered: bool
    """The recorded run was in the store, and was not trained now."""
    engines: dict[str, int]
    """How many of the runs each engine trained."""
    trained_apart: float | None
    """How far the trained weights in the file are from those that the recorded run ends with here, relative to their
    length; None where there are none in the file."""

    @property
    def reproduced(self) -> dict[str, Figures]:
        """Of `ticket` and, where the record has it, `dense`."""
        level, record = self.claim.record.level, self.claim.record
        found = {"ticket": self._figures(level, record.measures)}
        return found if record.dense is None else found | {"dense": self._figures(0, record.dense)}

    def _figures(self, level: int, recorded: Measures) -> Figures:
        by_repeat = {r.replicate: r.measures for r in self.rows if (r.branch, r.level) == ("ticket", level)}
        others = [of.test_accuracy_at_stop for repeat, of in by_repeat.items() if repeat != RECORDED]
        return Figures(recorded, by_repeat[RECORDED], tolerance([value for value in others if value is not None]))

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON values. Accuracies are fractions."""
        claim, figures = self.claim, self.reproduced
        judged = summarise(Results(self._recipe, [r for r in self.rows if r.replicate != RECORDED], True, self.tally))
        dense, level = judged["levels"]
        return {
            "file": str(claim.path),
            "recipe": claim.recipe.name,
            **{name: getattr(claim.record, name) for name in ("replicate", "level", "key")},
            **{name: level[name] for name in ("weights", "weights_left")},
            "weights_total": claim.ticket.mask.size,
            "state": self._state(level["verdict"]),
            "repeats": self.repeats,
            "reinit": self.reinit,
            "seed": self.seed,
            "criteria": judged["criteria"],
            "branches": {"dense": dense["branches"]["ticket"], **level["branches"]},
            "verdict": level["verdict"],
            "late": judged["late"],
            "reproduced": {
                "all": all(of.reproduced for of in figures.values()),
                "exact": all(of.exact for of in figures.values()),
                "remembered": self.remembered,
                "trained_apart": self.trained_apart,
                "versions": claim.record.versions,
                **{name: _shown(of) for name, of in figures.items()},
            },
            "runs": asdict(self.tally),
            "engines": self.engines,
        }

    @property
    def holds(self) -> bool:
        """Whether the recorded figures were reproduced and the repeats win."""
        return bool(self.summary()["state"] == "holds")

    def _state(self, verdict: dict[str, Any]) -> Answer:
        reproduced = self.repeats < FEWEST_REPLICATES or all(of.reproduced for of in self.reproduced.values())
        if verdict["state"] == "not winning" or not reproduced:
            return "does not hold"
        return "holds" if verdict["winning"] else "cannot tell"

    @property
    def _recipe(self) -> Recipe:
        """The ticket's, as if the repeats were replicates of an experiment with this one level and this control."""
        recipe, level = self.claim.recipe, self.claim.record.level
        controls = {"reinit": ControlSection(draws=self.reinit, levels=[level])} if self.reinit else {}
        judged = {"verdict": recipe.verdict.model_copy(update={"beat": "reinit"}), "controls": controls}
        alone = {"replicates": self.repeats, "stability": None, "transfer": None}
        return recipe.model_copy(update=judged | alone)


def _shown(figures: Figures) -> dict[str, Any]:
    both = {"recorded": figures.recorded.model_dump(), "here": figures.here.model_dump()}
    judged = {name: getattr(figures, name) for name in ("difference", "tolerance", "exact", "reproduced")}
    return both | judged
