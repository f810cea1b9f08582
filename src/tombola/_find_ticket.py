"""Find a ticket in any network, with any training function."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tombola.engines.custom.engine import CustomEngine, EvaluateFunction, TrainFunction
from tombola.engines.custom.fingerprint import training_fingerprint
from tombola.engines.custom.model import CustomModel, Model
from tombola.experiments.custom_search import MARK, CustomSearch
from tombola.pruning.mask import State
from tombola.pruning.network_state import network_state, persistent_tensors
from tombola.pruning.options import PruningOptions
from tombola.pruning.scores import Score
from tombola.pruning.scores.losses import Loss, loss_function
from tombola.pruning.structures import Heads
from tombola.report.printable_level_table import PrintableLevelTable
from tombola.report.progress import live_display
from tombola.runs.run import BaseRun
from tombola.runs.store import Store, check_writable, shared_store
from tombola.stats.direction import Minimize, is_valid
from tombola.stats.level_table import LevelTableListener
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.studies.controls import CONTROLS
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError, unknown
from tombola.utils.libraries import versions
from tombola.utils.seeds import check_seed
from tombola.utils.workers import InlineExecutor

EXCLUDED_CONTROLS = ("large_init", "rewound")
"""`score="large_init"` gives the first without training; the second is the ticket itself."""


class SearchResult(NamedTuple):
    """What `find_ticket` returns."""

    ticket: Ticket
    """The sparsest that matches the dense network; if none does, or nothing was evaluated, the sparsest of all."""
    levels: PrintableLevelTable
    """The table of all levels. It prints itself, and says which match."""


def find_ticket(
    model: Model,
    train: TrainFunction,
    *,
    evaluate: EvaluateFunction | None = None,
    minimize: Minimize = False,
    levels: int = 5,
    rate: float | None = None,
    density: float | None = None,
    scope: str = "layer",
    rates: Mapping[str, float] | None = None,
    leave_out: Sequence[str] = (),
    include: Sequence[str] = (),
    outputs: Sequence[str] | None = None,
    score: str | Score = "magnitude",
    structure: str | Heads = "weights",
    rounds: int | None = None,
    rewind: int | Literal["mark"] = 0,
    one_shot: bool = False,
    replicates: int = 1,
    controls: Mapping[str, int] | None = None,
    margin: float = 0.01,
    confidence: float = 0.95,
    data: Iterable[Any] | None = None,
    loss: str | Loss = "cross_entropy",
    seed: int = 0,
    store: str | Path | None = None,
    settings: object = None,
    progress: bool | None = None,
    listeners: Sequence[Listener] = (),
) -> SearchResult:
    """Train, prune, rewind, repeat (Frankle & Carbin 2019, section 1), with your own training function.

    `model` is a network, of which every training gets a copy, or a function that makes a new one for every training.
    `train(model)` trains it, with any loop, optimizer and framework; it must create its own optimizer. During
    training, pruned weights are held at zero (see `tombola.hold`); nothing else about the network is changed. The
    global random states of Python, NumPy and torch are set to the same seed for all trainings of a replicate, and
    restored afterwards. (A framework that sets its own seed, such as Hugging Face's Trainer, makes all replicates
    alike: give it `torch.initial_seed()`. Replicates that end in the same weights are not tested, and the table says
    so.)

    `evaluate(model)` returns how good the network is: a number, higher is better, or several by name, of which the
    first is judged. It is called in evaluation mode, without gradients. Use validation examples here, and others for
    the results that you report. By default, the return value of `train` is used. Where lower is better, as for a
    loss, give `minimize=True`, or the names of such figures.

    - `levels`: the number of prunings. `rate`: the fraction of the remaining weights that each removes (default 0.2);
      or `density`: the fraction left after all of them. `rates` sets it for single layers, by name or pattern.
    - `scope`, `leave_out`, `include`, `outputs`, `score`, `structure`, `rounds`, `data` and `loss` are those of
      `tombola.prune`: scores that need examples use `data`, an iterable of batches, which are drawn under a seed
      derived from `seed`.
    - `rewind`: weights are rewound to their values after this many optimizer steps or, with `"mark"`, where `train`
      calls `tombola.mark()`. If `train` has a parameter `begin`, it is called as `train(model, begin=steps)` from
      there; otherwise it trains its full length from these weights, for the dense network too.
    - `one_shot`: prune the trained dense network once to each density.
    - `replicates`: repeat with other seeds, and other initial weights if `model` is a function. `controls`: the
      number of draws of each, `{"reinit": 1, "random": 1}`; see `tombola.studies.controls`.
    - `margin`: how much worse than the dense network's the figure of a ticket may be that matches it; `confidence`:
      see `LevelTable`.
    - `store`: a folder for finished trainings, from which the same call resumes; by default nothing is kept. They
      are identified by the source of the functions, and by the plain values, arrays and functions that these refer
      to; put anything else that they depend on into `settings` (see `tombola.engines.custom.fingerprint`).
    - `progress`: show it, in a terminal on standard error or in a notebook; by default where there is one.
      `listeners` are notified of every training.

    In a distributed job all processes make the same call; a training counts as finished when all of them have it.

    Raises `InputError` for invalid arguments. Exceptions of `train` and `evaluate` pass through; finished trainings
    stay in `store`.
    """
    _check_arguments(rewind, replicates, margin, confidence, minimize)
    check_seed(seed)
    options = PruningOptions(
        levels=levels,
        rate=rate,
        density=density,
        scope=scope,
        rates=rates or {},
        leave_out=leave_out,
        include=include,
        outputs=outputs,
        score=score,
        structure=structure,
        rounds=rounds,
    )
    source = CustomModel(model)
    network = source.initial_network(source.start(0))
    prunable = options.prunable(network)
    pruner, dense = options.pruner(prunable), prunable.dense
    pruner.check_levels(dense, levels)
    search = CustomSearch(
        source=source,
        dense=dense,
        pruner=pruner,
        data=data,
        loss=loss_function(loss),
        levels=levels,
        one_shot=one_shot,
        rewind=rewind,
        controls=_checked_controls(controls or {}, source),
        seed=seed,
        procedure="" if store is None else training_fingerprint(train, evaluate, settings),
        device=next(network.parameters()).device,
    )
    table = PrintableLevelTable(margin, confidence, matrix_weights=prunable.matrix_weights, minimize=minimize)
    with contextlib.ExitStack() as stack:
        folder = Path(store if store is not None else stack.enter_context(tempfile.TemporaryDirectory()))
        check_writable(folder)
        run_store = shared_store(folder)

        def initial(run: BaseRun) -> State:
            return network_state(source.initial_network(run.start, run_store.load_state))

        collector = LevelTableListener(table, initial if replicates > 1 else None)
        display = stack.enter_context(live_display(table, replicates * search.runs, progress))
        studies = [search.study(replicate) for replicate in range(replicates)]
        engine = CustomEngine(source, train, evaluate)
        conduct(studies, run_store, engine, InlineExecutor(), ListenerGroup([collector, display, *listeners]))
        return SearchResult(_best_ticket(collector, source, run_store), table)


def _best_ticket(collector: LevelTableListener, source: CustomModel, store: Store) -> Ticket:
    """The sparsest ticket that matches; of its replicates the best."""
    table, tickets = collector.table, collector.tickets
    match = table.sparsest_match
    level = match.level if match is not None and match.level else max(level for level, _ in tickets)
    best = table.best_replicate(level, [replicate for at, replicate in tickets if at == level])
    run = tickets[level, best]
    network = source.initial_network(run.start, store.load_state)
    run.mask.apply_(network)
    initial = network_state(network)
    start = {name: initial[name] for name in persistent_tensors(network)}
    final = store.load_state(run.key)
    trained = {name: final[name] for name in start if name in final}
    provenance = {
        "level": level,
        "replicate": best,
        "matrix_weights": table.matrix_weights,
        "state": table[level].state,
        "figures": {str(row.replicate): row.figures for row in table.of("ticket", level)},
        "run": run.description,
        "key": run.key,
        "versions": versions(),
    }
    return Ticket(run.mask, start, provenance, trained if trained.keys() == start.keys() else None)


def _check_arguments(rewind: object, replicates: int, margin: object, confidence: object, minimize: object) -> None:
    is_step = isinstance(rewind, int) and rewind >= 0
    checks: list[tuple[str, object, bool, str]] = [
        ("replicates", replicates, isinstance(replicates, int) and replicates >= 1, "at least 1"),
        ("rewind", rewind, rewind == MARK or is_step, f'a number of optimizer steps, or "{MARK}"'),
        ("margin", margin, isinstance(margin, int | float) and margin >= 0, "at least 0"),
        ("confidence", confidence, isinstance(confidence, float) and 0.5 < confidence < 1, "between 0.5 and 1"),
        ("minimize", minimize, is_valid(minimize), "True, False, or names of figures"),
    ]
    for name, value, valid, expected in checks:
        if not valid:
            raise InputError(f"{name}: should be {expected}, not {value!r}")


def _checked_controls(controls: Mapping[str, int], source: CustomModel) -> Mapping[str, int]:
    known = [name for name in CONTROLS if name not in EXCLUDED_CONTROLS]
    for name, draws in controls.items():
        if name not in known:
            raise unknown("control", name, known)
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
            raise InputError(f'controls: "{name}" should have a number of draws, not {draws!r}')
        if name == "reinit" and not source.draws_anew:
            raise InputError(
                'controls: "reinit" needs new initial weights: give a function that makes the model and draws them '
                "from the global random states"
            )
    return controls
