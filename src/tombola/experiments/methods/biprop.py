"""Biprop as a search method, and its options."""

from __future__ import annotations

from functools import partial

from tombola.experiments.methods.scored_training import ScoresSection, scored_run, supermask
from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.supermask import SupermaskPlan, supermask_search


class BipropSection(ScoresSection):
    """`[biprop]`: scores are trained instead of weights, and weights are binary."""


def _biprop_run(context: MethodContext, dense: Run) -> Run:
    return scored_run(context, dense, "biprop")


def _biprop(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    plan = SupermaskPlan(_biprop_run(context, dense), partial(supermask, context, dense), dense, computed=True)
    return supermask_search(dense, plan)


BIPROP = SearchMethod(
    "biprop",
    _biprop,
    BipropSection,
    extra_runs=lambda _: 4,  # the scores, also before they are trained, and the two untrained subnetworks
    own_criterion=True,
    count_per_layer=True,
    other_networks=lambda context, dense: [_biprop_run(context, dense)],
)
