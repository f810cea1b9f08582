"""Find a ticket in any network, with any training function."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tombola._perform import collector_of, perform
from tombola.engines.custom.direction import Minimize, is_valid
from tombola.engines.custom.engine import CustomEngine, TrainFunction, accepts_begin
from tombola.engines.custom.evaluations import EvaluateFunction
from tombola.engines.custom.fingerprint import training_fingerprint
from tombola.engines.custom.model import CustomModel, Model
from tombola.experiments.custom_baselines import Baselines, by_label
from tombola.experiments.custom_config import custom_config, described_search, experiment_name, import_path
from tombola.experiments.custom_workload import CustomWorkload
from tombola.experiments.experiment import Experiment, count_runs
from tombola.experiments.experiment_log import ExperimentLog
from tombola.experiments.sections import AUTO, MARK
from tombola.pruning.example_inputs import first_inputs
from tombola.pruning.options import PruningOptions
from tombola.pruning.scores import Score
from tombola.pruning.scores.losses import Loss, loss_function
from tombola.pruning.structures import Heads
from tombola.pruning.structures.unit_structure import Cost
from tombola.pruning.structures.units import GroupScore
from tombola.report.page import REPORT, write_report
from tombola.report.printable_results import PrintableResults
from tombola.report.progress import announce, live_display
from tombola.report.prose import conclusion
from tombola.runs.distributed_store import first_process
from tombola.runs.opening import shared_store
from tombola.studies.conductor import Listener
from tombola.studies.controls import REDRAWN_CONTROLS
from tombola.tickets.selection import best_level, ticket_of
from tombola.tickets.ticket import Ticket
from tombola.utils.errors import InputError
from tombola.utils.model_inputs import Inputs
from tombola.utils.seeds import check_seed
from tombola.utils.workers import InlineExecutor

log = logging.getLogger(__name__)


class SearchResult(NamedTuple):
    """What `find_ticket` returns."""

    ticket: Ticket
    """The smallest winning ticket. If none wins, the sparsest ticket whose mean is within the margin; if there is no
    such ticket, the sparsest of all. `Ticket.provenance` has the verdict."""
    levels: PrintableResults
    """The results of all levels. They print as a table with the verdict."""

    def _repr_html_(self) -> str:
        return f"{self.levels._repr_html_()}{self.ticket._repr_html_()}"


def find_ticket(
    model: Model,
    train: TrainFunction,
    *,
    evaluate: EvaluateFunction | None = None,
    test: EvaluateFunction | None = None,
    baselines: Baselines = (),
    every: int | None = None,
    minimize: Minimize | None = None,
    stop_on: str | None = None,
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
    group_score: GroupScore = "mean",
    round_to: int = 1,
    cost: Cost = "units",
    example: Inputs | None = None,
    rewind: int | Literal["mark", "auto"] = 0,
    one_shot: bool = False,
    replicates: int = 1,
    controls: Mapping[str, Any] | None = None,
    stability: Mapping[str, Any] | None = None,
    margin: float | str = 0.01,
    confidence: float = 0.95,
    verdict: Mapping[str, Any] | None = None,
    data: Iterable[Any] | None = None,
    loss: str | Loss = "cross_entropy",
    seed: int = 0,
    out: str | Path | None = None,
    store: str | Path | None = None,
    settings: object = None,
    executor: Executor | None = None,
    progress: bool | None = None,
    listeners: Sequence[Listener] = (),
) -> SearchResult:
    """Train, prune, rewind, repeat (Frankle & Carbin 2019, section 1), with your own training function.

    `model` is a network, which is copied for every training, or a function that makes a new network for every
    training. `train(model)` trains it, with any loop, optimizer and framework; it must create its own optimizer.
    During training, pruned weights are held at zero (see `tombola.hold`); nothing else about the network is changed.
    The global random states of Python, NumPy and torch are set to the same seed for all trainings of a replicate (one
    repetition of the experiment), and restored afterwards. (A framework that sets its own seed, such as Hugging
    Face's Trainer, makes all replicates the same: pass it `torch.initial_seed()`. Replicates that end in the same
    weights prove nothing, and the verdict says so.)

    `evaluate(model)` measures the network on validation examples and returns a number, or several by name. It is
    called in evaluation mode, without gradients, every `every` steps of the optimizer that trains the network, and at
    the end. (If `train` calls `tombola.evaluate()`, it decides itself when to evaluate.) The early stop is the first
    evaluation with the best value of the figure `stop_on`, by default the first figure. `test(model)` is called once,
    with the weights of the early stop, and returns the figure that is judged. Without `test`, the first figure of
    `evaluate` is judged; without `evaluate`, what `train` returns. Without `every`, the network is evaluated only at
    the end; then the verdict does not ask whether tickets train as fast as the dense network. Higher is better,
    except for figures called a loss, an error, a perplexity or the like. `minimize` overrides this: True, False, or
    the names of the figures for which lower is better.

    - `levels`: the number of prunings. `rate`: the fraction of the remaining weights that each removes (default 0.2);
      or `density`: the fraction left after all of them. `rates` sets it for single layers, by name or pattern.
    - `scope`, `leave_out`, `include`, `outputs`, `score`, `structure`, `rounds`, `group_score`, `round_to`, `cost`,
      `example`, `data` and `loss` have the same meaning as in `tombola.prune`. Scores that need examples use `data`,
      an iterable of batches, which are drawn under a seed derived from `seed`.
    - `rewind`: weights are rewound to their values after this many optimizer steps or, with `"mark"`, to their values
      when `train` calls `tombola.mark()`. If `train` has a parameter `begin`, it is called as
      `train(model, begin=steps)` from there; otherwise it trains its full length from these weights, for the dense
      network too. `"auto"`: in each replicate, the smallest stable candidate of `stability`.
    - `one_shot`: prune the trained dense network once to each density.
    - `replicates`: repeat with other seeds, and other initial weights if `model` is a function. `controls`: the
      number of draws of each, `{"reinit": 1, "random": 1}`; see `tombola.studies.controls`.
    - `stability`: the keys of a recipe's `[stability]`. `{"candidates": [0, 100]}`, in optimizer steps, measures the
      barriers between trainings of the dense network that share their first steps. `{"tickets": True}` measures the
      barriers between tickets of successive levels, and between trainings of one ticket with other seeds.
      `tolerance` is in the units of the judged figure. See docs/how-to/your-own.md.
    - `baselines`: other functions that train the dense network, such as `[partial(train, lr=0.3)]`, or by name:
      `{"lr 0.3": ...}`. The verdict is about the dense network trained by `train`. In addition, tickets are compared
      with the best of all these trainings, chosen on the validation examples (docs/explanation/verdict.md).
    - `margin`: how much worse than the dense network's the judged figure may be, in its own units, or relative, as
      `"1%"`. `confidence` is the confidence level of each statement. `verdict` is a dictionary with the other keys of
      a recipe's `[verdict]`. See docs/explanation/verdict.md.
    - `out`: a results folder, with the same files as a recipe's, including `report.html`; the commands of `tombola`
      work on it. The same call resumes; a call with more replicates, levels, controls or baselines extends it.
    - `store`: a folder, or a URL (docs/how-to/store.md), that keeps finished trainings, so that the same call
      resumes. The default is `.tombola` beside `out`; without `out`, nothing is kept. Trainings are identified by the
      source of the functions, and by the plain values, arrays and functions that these refer to. Put anything else
      that they depend on into `settings` (see `tombola.engines.custom.fingerprint`).
    - `executor`: any `concurrent.futures.Executor`; its workers train, in processes or on machines of a cluster (see
      docs/how-to/clusters.md). The model and the functions are sent to them with pickle, or with cloudpickle if it is
      installed. Each training has one CPU thread, unless a function sets more. A training that fails is tried three
      times.
    - `progress`: shown in a notebook, otherwise on standard error: a bar in a terminal, elsewhere one line per
      minute. It is not shown if False; in a distributed job only the first process shows it. `listeners` are notified
      of every training.

    In a distributed job, all processes make the same call; a training counts as finished when all of them have it.

    Raises `InputError` for invalid arguments. Exceptions of `train` and `evaluate` pass through, except with an
    `executor`: then `TrainingsFailed` names the trainings that failed, once all others are finished. Finished
    trainings stay in `store`.
    """
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
        group_score=group_score,
        round_to=round_to,
        cost=cost,
    )
    check_seed(seed)
    if rewind not in (MARK, AUTO) and not (isinstance(rewind, int) and rewind >= 0):
        raise InputError(f'rewind: should be a number of optimizer steps, "{MARK}" or "{AUTO}", not {rewind!r}')
    for name, given in (("every", every), ("test", test), ("stability", stability)):
        if given is not None and evaluate is None:
            raise InputError(f"{name}: needs evaluate, a function that says how good the network is")
    for name, table in (("controls", controls), ("stability", stability), ("verdict", verdict)):
        if not isinstance(table, Mapping | None):
            raise InputError(f"{name}: should be a dictionary, not {table!r}")
    if not is_valid(minimize):
        raise InputError(f"minimize: should be True, False, or names of figures, not {minimize!r}")
    source = CustomModel(model)
    network = source.initial_network(source.start(0))
    prunable = options.prunable(network, partial(first_inputs, data) if example is None else example)
    pruner = options.pruner(prunable)
    pruner.check_levels(prunable.dense, levels)
    functions = {"model": model, "train": train, "evaluate": evaluate, "test": test}
    named = {name: import_path(function) for name, function in functions.items() if function is not None}
    kept = out is not None or store is not None
    tested = [] if test is None else [test]  # none leaves the fingerprint as it was before there were tests

    def fingerprint(function: TrainFunction) -> str:
        return training_fingerprint(function, evaluate, settings, *tested) if kept else ""

    others = [*by_label(train, baselines).items()]
    if others and rewind != 0 and not accepts_begin(train):
        raise InputError(
            "baselines: with rewind, train needs a parameter `begin`; otherwise it trains longer than the baselines, "
            "which start from initial weights"
        )
    procedures = [fingerprint(function) or f"baseline {draw}" for draw, (_, function) in enumerate(others)]
    config = custom_config(
        {
            "name": _name(out, model),
            "replicates": replicates,
            "seed": seed,
            "search": described_search(options, one_shot),
            "rewind": {"to": f"{rewind}it" if isinstance(rewind, int) else rewind},
            "stability": stability and dict(stability),
            "controls": dict(controls or {}),
            "verdict": {"margin": margin, "confidence": confidence, **(verdict or {})},
            "functions": named | {"fingerprint": fingerprint(train)},
            "baseline": [
                {"label": label, "train": import_path(function), "fingerprint": procedure}
                for (label, function), procedure in zip(others, procedures, strict=True)
            ]
            or None,
            "evaluation": {"every": every, "minimize": _names(minimize), "stop_on": stop_on},
        }
    )
    redrawn = next((name for name in REDRAWN_CONTROLS if name in config.controls), None)
    if redrawn and not source.draws_anew:
        raise InputError(
            f'controls: "{redrawn}" needs new initial weights: give a function that makes the model and draws them '
            "from the global random states"
        )
    given = {"data": data, "loss": loss_function(loss), "other_procedures": procedures}
    workload = CustomWorkload.of(config, source, prunable, pruner, **given)
    candidates = [length.iterations for length in config.stability.candidates] if config.stability else []
    experiment = Experiment(config, workload, rewind if isinstance(rewind, int) else None, candidates)
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(ExperimentLog())
        if store is None:
            beside = None if out is None else Path(out).parent / ".tombola"
            store = beside or stack.enter_context(tempfile.TemporaryDirectory())
        runs = shared_store(store)
        collector = collector_of(experiment, runs, find_copies=replicates > 1)
        shown = progress if first_process() else False
        folder = Path(out) if out is not None and first_process() else None
        display = stack.enter_context(live_display(collector, count_runs(config), shown, folder))
        by_procedure = dict(zip(procedures, (function for _, function in others), strict=True))
        engine = CustomEngine(source, train, evaluate, test, by_procedure)
        remote = executor is not None
        results = perform(
            experiment,
            runs,
            engine,
            executor or InlineExecutor(),
            collector,
            folder,
            [display, *listeners],
            workers=None if remote else 1,
            remote=remote,
            log=events,
        )
        if folder is not None:
            announce([display], "writing the report")
            try:
                write_report(results, folder / REPORT)
                events.note(f"The report is {folder / REPORT}.")
            except InputError as error:  # the results are there all the same
                log.warning("%s was not written: %s", folder / REPORT, error)
        summary = results.summary
        level = best_level(summary) or summary.levels[0]
        return SearchResult(ticket_of(experiment, collector, summary, level, runs, conclusion(summary)), results)


def _names(minimize: Minimize | None) -> bool | list[str] | None:
    if minimize is None or isinstance(minimize, bool):
        return minimize
    return [minimize] if isinstance(minimize, str) else sorted(minimize)


def _name(out: str | Path | None, model: Model) -> str:
    """The name of the experiment: the name of its folder, or otherwise of the model."""
    given = Path(out).resolve().name if out is not None else import_path(model).rpartition(":")[2]
    return experiment_name(given)
