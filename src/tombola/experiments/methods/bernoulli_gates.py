"""Bernoulli gates as a search method, and its options."""

from __future__ import annotations

from functools import partial

from tombola.experiments.methods.scored_training import ScoresSection, scored_run, supermask
from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.studies.supermask import SupermaskPlan, supermask_search


class BernoulliGatesSection(ScoresSection):
    """`[bernoulli_gates]`: the probabilities of keeping each weight are trained instead of weights."""

    rescale: bool = False
    """Whether the weights of a layer are multiplied by its size over the number kept (dynamic weight rescaling)."""


def _gates_run(context: MethodContext, dense: Run) -> Run:
    options: BernoulliGatesSection = context.options
    return scored_run(context, dense, "bernoulli-gates", {"rescale": True} if options.rescale else None)


def _bernoulli_gates(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    # Scores are not ranked by their sigmoid, which has equal values for different large scores.
    mask_of = partial(supermask, context, dense, magnitudes=False)
    return supermask_search(dense, SupermaskPlan(_gates_run(context, dense), mask_of, dense, computed=True))


BERNOULLI_GATES = SearchMethod(
    "bernoulli-gates",
    _bernoulli_gates,
    BernoulliGatesSection,
    extra_runs=lambda _: 4,  # the scores, also before they are trained, and the two untrained subnetworks
    own_criterion=True,
    count_per_layer=True,
    other_networks=lambda context, dense: [_gates_run(context, dense)],
)
