"""TimeLeft: how long the rest of an experiment takes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
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

LONG = 30.0
"""Seconds of a training beside which it does not matter what is loaded and compiled in it."""

TRUST = 4
"""After as many trainings, how long they took counts as much as what their costs say."""

MOST = 4.0
"""Costs are corrected by at most this factor."""

Place = tuple[int, str, int]
"""Study, branch and level."""


class TimeLeft:
    """Knows what an experiment is expected to request, and learns from its trainings what that costs."""

    def __init__(
        self,
        expected: Iterable[tuple[int, Rehearsed]],
        data_dir: str | Path | None = None,
        warm_up: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The first `warm_up` trainings, one for each worker, take longer than others."""
        self.costs = RunCosts()
        self._data_dir = data_dir
        self._left = Counter[Load]()
        self._alone: defaultdict[int, Counter[Load]] = defaultdict(Counter)  # by study; each waits for the one before
        self._queues: defaultdict[Place, deque[tuple[Load, bool]]] = defaultdict(deque)
        self._examples: dict[Load, Run] = {}
        self._cold = warm_up
        self._clock = clock
        self._warm_since: float | None = None
        self._done = Counter[Load]()  # trained since then
        self._done_alone: defaultdict[int, Counter[Load]] = defaultdict(Counter)
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
        while nothing else is known. The first training of each worker does not count, unless it is long: it loads and
        compiles what later ones find there."""
        load = Load.of(request.run, self._data_dir)
        expected, alone = load, False
        if queue := self._queues[study, request.branch, request.level]:
            expected, alone = queue.popleft()
            self._left[expected] -= 1
            self._alone[study][expected] -= alone
        cold = trained and self._cold > 0 and outcome.seconds <= LONG
        counts = not cold if trained else not self.costs.knows(load.kind)
        if not outcome.measures.diverged and counts:
            self.costs.add(load, outcome.seconds)
        if trained:
            self._count(study, load, alone, cold)

    def _count(self, study: int, load: Load, alone: bool, cold: bool) -> None:
        """Count a training that ended now, from when on no worker trains its first."""
        if self._warm_since is not None:
            self._done[load] += 1
            self._done_alone[study][load] += alone
        self._cold -= cold
        if self._warm_since is None and not (cold and self._cold):
            self._warm_since = self._clock()

    def likely_seconds(self, workers: int) -> float | None:
        """The time left that is most likely: costs, as many times as trainings have taken longer than these say, as
        they do where other programs share the processor. None while there is no basis."""
        left = self.seconds(workers)
        if left is None or self._warm_since is None:
            return None if left is None else left.middle
        done = self._wall_time(self._done, self._done_alone, workers).middle
        trust = TRUST * done / max(1, self._done.total())
        took = self._clock() - self._warm_since
        ratio = (took + trust) / (done + trust) if done else 1.0
        return left.middle * min(max(ratio, 1 / MOST), MOST)

    def seconds(self, workers: int) -> Interval | None:
        """Until all is trained by so many workers; None if nothing is known of it. Kinds of training of which nothing
        is known are taken to cost as much as the others."""
        left = +self._left
        known = Counter({load: count for load, count in left.items() if self.costs.knows(load.kind)})
        if left and not known:
            return None
        share = left.total() / known.total() if known else 1.0
        return self._wall_time(known, self._alone, workers, share)

    def _wall_time(
        self, loads: Counter[Load], alone: Mapping[int, Counter[Load]], workers: int, share: float = 1.0
    ) -> Interval:
        """Of trainings of these loads, of which the ones in `alone` follow one another, by study."""
        longest = max((self._seconds(+each) for each in alone.values()), default=NOTHING)
        return wall_time(self._seconds(loads).times(share), longest, workers)

    def _seconds(self, loads: Counter[Load]) -> Interval:
        """The sum of those of which something is known."""
        return self.costs.total({load: n for load, n in loads.items() if self.costs.knows(load.kind)}) or NOTHING
