"""Edge-popup as a search method, and its options."""

from __future__ import annotations

import math
from functools import partial

from tombola.experiments.methods.scored_training import ScoresSection, scored_run, supermask
from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.supermask import SupermaskPlan, supermask_search
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build, describe_rescaled


class EdgePopupSection(ScoresSection):
    """`[edge_popup]`: scores are trained instead of weights."""

    scale_fan: bool = False
    """Whether the initial weights of each layer are divided by the square root of its density, so that the subnetwork
    has the variance of the dense network. The subnetworks have these weights, the dense network has not."""


def _edge_popup_runs(context: MethodContext, dense: Run) -> list[Run]:
    """The run that trains scores, and the one that trains its subnetworks, without a mask."""
    initial = dense
    if context.options.scale_fan:
        sizes = dense.mask.sizes
        counts = {name: count for (name,), count in context.kept_counts(dense.mask).items() if count}
        factors = {name: math.sqrt(sizes[name] / count) for name, count in counts.items()}
        network = describe_rescaled(dense.start.network, factors)
        initial = dense.with_network(network)
    return [scored_run(context, initial, "edge-popup"), initial]


def _edge_popup(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    scored, initial = _edge_popup_runs(context, dense)
    # Weights alone are those of `initial`; the statistics of normalisation layers change while scores are trained.
    statistics = any(name.endswith("running_mean") for name in build(dense.start).state_dict())
    random = context.random_mask(dense.mask, Purpose.UNTRAINED)
    plan = SupermaskPlan(scored, partial(supermask, context, dense), initial, random, computed=statistics)
    return supermask_search(dense, plan)


EDGE_POPUP = SearchMethod(
    "edge-popup",
    _edge_popup,
    EdgePopupSection,
    extra_runs=lambda _: 3,  # the scores, and the two untrained subnetworks
    own_criterion=True,
    count_per_layer=True,
    other_networks=lambda context, dense: [run for run in _edge_popup_runs(context, dense) if run != dense],
)
