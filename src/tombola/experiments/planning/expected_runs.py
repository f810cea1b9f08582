"""The runs that an experiment will request, as far as that is known before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tombola.experiments.experiment import Experiment
from tombola.experiments.mask_source import StandInMasks
from tombola.experiments.search_config import SearchConfig
from tombola.experiments.sections import AUTO
from tombola.pruning.mask import State
from tombola.runs.initial_state import no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.runs.store import Store
from tombola.studies.rehearsal import MadeUp, Rehearsed, rehearse
from tombola.studies.request import RunRequest


@dataclass(frozen=True)
class _Answers:
    """Outcomes from a store, if one is given; others are made up."""

    experiment: Experiment
    store: Store | None

    def __call__(self, request: RunRequest, alone: bool) -> Outcome:
        known = None if self.store is None else self.store.peek(request.run)
        if known is not None:
            return known
        made_up = MadeUp.of(request.run, request.run.key if alone else "")
        if alone and request.branch in ("segment", "scores"):  # whose weights are ranked in the search
            return replace(made_up, final=self._initial_state(request.run))
        return made_up

    def _initial_state(self, run: BaseRun) -> State:
        start = run.start.model_copy(update={"trained": None})
        return self.experiment.workload.initial_state(start, no_stored_states)


def expected_runs(experiment: Experiment, store: Store | None = None) -> Iterator[tuple[int, Rehearsed]]:
    """The requests of each of the experiment's studies, which are run without training. Outcomes in `store` are used;
    unknown ones are made up, and masks that depend on them are stand-ins with the right counts. Nothing is written.

    Every training is expected to converge. What depends on figures is a maximum; see `why_at_most`.
    """
    for replicate in experiment.replicates:
        for request in _rehearsal(experiment, replicate, store):
            yield replicate, request


def first_replicate(experiment: Experiment) -> Iterator[Rehearsed]:
    """The requests of the first replicate; see `expected_runs`."""
    return _rehearsal(experiment, experiment.replicates[0], None)


def expected_work(experiment: Experiment) -> Iterator[tuple[int, Rehearsed]]:
    """The requests of the first replicate, each as that of every replicate: while no outcome is known, the others
    differ only in their seeds. A rehearsal of a method that changes its mask hundreds of times takes seconds."""
    for request in first_replicate(experiment):
        for replicate in experiment.replicates:
            yield replicate, request


def _rehearsal(experiment: Experiment, replicate: int, store: Store | None) -> Iterator[Rehearsed]:
    return rehearse(experiment.with_masks(StandInMasks()).study(replicate), _Answers(experiment, store))


def why_at_most(config: SearchConfig) -> str | None:
    """Why the number of runs may turn out smaller, in a few words; None if only trainings that diverge change it."""
    if config.rewind.to == AUTO:
        return "the search for a stable iteration ends at the first one"
    if config.pooled:
        return "interpolated weights are kept only if they are better"
    if config.search_method.name == "early-bird":
        return "masks are drawn until they agree"
    return None
