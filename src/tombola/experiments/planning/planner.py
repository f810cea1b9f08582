"""The planner: adds up what an experiment's studies request."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tombola.engines import Engine
from tombola.experiments.experiment import Experiment
from tombola.experiments.planning.expected_runs import expected_runs, why_at_most
from tombola.experiments.planning.outcome_size import outcome_bytes, training_bytes
from tombola.experiments.planning.plan import Basis, Estimate, Plan, PlannedMemory, PlannedRuns, PlannedTime
from tombola.experiments.planning.run_costs import NOTHING, Interval, Load, RunCosts, wall_time
from tombola.experiments.planning.stored_timings import add_stored_timings
from tombola.experiments.planning.trial import measure
from tombola.pruning.mask import State
from tombola.runs.initial_state import no_stored_states
from tombola.runs.run import Run
from tombola.runs.store import Store
from tombola.studies.rehearsal import MadeUp, Rehearsed
from tombola.studies.request import RequestId
from tombola.utils.memory import peak_memory

FROM_STORE = (0.85, 1.25)
"""How far the time of further trainings may be from that of measured ones, as factors."""
FROM_TRIAL = (0.75, 1.6)
"""The same where a few iterations of single trainings were measured."""

UNCERTAIN = 1.5
"""A time is uncertain where the highest is as many times the lowest."""


@dataclass
class _Tally:
    """Of the trainings of one shape."""

    trainings: int = 0
    in_store: int = 0
    density: float = 0.0
    """The sum over the trainings."""
    loads: Counter[Load] = field(default_factory=Counter)
    """Of those that are to be done."""


@dataclass
class Planner:
    """Plans an experiment of a recipe. `threads`: workers are threads of the driver. `trial`: what the store does not
    tell may be measured here."""

    experiment: Experiment
    store: Store
    engine: Engine[Run]
    engine_name: str
    device: str
    workers: int
    threads: bool
    data_dir: str | Path | None = None
    trial: bool = True

    def __post_init__(self) -> None:
        self._costs = RunCosts()
        self._tallies: dict[tuple[str, int, str, int], _Tally] = {}  # by branch, level, network and iterations
        self._requests: set[tuple[int, RequestId]] = set()
        self._keys: set[str] = set()
        self._chains: defaultdict[int, Counter[Load]] = defaultdict(Counter)  # by study, of requests that are alone
        self._examples: dict[Load, Run] = {}
        self._sizes: dict[tuple[object, str], int] = {}
        self._bytes = 0
        self._masks: dict[str, int] = {}  # weights of each mask, by digest
        self._states: dict[str, State] = {}

    def plan(self) -> Plan:
        """Rehearse the studies, measure what no stored training tells, and add up."""
        for study, rehearsed in expected_runs(self.experiment, self.store):
            self._add(study, rehearsed)
        loads = sum((tally.loads for tally in self._tallies.values()), Counter[Load]())
        basis = self._learn(max(1, loads.total() // self.workers))
        config = self.experiment.config
        known = sum(tally.in_store for tally in self._tallies.values())
        return Plan(
            name=config.name,
            engine=self.engine_name,
            device=self.device,
            workers=self.workers,
            requests=len(self._requests),
            trainings=len(self._keys),
            in_store=known,
            to_train=len(self._keys) - known,
            at_most=why_at_most(config),
            runs=[self._row(*shape, tally) for shape, tally in self._tallies.items()],
            time=self._time(loads, basis),
            disk_bytes=self._bytes,
            memory=self._memory(tried="trial" in basis) if loads else None,
        )

    def _learn(self, at_once: int) -> Basis:
        """Measure what neither this experiment's nor other trainings in the store tell."""
        add_stored_timings(self._costs, self.store, self._unknown.values(), self._is_comparable, self.data_dir)
        from_store, unknown = bool(self._costs), self._unknown
        if not (unknown and self.trial):
            return "store"
        measure(self._costs, unknown, self.engine, self.data_dir, at_once)
        return "store and trial" if from_store else "trial"

    @property
    def _unknown(self) -> dict[Load, Run]:
        """Examples of trainings of which little is known: none of the kind was measured, or only much denser ones."""
        known = {load: self._costs.seconds(load) for load in self._examples}
        return {
            load: self._examples[load]
            for load, seconds in known.items()
            if seconds is None or seconds.high > UNCERTAIN * seconds.low
        }

    def _add(self, study: int, rehearsed: Rehearsed) -> None:
        request, run = rehearsed.request, rehearsed.request.run
        assert isinstance(run, Run)
        key = run.key
        self._requests.add((study, request.request_id))
        if key in self._keys:
            return
        self._keys.add(key)
        load = Load.of(run, self.data_dir)
        shape = request.branch, request.level, run.start.network.name, run.last - run.begin
        tally = self._tallies.setdefault(shape, _Tally())
        tally.trainings += 1
        tally.density += load.density
        self._masks[run.mask.digest] = run.mask.size
        outcome = rehearsed.outcome
        if not isinstance(outcome, MadeUp):
            tally.in_store += 1
            if self._is_comparable(outcome.engine) and not outcome.measures.diverged:
                self._costs.add(load, outcome.seconds)
            return
        tally.loads[load] += 1
        self._examples.setdefault(load, run)
        self._bytes += self._outcome_bytes(run)
        if rehearsed.alone:
            self._chains[study][load] += 1

    def _is_comparable(self, engine: str) -> bool:
        """Whether an outcome's engine is the one that would train now, on such a device."""
        return engine.startswith(type(self.engine).__name__.lower()) and self.device.partition(":")[0] in engine

    def _state(self, run: Run) -> State:
        """The state of the run's network, for its shapes."""
        network = run.start.network.model_dump_json()
        if network not in self._states:
            start = run.start.model_copy(update={"trained": None, "signs": None})
            self._states[network] = self.experiment.workload.initial_state(start, no_stored_states)
        return self._states[network]

    def _outcome_bytes(self, run: Run) -> int:
        shape = run.shape, run.mask.digest
        if shape not in self._sizes:
            self._sizes[shape] = outcome_bytes(run, self._state(run))
        return self._sizes[shape]

    def _row(self, branch: str, level: int, network: str, iterations: int, tally: _Tally) -> PlannedRuns:
        each = self._costs.total(tally.loads)
        count = tally.loads.total()
        return PlannedRuns(
            branch=branch,
            level=level,
            network=network,
            iterations=iterations,
            weights_left=tally.density / tally.trainings,
            trainings=tally.trainings,
            in_store=tally.in_store,
            seconds=_estimate(each.times(1 / count)) if each and count else None,
        )

    def _time(self, loads: Mapping[Load, int], basis: Basis) -> PlannedTime | None:
        total = self._costs.total(loads)
        if not loads or total is None:
            return None
        longest = max((self._costs.total(chain) or NOTHING for chain in self._chains.values()), default=NOTHING)
        factors = FROM_STORE if basis == "store" else FROM_TRIAL
        time = wall_time(total, longest, self.workers).times(*factors)
        return PlannedTime(low=time.low, high=time.high, basis=basis)

    def _memory(self, tried: bool) -> PlannedMemory:
        """This process has loaded the data and built the network; after a trial, it has trained. A driver keeps the
        masks of all its studies."""
        state = max((training_bytes(state) for state in self._states.values()), default=0)
        process = peak_memory() + (0 if tried else state)
        driver = process + sum(self._masks.values())
        worker = state if self.threads else process
        others = self.workers - 1 if self.threads or self.workers == 1 else self.workers
        return PlannedMemory(worker=worker, driver=driver, total=driver + others * worker)


def _estimate(interval: Interval) -> Estimate:
    return Estimate(low=interval.low, high=interval.high)
