"""Perform an experiment: from a recipe to a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tombola.engines import engine as named_engine
from tombola.experiments.experiment import Experiment
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import TICKET, Results, Tally, read_results
from tombola.experiments.results_writer import ResultsWriter
from tombola.report.prose import answer
from tombola.runs.initial_state import masked_network
from tombola.runs.store import Store, check_writable
from tombola.stats.summary import summarise
from tombola.studies.conductor import Listener, ListenerGroup, conduct
from tombola.tickets.ticket import Ticket
from tombola.utils.versions import versions
from tombola.utils.workers import parallel_executor


def run_experiment(
    recipe: Recipe,
    out: Path,
    *,
    store: Path | None = None,
    engine: str = "auto",
    device: str = "cpu",
    workers: int = 1,
    data_dir: Path | None = None,
    checkpoint_every: float = 30.0,
    listeners: Sequence[Listener] = (),
    command: str | None = None,
) -> Results:
    """Run the experiment of `recipe`, or go on with it, and leave its results in the folder `out`.

    Runs are remembered in the folder `store` (default: `.tombola` beside `out`), which experiments may share;
    `workers` runs train side by side, in threads or in processes, as the engine likes it; the result does not depend
    on that, but for stacked runs in their last bits and their dropout. (From a script, processes need the usual
    `if __name__ == "__main__":`.) Whatever stops it, finished runs are kept, trainings under way save themselves
    every `checkpoint_every` seconds, and calling it again goes on. `command` is noted in the results, for whoever
    wants to do it again.
    Raises `InputError` for anything wrong in the recipe, the data or the folders.
    """
    answers = named_engine(engine, data_dir, device)
    experiment = Experiment(recipe, data_dir)
    store = store or out.parent / ".tombola"
    remembered = Store(store, checkpoint_every)
    results = ResultsWriter(out, recipe, command, remembered.recall)
    check_writable(store)
    try:
        # What trains in plain PyTorch draws from its global generator, which threads would share.
        threads = all(answers.capacity(run).threads for run in experiment.kinds)
        with parallel_executor(workers, threads) as executor:
            listener = ListenerGroup([results, *listeners])
            conduct(experiment.studies(), remembered, answers, executor, listener, workers)
    except BaseException:
        results.interrupted()
        raise
    _keep_ticket(results, remembered)
    results.write(finished=True)
    return read_results(out)


def _keep_ticket(results: ResultsWriter, store: Store) -> None:
    """Write the smallest winning ticket; among replicates, the one of best validation accuracy at early stop."""
    recipe, rows, path = results.recipe, results.rows, results.folder / TICKET
    summary = summarise(Results(recipe, rows, finished=True, tally=Tally()))
    found = summary["smallest_winning"]
    if found is None:
        path.unlink(missing_ok=True)
        return
    tickets = {(row.level, row.replicate): row for row in rows if row.branch == "ticket"}
    here = [row for (level, _), row in tickets.items() if level == found["level"]]
    best = max(here, key=lambda row: row.measures.validation_accuracy_at_stop or 0.0)
    run = results.tickets[best.level, best.replicate].run
    verdict = next(level["verdict"] for level in summary["levels"] if level["level"] == best.level)
    provenance = {
        "recipe": recipe.resolved(),
        "replicate": best.replicate,
        "level": best.level,
        "run": run.description,
        "key": run.key,
        "measures": best.measures.model_dump(),
        "dense": tickets[0, best.replicate].measures.model_dump(),
        "verdict": verdict | {"sentence": answer(summary)},
        "versions": versions(),
    }
    start = masked_network(run, store.recall).state_dict()
    Ticket(run.mask, start, provenance, store.recall(run.key), drawn=run.start).save(path)
