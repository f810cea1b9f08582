"""TimeLeft: how long the rest of an experiment takes."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

from tombola.engines import Engine
from tombola.experiments.planning.run_costs import NOTHING, Interval, Load, RunCosts, wall_time
from tombola.experiments.planning.trial import measure
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.studies.rehearsal import Rehearsed
from tombola.studies.request import RunRequest

WORTH_A_TRIAL = 30.0
"""Seconds of training: the time left of shorter experiments is known soon."""

Place = tuple[int, str, int]
"""Study, branch and level."""


class TimeLeft:
    """Knows what an experiment is expected to request, and learns from its trainings what that costs."""

    def __init__(self, expected: Iterable[tuple[int, Rehearsed]], data_dir: str | Path | None = None) -> None:
        self.costs = RunCosts()
        self._data_dir = data_dir
        self._left = Counter[Load]()
        self._alone: defaultdict[int, Counter[Load]] = defaultdict(Counter)  # by study; each waits for the one before
        self._queues: defaultdict[Place, deque[tuple[Load, bool]]] = defaultdict(deque)
        self._examples: dict[Load, Run] = {}
        seen = set()
        for study, rehearsed in expected:
            request, run = rehearsed.request, rehearsed.request.run
            identity = study, request.branch, request.level, request.draw, request.point, run.begin, run.end
            if identity not in seen:  # a study may request a run again
                seen.add(identity)
                self._add(study, rehearsed)

    def _add(self, study: int, rehearsed: Rehearsed) -> None:
        request = rehearsed.request
        load = Load.of(request.run, self._data_dir)
        self._left[load] += 1
        self._alone[study][load] += rehearsed.alone
        self._queues[study, request.branch, request.level].append((load, rehearsed.alone))
        if isinstance(request.run, Run):
            self._examples.setdefault(load, request.run)

    def measure(self, engine: Engine[Run]) -> None:
        """Measure the speed of the dense network and, unless all takes little time, of sparse ones."""
        longest = max(self._examples, key=lambda load: load.density * load.work, default=None)
        if longest is None:
            return
        measure(self.costs, {longest: self._examples[longest]}, engine, self._data_dir)
        if self._seconds(self._left).high > WORTH_A_TRIAL:
            measure(self.costs, self._examples, engine, self._data_dir)

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:
        """A request is answered for the first time. A stored outcome may be from another machine: it counts only
        while nothing else is known."""
        load = Load.of(request.run, self._data_dir)
        if not outcome.measures.diverged and (trained or not self.costs.knows(load.kind)):
            self.costs.add(load, outcome.seconds)
        if queue := self._queues[study, request.branch, request.level]:
            expected, alone = queue.popleft()
            self._left[expected] -= 1
            self._alone[study][expected] -= alone

    def seconds(self, workers: int) -> Interval | None:
        """Until all is trained by so many workers; None if nothing is known of it. Kinds of training of which nothing
        is known are taken to cost as much as the others."""
        left = +self._left
        known = Counter({load: count for load, count in left.items() if self.costs.knows(load.kind)})
        if left and not known:
            return None
        share = left.total() / known.total() if known else 1.0
        longest = max((self._seconds(+alone) for alone in self._alone.values()), default=NOTHING)
        return wall_time(self._seconds(known).times(share), longest, workers)

    def _seconds(self, loads: Counter[Load]) -> Interval:
        """The sum of those of which something is known."""
        return self.costs.total({load: n for load, n in loads.items() if self.costs.knows(load.kind)}) or NOTHING
