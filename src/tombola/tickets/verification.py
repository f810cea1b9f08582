"""Checked: what came of a check, and what that says of the claim."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results, Tally
from tombola.experiments.row import Row
from tombola.experiments.sections import ControlSection, VerdictSection
from tombola.runs.outcome import Measures
from tombola.stats.summary import summarise
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.tickets.provenance import TicketClaim
from tombola.tickets.reproduction import FigureReproduction, WeightReproduction, tolerances

WIDEST = VerdictSection(accuracy_margin=0.01)
"""What a check allows at most: the widest margins of tombola's own recipes. A file could allow itself anything."""

RECORDED = 0
"""The repeat that is the recorded run."""

Answer = Literal["holds", "does not hold", "cannot tell"]


def judged_by(own: VerdictSection) -> VerdictSection:
    """What a check judges by: each of the file's own criteria that asks for no less than `WIDEST`, and `WIDEST` for
    the others. The control is `reinit`."""
    return VerdictSection(
        accuracy_margin=min(own.accuracy_margin, WIDEST.accuracy_margin),
        stop_margin=min(own.stop_margin, WIDEST.stop_margin),
        confidence=max(own.confidence, WIDEST.confidence),
        max_density=min(own.max_density, WIDEST.max_density),
    )


@dataclass(frozen=True)
class Verification:
    """What came of a check."""

    claim: TicketClaim
    repeats: int
    reinit: int
    seed: int
    rows: list[Row]
    """Replicate 0 is the recorded run, those after it are the repeats."""
    tally: Tally
    store: Path
    """What remembered the runs that were not trained now."""
    remembered: bool
    """The recorded run was in the store, and was not trained now."""
    engines: dict[str, int]
    """How many of the runs each engine trained."""
    trained: WeightReproduction | None
    """The trained weights in the file; None where there are none."""

    @property
    def reproduced(self) -> dict[str, FigureReproduction]:
        """Of `ticket` and, where the record has it, `dense`."""
        level, record = self.claim.record.level, self.claim.record
        found = {"ticket": self._figures(level, record.measures)}
        return found if record.dense is None else found | {"dense": self._figures(0, record.dense)}

    def _figures(self, level: int, recorded: Measures) -> FigureReproduction:
        by_repeat = {r.replicate: r.measures for r in self.rows if (r.branch, r.level) == ("ticket", level)}
        others = [measures for repeat, measures in by_repeat.items() if repeat != RECORDED]
        step = self.claim.dense.training.evaluate_every.iterations
        return FigureReproduction(recorded, by_repeat[RECORDED], tolerances(others, step))

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON values. Accuracies are fractions."""
        claim, figures, own = self.claim, self.reproduced, self.claim.recipe.verdict
        judged = self._judged(judged_by(own))
        dense, level = judged["levels"]
        failing = self._failing(level["verdict"])
        wider = judged["criteria"] != own.model_dump() | {"control": "reinit"}
        return {
            "file": str(claim.path),
            "recipe": claim.recipe.name,
            **{name: getattr(claim.record, name) for name in ("replicate", "level", "key")},
            **{name: level[name] for name in ("weights", "weights_left")},
            "weights_total": claim.ticket.mask.size,
            "rewound_to": claim.k,
            "iterations": claim.dense.last,
            "state": _state(level["verdict"], failing),
            "failing": failing,
            "repeats": self.repeats,
            "reinit": self.reinit,
            "seed": self.seed,
            "criteria": judged["criteria"],
            "own_criteria": own.model_dump(),
            "own_state": self._own_state() if wider else None,
            "branches": {"dense": dense["branches"]["ticket"], **level["branches"]},
            "verdict": level["verdict"],
            "late": judged["late"],
            "reproduced": {
                "all": all(of.reproduced for of in figures.values()) and self._weights_reproduced is not False,
                "exact": all(of.exact for of in figures.values()),
                "remembered": self.remembered,
                "trained_apart": self.trained and self.trained.apart,
                "trained": self.trained
                and {
                    **asdict(self.trained),
                    "recorded": claim.record.measures.test_accuracy,
                    "reproduced": self._weights_reproduced,
                },
                "versions": claim.record.versions,
                **{name: _shown(of) for name, of in figures.items()},
            },
            "runs": asdict(self.tally),
            "store": str(self.store),
            "engines": self.engines,
        }

    @property
    def holds(self) -> bool:
        """Whether what is recorded was reproduced and the repeats win."""
        return bool(self.summary()["state"] == "holds")

    def _failing(self, verdict: dict[str, Any]) -> str | None:
        """What is wrong with the claim: the figures of the `ticket` or the `dense` network, the `trained` weights, or
        the `verdict` on the repeats; None where nothing is."""
        if self.repeats >= FEWEST_REPLICATES:  # with fewer, nobody knows what rounding explains
            for name, figures in self.reproduced.items():
                if not figures.reproduced:
                    return name
        if self._weights_reproduced is False:
            return "trained"
        return "verdict" if verdict["state"] == "not winning" else None

    @property
    def _weights_reproduced(self) -> bool | None:
        """None where there are no trained weights."""
        if self.trained is None:
            return None
        return self.trained.reproduced(self.claim.record.measures, self.reproduced["ticket"].exact)

    def _own_state(self) -> Answer:
        """The answer by the file's own criteria, which may be as wide as numbers go."""
        with np.errstate(all="ignore"):
            verdict = self._judged(self.claim.recipe.verdict.model_copy(update={"control": "reinit"}))["levels"][1][
                "verdict"
            ]
        return _state(verdict, self._failing(verdict))

    def _judged(self, criteria: VerdictSection) -> dict[str, Any]:
        """The summary of the repeats, as if they were replicates of an experiment with this one level and this
        control."""
        recipe, level = self.claim.recipe, self.claim.record.level
        controls = {"reinit": ControlSection(draws=self.reinit, levels=[level])} if self.reinit else {}
        alone = {"replicates": self.repeats, "stability": None, "transfer": None}
        asked: Recipe = recipe.model_copy(update={"verdict": criteria, "controls": controls} | alone)
        return summarise(Results(asked, [r for r in self.rows if r.replicate != RECORDED], True, self.tally))


def _state(verdict: dict[str, Any], failing: str | None) -> Answer:
    if failing:
        return "does not hold"
    return "holds" if verdict["winning"] else "cannot tell"


def _shown(figures: FigureReproduction) -> dict[str, Any]:
    both = {"recorded": figures.recorded.model_dump(), "here": figures.here.model_dump()}
    judged = {name: getattr(figures, name) for name in ("difference", "tolerances", "off", "exact", "reproduced")}
    return both | judged | {"tolerance": figures.tolerances["test_accuracy_at_stop"]}
