"""Search methods that train scores instead of weights: edge-popup, biprop and Bernoulli gates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from pydantic import Field

from tombola.experiments.methods.search_method import MethodContext, SearchMethod, parametrized_run
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.supermask import SupermaskPlan, supermask_search
from tombola.utils.frozen_model import FrozenModel
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build, describe_rescaled
from tombola.zoo.models.reparametrization import scores_of


class ScoresSection(FrozenModel):
    """How scores are trained."""

    lr: float | None = Field(default=None, gt=0)
    """The learning rate of the scores; by default that of the training."""
    schedule: Literal["constant", "cosine"] | None = None
    """The schedule of this learning rate; by default that of the training. The authors of edge-popup and
    biprop use cosine."""


class EdgePopupSection(ScoresSection):
    """`[edge_popup]`: scores are trained instead of weights."""

    scale_fan: bool = False
    """Whether the initial weights of each layer are divided by the square root of its density, so that the subnetwork
    has the variance of the dense network. The subnetworks have these weights, the dense network has not."""


class BipropSection(ScoresSection):
    """`[biprop]`: scores are trained instead of weights, and weights are binary."""


class BernoulliGatesSection(ScoresSection):
    """`[bernoulli_gates]`: the probabilities of keeping each weight are trained instead of weights."""

    rescale: bool = False
    """Whether the weights of a layer are multiplied by its size over the number kept (dynamic weight rescaling)."""


def _scored_run(context: MethodContext, dense: Run, by: str, more: Mapping[str, Any] | None = None) -> Run:
    """The run that trains a score for each weight; `more` are options of the parametrization `by` besides the number
    of weights that level 1 keeps."""
    options: ScoresSection = context.options
    layers = {name: {"keep": count, **(more or {})} for (name,), count in context.kept_counts(dense.mask).items()}
    changed: dict[str, Any] = {} if options.lr is None else {"lr": options.lr}
    if options.schedule is not None:
        changed |= {"schedule": options.schedule, "milestones": ()}
    return parametrized_run(dense, by, layers, changed)


def _mask_of(context: MethodContext, dense: Run, outcome: Outcome, magnitudes: bool = True) -> Mask:
    """The mask that the scores of `outcome`, or their `magnitudes`, make, with the counts of level 1."""
    scores = scores_of(outcome.final)
    ranked = {name: each.abs() for name, each in scores.items()} if magnitudes else scores
    return keep_best(ranked, dense.mask, context.kept_counts(dense.mask))


def _edge_popup_runs(context: MethodContext, dense: Run) -> list[Run]:
    """The run that trains scores, and the one that trains its subnetworks, without a mask."""
    initial = dense
    if context.options.scale_fan:
        sizes = dense.mask.sizes
        counts = {name: count for (name,), count in context.kept_counts(dense.mask).items() if count}
        factors = {name: math.sqrt(sizes[name] / count) for name, count in counts.items()}
        network = describe_rescaled(dense.start.network, factors)
        initial = dense.with_network(network)
    return [_scored_run(context, initial, "edge-popup"), initial]


def _edge_popup(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    scored, initial = _edge_popup_runs(context, dense)
    # Weights alone are those of `initial`; the statistics of normalisation layers change while scores are trained.
    statistics = any(name.endswith("running_mean") for name in build(dense.start).state_dict())
    random = context.random_mask(dense.mask, Purpose.UNTRAINED)
    plan = SupermaskPlan(scored, partial(_mask_of, context, dense), initial, random, computed=statistics)
    return supermask_search(dense, plan)


def _biprop_run(context: MethodContext, dense: Run) -> Run:
    return _scored_run(context, dense, "biprop")


def _biprop(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    plan = SupermaskPlan(_biprop_run(context, dense), partial(_mask_of, context, dense), dense, computed=True)
    return supermask_search(dense, plan)


def _gates_run(context: MethodContext, dense: Run) -> Run:
    options: BernoulliGatesSection = context.options
    return _scored_run(context, dense, "bernoulli-gates", {"rescale": True} if options.rescale else None)


def _bernoulli_gates(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    # Scores are not ranked by their sigmoid, which has equal values for different large scores.
    mask_of = partial(_mask_of, context, dense, magnitudes=False)
    return supermask_search(dense, SupermaskPlan(_gates_run(context, dense), mask_of, dense, computed=True))


_COMMON: dict[str, Any] = {"own_criterion": True, "count_per_layer": True}

SUPERMASKS = [
    SearchMethod(
        "edge-popup",
        _edge_popup,
        EdgePopupSection,
        extra_runs=lambda _: 3,  # the scores, and the two untrained subnetworks
        other_networks=lambda context, dense: [run for run in _edge_popup_runs(context, dense) if run != dense],
        **_COMMON,
    ),
    SearchMethod(
        "biprop",
        _biprop,
        BipropSection,
        extra_runs=lambda _: 4,  # also the scores before they are trained
        other_networks=lambda context, dense: [_biprop_run(context, dense)],
        **_COMMON,
    ),
    SearchMethod(
        "bernoulli-gates",
        _bernoulli_gates,
        BernoulliGatesSection,
        extra_runs=lambda _: 4,
        other_networks=lambda context, dense: [_gates_run(context, dense)],
        **_COMMON,
    ),
]
