"""Verification: the result of training a ticket again, and whether its claim holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tombola.experiments.margin import Margin
from tombola.experiments.results import Results
from tombola.experiments.results_schema import Row, Tally
from tombola.experiments.sections import ControlSection, VerdictSection
from tombola.runs.outcome import Measures
from tombola.stats.summarise import build_summary
from tombola.stats.summary import Summary, VerdictSummary
from tombola.stats.verdict import FEWEST_REPLICATES
from tombola.tickets.claim import TicketClaim
from tombola.tickets.reproduction import MIN_TOLERANCE, FigureReproduction, WeightReproduction, tolerances
from tombola.tickets.verification_summary import (
    ClaimState,
    FigureSummary,
    ReproductionSummary,
    VerificationSummary,
    WeightSummary,
)

WIDEST_CRITERIA = VerdictSection(margin=Margin(0.01))
"""The widest margins of the built-in recipes. Wider ones are not accepted, because a file could set any."""

RECORDED_RUN = 0
"""The index of the recorded run among the repeats."""


def accepted_criteria(own: VerdictSection, figure: float = 1.0) -> VerdictSection:
    """The stricter of the file's criteria and `WIDEST_CRITERIA`, for each of them. The margin of a metric that is not
    a fraction may be at most the same part of its `figure`. The control is `reinit`."""
    widest = replace(WIDEST_CRITERIA.margin, relative=own.margin.relative)
    largest = widest.value if own.margin.relative else float(f"{widest.value * abs(figure):.3g}")
    return VerdictSection(
        margin=own.margin if own.margin.value <= largest else replace(widest, value=largest),
        stop_margin=min(own.stop_margin, WIDEST_CRITERIA.stop_margin),
        confidence=max(own.confidence, WIDEST_CRITERIA.confidence),
        max_density=min(own.max_density, WIDEST_CRITERIA.max_density),
    )


@dataclass(frozen=True)
class Verification:
    """The result of verifying a ticket."""

    claim: TicketClaim
    repeats: int
    reinit: int
    seed: int
    rows: list[Row]
    """Replicate 0 is the recorded run, the others are the repeats."""
    tally: Tally
    store: str
    """The store with the runs that were not trained now."""
    remembered: bool
    """Whether the recorded run came from the store."""
    engines: dict[str, int]
    """The number of runs by engine."""
    trained: WeightReproduction | None
    """The reproduction of the trained weights in the file; None without trained weights."""

    @property
    def reproduced(self) -> dict[str, FigureReproduction]:
        """The reproduction of `ticket` and, if it is in the provenance, `dense`."""
        recorded = self.claim.provenance
        found = {"ticket": self._figures(recorded.level, recorded.measures)}
        return found if recorded.dense is None else found | {"dense": self._figures(0, recorded.dense)}

    def _figures(self, level: int, recorded: Measures) -> FigureReproduction:
        by_repeat = {r.replicate: r.measures for r in self.rows if (r.branch, r.level) == ("ticket", level)}
        others = [measures for repeat, measures in by_repeat.items() if repeat != RECORDED_RUN]
        allowed = tolerances(recorded, others, self.claim.evaluation_interval, self.claim.relative_tolerance)
        return FigureReproduction(recorded, by_repeat[RECORDED_RUN], allowed, self.claim.metric.at_stop)

    def summary(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return self.build_summary().to_dict()

    def build_summary(self) -> VerificationSummary:
        """The state of the claim, and what it is based on."""
        claim, own, metric = self.claim, self.claim.config.verdict, self.claim.metric
        recorded = (claim.provenance.dense or claim.provenance.measures)[metric.at_stop]
        judged = self._judged(accepted_criteria(own, 1.0 if metric.fraction or recorded is None else recorded))
        dense, level = judged.levels
        wide, by_own = own.model_copy(update={"control": "reinit"}), None
        if judged.criteria != wide:
            with np.errstate(all="ignore"):  # the file may set any margins
                by_own = self._state(self._judged(wide).levels[1].verdict)
        return VerificationSummary(
            file=str(claim.path),
            recipe=claim.config.name,
            replicate=claim.provenance.replicate,
            level=claim.provenance.level,
            key=claim.provenance.key,
            weights=level.weights,
            weights_left=level.weights_left,
            weights_total=claim.ticket.mask.size,
            rewound_to=claim.k,
            iterations=claim.length,
            state=self._state(level.verdict),
            failing=self._failing(level.verdict),
            repeats=self.repeats,
            reinit=self.reinit,
            seed=self.seed,
            criteria=judged.criteria,
            metric=judged.metric,
            timed=judged.timed,
            own_criteria=own,
            own_state=by_own,
            branches={"dense": dense.branches["ticket"], **level.branches},
            verdict=level.verdict,
            dense_without_early_stop=judged.dense_without_early_stop,
            reproduction=self._reproduction(),
            runs=self.tally,
            store=self.store,
            engines=self.engines,
        )

    def _reproduction(self) -> ReproductionSummary:
        figures, trained, reproduced = self.reproduced, None, self._weights_reproduced
        if self.trained is not None:
            trained = WeightSummary(
                **asdict(self.trained),
                name=self.claim.end_figure,
                recorded=self._recorded_end,
                reproduced=bool(reproduced),
            )
        return ReproductionSummary(
            reproduced=all(each.reproduced for each in figures.values()) and reproduced is not False,
            exact=all(each.exact for each in figures.values()),
            remembered=self.remembered,
            trained_apart=trained.apart if trained else None,
            trained=trained,
            versions=self.claim.provenance.versions,
            ticket=_figure_summary(figures["ticket"]),
            dense=_figure_summary(figures["dense"]) if "dense" in figures else None,
        )

    def _state(self, verdict: VerdictSummary) -> ClaimState:
        if self._failing(verdict):
            return "does not hold"
        return "holds" if verdict.winning else "cannot tell"

    def _failing(self, verdict: VerdictSummary) -> str | None:
        """See `VerificationSummary.failing`."""
        if self.repeats >= FEWEST_REPLICATES:  # with fewer, the tolerances are unknown
            for name, figures in self.reproduced.items():
                if not figures.reproduced:
                    return name
        if self._weights_reproduced is False:
            return "trained"
        return "verdict" if verdict.state == "not winning" else None

    @property
    def _weights_reproduced(self) -> bool | None:
        """Whether the trained weights were reproduced; None without trained weights."""
        if self.trained is None:
            return None
        least = MIN_TOLERANCE * (abs(self._recorded_end or 0.0) if self.claim.relative_tolerance else 1)
        return self.trained.reproduced(self._recorded_end, self.reproduced["ticket"].exact, least)

    @property
    def _recorded_end(self) -> float | None:
        """The recorded figure of the trained weights."""
        name = self.claim.end_figure
        return None if name is None else self.claim.provenance.measures[name]

    def _judged(self, criteria: VerdictSection) -> Summary:
        """The summary of the repeats, as replicates of an experiment with this one level and this control."""
        config, level = self.claim.config, self.claim.provenance.level
        controls = {"reinit": ControlSection(draws=self.reinit, levels=[level])} if self.reinit else {}
        alone = {"replicates": self.repeats, "stability": None, "transfer": None, "baseline": None}
        once = criteria.model_copy(update={"looks": None})
        asked = config.model_copy(update={"verdict": once, "controls": controls} | alone)
        return build_summary(Results(asked, [r for r in self.rows if r.replicate != RECORDED_RUN], True, self.tally))


def _figure_summary(figures: FigureReproduction) -> FigureSummary:
    names = ("recorded", "here", "difference", "tolerances", "off", "exact", "reproduced")
    values = {name: getattr(figures, name) for name in names}
    return FigureSummary(**values, tolerance=figures.tolerances[figures.judged])
