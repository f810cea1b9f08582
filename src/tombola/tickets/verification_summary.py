"""The summary of a verification, as `tombola ticket check --json` prints it. Accuracies are fractions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tombola.experiments.metric import Metric
from tombola.experiments.results_schema import Tally
from tombola.experiments.sections import VerdictSection
from tombola.runs.outcome import Measures
from tombola.stats.summary import BranchSummary, SummaryModel, VerdictSummary

ClaimState = Literal["holds", "does not hold", "cannot tell"]


class FigureSummary(SummaryModel):
    """See `tombola.tickets.reproduction.FigureReproduction`."""

    recorded: Measures
    here: Measures
    difference: float | None
    tolerances: dict[str, float]
    off: list[str]
    exact: bool
    reproduced: bool
    tolerance: float
    """The tolerance of the judged metric at early stop."""


class WeightSummary(SummaryModel):
    """See `tombola.tickets.reproduction.WeightReproduction`."""

    figure: float | None = Field(serialization_alias="accuracy")
    name: str | None
    """The name of the figure, as in `Measures`; None if it is not measured."""
    apart: float
    same: bool
    recorded: float | None
    """The recorded figure at the end of training."""
    reproduced: bool


class ReproductionSummary(SummaryModel):
    """Whether the recorded figures and the trained weights were reproduced."""

    reproduced: bool = Field(serialization_alias="all")
    exact: bool
    remembered: bool
    """Whether the recorded run came from the store."""
    trained_apart: float | None
    trained: WeightSummary | None
    versions: dict[str, str]
    """The recorded versions of libraries."""
    ticket: FigureSummary
    dense: FigureSummary | None

    @model_serializer(mode="wrap")
    def _without_missing_dense(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name != "dense" or value is not None}


class VerificationSummary(SummaryModel):
    """The summary of a verification."""

    file: str
    recipe: str
    replicate: int
    level: int
    key: str
    weights: int
    weights_left: float
    weights_total: int
    rewound_to: int
    """The iteration that the ticket is rewound to."""
    iterations: int
    """The length of the dense network's training."""
    state: ClaimState
    failing: str | None
    """What fails: `ticket`, `dense`, `trained` or `verdict`."""
    repeats: int
    reinit: int
    seed: int
    criteria: VerdictSection
    metric: Metric
    """The judged metric."""
    timed: bool
    """Whether early stop was asked for."""
    own_criteria: VerdictSection
    own_state: ClaimState | None
    """The state of the claim by the file's own criteria, if these are wider."""
    branches: dict[str, BranchSummary]
    verdict: VerdictSummary
    dense_without_early_stop: int = Field(serialization_alias="late")
    reproduction: ReproductionSummary = Field(serialization_alias="reproduced")
    runs: Tally
    store: str
    engines: dict[str, int]
