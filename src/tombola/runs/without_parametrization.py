"""The results of a run whose weights are computed by parametrizations, as those of the network without them."""

from __future__ import annotations

from dataclasses import replace

from tombola.pruning.mask import Mask, State
from tombola.runs.initial_state import computed_weights
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.zoo.models.reparametrization import weight_name


def without_parametrization(run: BaseRun, start: State, outcome: Outcome) -> tuple[BaseRun, State, Outcome]:
    """The run, the state it began with and its outcome, with the names and values of computed weights in mask and
    states. Without parametrizations they are returned as they are."""
    mask = Mask({weight_name(name): kept for name, kept in run.mask.items()})
    if {*mask} == {*run.mask}:
        return run, start, outcome
    final = computed_weights(run.start, outcome.final)
    return run.masked(mask), computed_weights(run.start, start), replace(outcome, final=final)
