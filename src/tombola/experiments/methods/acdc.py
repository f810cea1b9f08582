"""AC/DC as a search method, and its options."""

from __future__ import annotations

from pydantic import Field, model_validator

from tombola.experiments.methods.search_method import MethodContext, SearchMethod, iteration_within, spaced_iterations
from tombola.runs.run import Run
from tombola.studies.acdc import acdc_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.frozen_model import FrozenModel


class AcdcSection(FrozenModel):
    """`[acdc]`: training that alternates between the dense network and a pruned one."""

    begin: float = Field(default=0.1, gt=0, lt=1)
    """When the dense warm-up ends, as a fraction of the training."""
    end: float = Field(default=0.85, gt=0, lt=1)
    """When the last sparse phase begins."""
    changes: int = Field(default=8, ge=2)
    """The number of sparse phases, the last included; phases between `begin` and `end` have equal lengths."""

    @model_validator(mode="after")
    def _check(self) -> AcdcSection:
        if self.begin >= self.end:
            raise ValueError(f"begin should be before end, {self.end:g}, not {self.begin:g}")
        return self


def _acdc(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: AcdcSection = context.options
    begin, end = (iteration_within("acdc", name, getattr(options, name), dense) for name in ("begin", "end"))
    at = [begin, *spaced_iterations("acdc.changes", begin, end, 2 * options.changes - 2)]
    return acdc_search(dense, at, context.prune)


ACDC = SearchMethod("acdc", _acdc, AcdcSection, lambda options: 2 * options.changes - 1, mask_changes=True)
