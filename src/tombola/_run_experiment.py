"""run_experiment: from a recipe to a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.engines import engine as named_engine
from tombola.experiments.experiment import Experiment
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import TICKET, Results, read_results
from tombola.experiments.results_schema import Tally
from tombola.experiments.results_writer import ResultsWriter
from tombola.report.prose import conclusion
from tombola.runs.initial_state import masked_network
from tombola.runs.store import Store, check_writable
from tombola.stats.summarise import build_summary
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.tickets.ticket import Ticket
from tombola.utils.libraries import versions
from tombola.utils.workers import parallel_executor


def run_experiment(
    recipe: Recipe,
    out: str | Path,
    *,
    store: str | Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    workers: int = 1,
    data_dir: str | Path | None = None,
    checkpoint_every: float = 30.0,
    listeners: Sequence[Listener] = (),
    command: str | None = None,
) -> Results:
    """Run or resume the experiment of `recipe`; the results are written to the folder `out`.

    Trained runs are stored in the folder `store` (default: `.tombola` beside `out`), which experiments may share.
    `workers` runs are trained side by side, in threads or processes, as the engine requires; only the last bits and
    the dropout of stacked runs depend on that. (Processes need `if __name__ == "__main__":` in a script.) After an
    interruption, call it again to resume: finished runs are in the store, and runs in training save a checkpoint
    every `checkpoint_every` seconds. `command` is recorded in the results.
    Raises `InputError` if the recipe, the data or a folder is invalid.
    """
    out = Path(out)
    chosen_engine = named_engine(engine, data_dir, device)
    experiment = Experiment(recipe, data_dir)
    store_folder = out.parent / ".tombola" if store is None else Path(store)
    runs = Store(store_folder, checkpoint_every)
    results = ResultsWriter(out, recipe, command, runs.load_state, experiment.matrix_weights)
    check_writable(store_folder)
    try:
        # Plain PyTorch draws from its global generator, which threads would share.
        threads = all(chosen_engine.capacity(run).threads for run in experiment.sample_runs)
        with parallel_executor(workers, threads) as executor:
            listener = ListenerGroup([results, *listeners])
            conduct(experiment.studies(), runs, chosen_engine, executor, listener, workers)
    except BaseException:
        results.interrupted()
        raise
    _save_ticket(results, runs)
    results.write(finished=True)
    return read_results(out)


def _save_ticket(results: ResultsWriter, store: Store) -> None:
    """Save the smallest winning ticket, of the replicate with the best validation accuracy at early stop."""
    recipe, rows, path = results.recipe, results.rows, results.folder / TICKET
    matrix_weights = results.matrix_weights
    summary = build_summary(Results(recipe, rows, True, Tally(), matrix_weights=matrix_weights))
    winning = summary.smallest_winning
    if winning is None:
        path.unlink(missing_ok=True)
        return
    tickets = {(row.level, row.replicate): row for row in rows if row.branch == "ticket"}
    candidates = [row for (level, _), row in tickets.items() if level == winning.level]
    best = max(candidates, key=lambda row: row.measures["validation_accuracy_at_stop"] or 0.0)
    run = results.tickets[best.level, best.replicate].run
    provenance = {
        "recipe": recipe.resolved(),
        "replicate": best.replicate,
        "level": best.level,
        "run": run.description,
        "key": run.key,
        "matrix_weights": matrix_weights,
        "measures": best.measures.model_dump(),
        "dense": tickets[0, best.replicate].measures.model_dump(),
        "verdict": winning.verdict.to_dict() | {"sentence": conclusion(summary)},
        "versions": versions(),
    }
    start = masked_network(run, store.load_state).state_dict()
    Ticket(run.mask, start, provenance, store.load_state(run.key), drawn=run.start).save(path)
