"""Sparse evolutionary training (SET) as a search method, and its options."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tombola.experiments.methods.mask_updates import UpdateSection, update_search
from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.pruning.scores.weights import uniform
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.utils.seeds import Purpose


class SetSection(UpdateSection):
    """`[set]`: sparse training in which small weights are replaced by random ones."""


def _set(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    def random(outcome: Outcome, segment: Run, k: int) -> Mapping[str, Tensor]:  # noqa: ARG001
        return uniform(segment.mask, context.derive_seed(Purpose.GROWTH, k))

    return update_search("set", context, dense, lambda _: context.options.fraction, random)


SET = SearchMethod("set", _set, SetSection, lambda options: options.changes, mask_changes=True, own_criterion=True)
