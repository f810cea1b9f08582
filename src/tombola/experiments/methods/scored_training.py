"""Training a score for each weight instead of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from tombola.experiments.methods.parametrized import parametrized_run
from tombola.experiments.methods.search_method import MethodContext
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.models.reparametrization import scores_of


class ScoresSection(FrozenModel):
    """How scores are trained."""

    lr: float | None = Field(default=None, gt=0)
    """The learning rate of the scores; by default that of the training."""
    schedule: Literal["constant", "cosine"] | None = None
    """The schedule of this learning rate; by default that of the training. The authors of edge-popup and
    biprop use cosine."""


def scored_run(context: MethodContext, dense: Run, by: str, more: Mapping[str, Any] | None = None) -> Run:
    """The run that trains a score for each weight; `more` are options of the parametrization `by` besides the number
    of weights that level 1 keeps."""
    options: ScoresSection = context.options
    layers = {name: {"keep": count, **(more or {})} for (name,), count in context.kept_counts(dense.mask).items()}
    changed: dict[str, Any] = {} if options.lr is None else {"lr": options.lr}
    if options.schedule is not None:
        changed |= {"schedule": options.schedule, "milestones": ()}
    return parametrized_run(dense, by, layers, changed)


def supermask(context: MethodContext, dense: Run, outcome: Outcome, magnitudes: bool = True) -> Mask:
    """The mask that the scores of `outcome`, or their `magnitudes`, make, with the counts of level 1."""
    scores = scores_of(outcome.final)
    ranked = {name: each.abs() for name, each in scores.items()} if magnitudes else scores
    return keep_best(ranked, dense.mask, context.kept_counts(dense.mask))
