"""Top-KAST as a search method, and its options."""

from __future__ import annotations

from pydantic import Field

from tombola.experiments.methods.parametrized import magnitudes_of_originals, parametrized_run
from tombola.experiments.methods.search_method import MethodContext, SearchMethod, iteration_within
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.parametrized_search import parametrized_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.frozen_model import FrozenModel


class TopKastSection(FrozenModel):
    """`[top_kast]`: the forward pass uses the largest weights of each layer, the backward pass trains some more."""

    exploration: float = Field(default=1.0, ge=0)
    """M/D: how many more weights the backward pass trains, as a multiple of those in use."""
    penalty: float = Field(default=1e-4, ge=0)
    """λ, the coefficient of the exploration regularisation."""
    end: float = Field(default=0.75, gt=0, lt=1)
    """The fraction of the training after which the mask is fixed."""


def _top_kast(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    counts, run = context.kept_counts(dense.mask), _top_kast_run(context, dense)

    def largest(outcome: Outcome) -> Mask:
        return keep_best(magnitudes_of_originals(dense, outcome), dense.mask, counts)

    return parametrized_search(dense, run, largest)


def _top_kast_run(context: MethodContext, dense: Run) -> Run:
    options: TopKastSection = context.options
    sizes, layers = dense.mask.sizes, {}
    for (name,), keep in context.kept_counts(dense.mask).items():
        train = min(sizes[name], keep + round(options.exploration * keep))
        layers[name] = {"keep": keep, "train": train, "penalty": options.penalty}
    return parametrized_run(dense, "top-kast", layers).until(iteration_within("top_kast", "end", options.end, dense))


TOP_KAST = SearchMethod(
    "top-kast",
    _top_kast,
    TopKastSection,
    lambda _: 1,
    mask_changes=True,
    own_criterion=True,
    count_per_layer=True,
    other_networks=lambda context, dense: [_top_kast_run(context, dense)],
)
