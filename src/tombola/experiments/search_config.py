"""SearchConfig: the configuration that all experiments share, those of recipes and of custom functions."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from tombola.experiments import sections
from tombola.experiments.methods import METHODS
from tombola.experiments.methods.search_method import SearchMethod
from tombola.experiments.metric import Metric
from tombola.runs.outcome import Measures
from tombola.studies.controls import CONTROLS, NEW_MASK_CONTROLS, SECOND_DENSE_CONTROLS
from tombola.utils.errors import unknown
from tombola.utils.former_names import former_attribute
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose


class SearchConfig(FrozenModel):
    """The configuration of an experiment, except for what is trained."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the results folder: letters, digits, dots, dashes and underscores."""
    replicates: int = Field(default=5, ge=1, le=1000)
    """The number of repetitions of the whole experiment, each with its own seeds."""
    seed: int = Field(default=0, ge=0)
    """What the seeds of all replicates are derived from."""
    search: sections.SearchSection
    rewind: sections.RewindSection = sections.RewindSection()
    stability: sections.StabilitySection | None = None
    controls: dict[str, sections.ControlSection] = {}
    """By name; see `tombola.studies.controls`."""
    verdict: sections.VerdictSection = sections.VerdictSection()

    @field_validator("controls", mode="before")
    @classmethod
    def _known_controls(cls, controls: Any) -> Any:
        for name in controls if isinstance(controls, dict) else ():
            if name not in CONTROLS:
                raise unknown("control", name, CONTROLS)
        return controls

    @model_validator(mode="after")
    def _check_looks(self) -> Self:
        if self.verdict.looks and self.replicates not in self.verdict.looks:
            looks = ", ".join(map(str, self.verdict.looks))
            raise ValueError(f"replicates: should be one of verdict.looks, {looks}, not {self.replicates}")
        return self

    @model_validator(mode="after")
    def _check_stability(self) -> Self:
        candidates = self.stability.candidates if self.stability else []
        if self.rewind.to == sections.AUTO and (not candidates or self.rewind.method != "weights"):
            raise ValueError('rewind.to: "auto" needs candidates in [stability] and rewind.method = "weights"')
        if self.stability and self.stability.tickets and self.no_ticket_reason is not None:
            raise ValueError(
                f"stability.tickets: needs lottery tickets, which this search does not find: {self.no_ticket_reason}"
            )
        return self

    @model_validator(mode="after")
    def _check_controls(self) -> Self:
        if self.verdict.control not in CONTROLS:
            raise unknown("control", self.verdict.control, CONTROLS)
        most = self.search.levels
        for name, control in self.controls.items():
            if control.draws > 1 and name.upper() not in Purpose.__members__:
                raise ValueError(f"controls.{name}: draws nothing at random; should be 0 or 1, not {control.draws}")
            highest = max(control.levels or [0])
            if highest > most:
                raise ValueError(f"controls.{name}: levels should be at most search.levels, {most}, not {highest}")
            if name in (*NEW_MASK_CONTROLS, *SECOND_DENSE_CONTROLS) and self.rewind.method != "weights":
                raise ValueError(f'controls.{name}: needs rewind.method = "weights", not "{self.rewind.method}"')
        if self.search_method.name == "one-shot" and "one_shot" in self.controls:
            raise ValueError("controls.one_shot: the search is already one-shot")
        if "rewound" in self.controls and self.no_ticket_reason is None:
            raise ValueError("controls.rewound: these tickets are already rewound")
        return self

    @abstractmethod
    def judged(self, measured: Iterable[Measures]) -> Metric:
        """The metric that is judged, given these results of trainings."""

    @abstractmethod
    def chosen_by(self, measured: Iterable[Measures]) -> Metric:
        """The metric of the validation examples by which the best of several trainings is chosen."""

    @abstractmethod
    def barrier_metric(self, measured: Iterable[Measures]) -> Metric:
        """The metric of the validation examples whose barriers on lines between trainings are measured."""

    @property
    def worst_barrier(self) -> float:
        """The barrier of a line on which a network diverged."""
        return math.inf

    @property
    def evaluates_ends(self) -> bool:
        """Whether the ends of lines are evaluated again, like the networks between them, because their trainings use
        the test examples at early stop only."""
        return False

    @property
    def search_method(self) -> SearchMethod:
        """The method of `[search]`."""
        return METHODS["one-shot" if self.search.one_shot else self.search.method]

    @property
    def method_options(self) -> Any:
        """The options of the method; None if it has none."""
        method = self.search_method
        return method.options and method.options()

    @property
    def trained_on(self) -> str:
        """The network and what it is trained on, in a few words."""
        return ""

    @property
    def baseline_labels(self) -> list[str]:
        """Labels of the trainings of the dense network, starting with the training of the tickets; empty if there is
        only one."""
        return []

    @property
    def label_noise(self) -> float:
        """The fraction of the training examples whose labels were drawn at random; 0 if unknown."""
        return 0.0

    @property
    def analyses_double_descent(self) -> bool:
        """Whether the summary says if there is sparse double descent."""
        return False

    @property
    def transferred_to(self) -> sections.TransferSection | None:
        """How tickets are transferred to other data; None if they are not."""
        return None

    @property
    def pooled(self) -> sections.PoolsSection | None:
        """How tickets are interpolated with those of other levels; None if they are not."""
        return None

    controlled = former_attribute("controlled", "trains_verdict_control")
    no_ticket = former_attribute("no_ticket", "no_ticket_reason")

    def trains_verdict_control(self, level: int) -> bool:
        """Whether the control that tickets must beat is trained at this level."""
        control = self.controls.get(self.verdict.control)
        return control is not None and control.draws > 0 and (control.levels is None or level in control.levels)

    @property
    def no_ticket_reason(self) -> str | None:
        """Why the networks found cannot be lottery tickets, in a few words; None if they can."""
        if self.search_method.mask_changes:
            return "mask changed while training"
        return None if self.rewind.method == "weights" else "trained longer"

    def resolved(self) -> dict[str, Any]:
        """The whole configuration, defaults included, as TOML values."""
        return self.model_dump(mode="json", exclude_none=True)
