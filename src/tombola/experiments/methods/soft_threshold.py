"""STR, soft threshold reparametrization, as a search method, and its options."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from tombola.experiments.methods.parametrized import magnitudes_of_originals, parametrized_run
from tombola.experiments.methods.search_method import MethodContext, SearchMethod, iteration_within
from tombola.pruning.mask import Mask
from tombola.pruning.ranking import keep_best
from tombola.pruning.scopes import Counts, allocate
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.parametrized_search import parametrized_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.frozen_model import FrozenModel
from tombola.zoo.models.parametrizations.soft_threshold import threshold_of


class StrSection(FrozenModel):
    """`[str]`: each layer learns a threshold below which its weights are zero."""

    initial: float = -5.0
    """s at the beginning; the threshold is sigmoid(s)."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """λ, the weight decay of weights and thresholds while thresholds are learned; a larger one prunes more."""
    end: float = Field(default=0.75, gt=0, lt=1)
    """The fraction of the training after which the mask is fixed."""


def _str(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    counts, run = context.kept_counts(dense.mask), _str_run(context, dense)

    def thresholded(outcome: Outcome) -> Mask:
        magnitudes = magnitudes_of_originals(dense, outcome)
        learned: Counts = {
            (name,): int((magnitudes[name] > threshold_of(outcome.final, name)).sum()) for name in _layers(counts)
        }
        total = sum(counts.values())
        return keep_best(magnitudes, dense.mask, learned_counts(learned, total, dense.mask.sizes))

    return parametrized_search(dense, run, thresholded)


def _str_run(context: MethodContext, dense: Run) -> Run:
    options: StrSection = context.options
    layers = {name: {"initial": options.initial} for name in _layers(context.kept_counts(dense.mask))}
    run = parametrized_run(dense, "soft-threshold", layers, {"weight_decay": options.weight_decay})
    return run.until(iteration_within("str", "end", options.end, dense))


def learned_counts(learned: Counts, total: int, sizes: Mapping[str, int]) -> Counts:
    """Divide exactly `total` weights between layers in proportion to the learned numbers, at most the layer's size.
    An empty layer counts as one with a single weight, so that no layer is lost.

    >>> learned_counts({("fc1",): 30, ("fc2",): 10}, 20, {"fc1": 100, "fc2": 20})
    {('fc1',): 15, ('fc2',): 5}
    """
    return allocate(
        total, {group: max(1, n) for group, n in learned.items()}, {group: sizes[group[0]] for group in learned}
    )


def _layers(counts: Counts) -> list[str]:
    return [name for group in counts for name in group]


STR = SearchMethod(
    "str",
    _str,
    StrSection,
    lambda _: 1,
    mask_changes=True,
    own_criterion=True,
    other_networks=lambda context, dense: [_str_run(context, dense)],
)
