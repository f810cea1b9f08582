"""Trainings in two processes, whose outcomes are compared in `test_engine.py`."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import distributed, nn

from tests.support.networks import BATCH_NORM, CONVOLUTIONAL, TIED_WEIGHTS
from tests.support.recipes import tiny
from tests.support.training import (
    SGD,
    Interrupted,
    InterruptingCheckpoint,
    dense_run,
    no_checkpoint,
    pruned_run,
)
from tombola._run_experiment import run_experiment
from tombola.engines import Engine
from tombola.engines.distributed.engine import Distributed
from tombola.engines.distributed.job import in_one_job, once_in_job
from tombola.pruning.mask import State
from tombola.runs.checkpoint import Checkpoint
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.utils.duration import Duration

SHORT = SGD | {"length": "20it", "evaluate_every": "5it"}
AUGMENTED = {"name": "digits", "validation": 200, "flip": True, "crop": 1}
LION = {"optimizer": "tests.support.lion:Lion", "lr": 1e-3, "weight_decay": 0.1}
EVERYTHING = {"label_smoothing": 0.1, "mixup": 0.4, "ema": 0.8, "clip_norm": 0.1}


class FailsElsewhere(nn.Sequential):
    """A network that the second process cannot build."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        if distributed.is_initialized() and distributed.get_rank() == 1:
            raise ValueError("no space left")


def a_run(data: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **training: Any) -> Run:
    given = {"data": data, "model": model}
    return pruned_run(0.3, training=SHORT | training, **{name: value for name, value in given.items() if value})


def continued(**training: Any) -> list[Run]:
    """A training that is paused, continued with its optimizer, and rewound."""
    run = a_run(momentum=0.9, **training)
    trunk = run.paused(10)
    return [trunk, run.resuming(trunk), run.after(trunk, begin=10)]


def averaged() -> list[Run]:
    """Two untrained networks, and their average with running statistics of its own."""
    dense = dense_run(model=BATCH_NORM, training=SHORT)
    ends = [dense.reinitialised(seed).until(0) for seed in (1, 2)]
    return [*ends, dense.averaging(ends, dense.last, Duration(iterations=5))]


def streamed(folder: Path) -> Run:
    """A training on images that are read from files."""
    images = {"name": str(folder), "validation": 6, "size": 12, "stream": True, "scale": "range"}
    options = {"flip": True, "resized_crop": 8, "shuffle_buffer": 12}
    model = {"name": "conv-2", "width": 0.05}
    training = SHORT | {"batch_size": 8, "momentum": 0.9, "mixup": 0.4}
    return pruned_run(0.5, data=images | options, model=model, training=training, search__output_rate=None)


TRAININGS: dict[str, list[Run]] = {
    "sgd": [a_run(momentum=0.9, weight_decay=1e-3)],
    "adam": [a_run(optimizer="adam", lr=3e-3, weight_decay=1e-2)],
    "lion": [a_run(**LION)],
    "everything": [a_run(data=AUGMENTED, momentum=0.9, **EVERYTHING)],
    "augmented": [a_run(data=AUGMENTED)],
    "unused": [a_run(model=TIED_WEIGHTS, momentum=0.9)],
    "continued": continued(),
    "evaluated": [dense_run(training=SHORT).until(0)],
    "averaged": averaged(),
}
"""Runs, each of which may start from those before it; nothing is trained with batch norm or dropout."""

RESUMED = {
    "adam": a_run(model=CONVOLUTIONAL, optimizer="adam", lr=3e-3),
    "everything": a_run(model=CONVOLUTIONAL, data=AUGMENTED, **LION | EVERYTHING),
}
"""With batch norm and dropout."""

REFUSED = {
    "batch": a_run(batch_size=41),
    "noisy": a_run(optimizer="tests.support.noisy_optimizer:Noisy"),
    "elsewhere": a_run(model={"name": f"{__name__}:FailsElsewhere"}),
}


def train_in_order(engine: Engine[Run], runs: Sequence[Run]) -> list[Outcome]:
    """Train one run after another; each may start from those before."""
    outcomes: dict[str, Outcome] = {}

    def load_state(key: str, /, *, optimizer: bool = False) -> State:
        return outcomes[key].optimizer if optimizer else outcomes[key].final

    for run in runs:
        (outcomes[run.key],) = engine.train([run], no_checkpoint(), load_state)
    return [*outcomes.values()]


def train(run: Run, checkpoint: Checkpoint) -> Outcome:
    (outcome,) = Distributed().train([run], checkpoint)
    return outcome


def resumed(run: Run, path: Path) -> list[Outcome]:
    """The outcomes of a training, and of the same one that was interrupted and resumed."""
    whole = train(run, no_checkpoint())
    try:
        train(run, InterruptingCheckpoint(path))
    except Interrupted:
        return [whole, train(run, Checkpoint(path))]
    raise AssertionError("it was not interrupted")


def work(rank: int, folder: Path) -> None:
    """All of this, in each process."""

    def save(name: str, call: Callable[[], Any], start: Callable[..., Any] = in_one_job) -> None:
        try:
            result = start(call)
        except ValueError as error:
            result = error
        (folder / f"{name}-{rank}.pickle").write_bytes(pickle.dumps(result))

    for name, runs in TRAININGS.items():
        save(name, partial(train_in_order, Distributed(), runs))
    for name, run in RESUMED.items():
        save(f"resumed {name}", partial(resumed, run, folder / f"{name}.safetensors"))
    for name, run in REFUSED.items():
        save(f"refused {name}", partial(train, run, no_checkpoint()))
    save("folder", lambda: folder)
    save("different", partial(once_in_job(str), rank), start=lambda call: call())
    save("streamed", partial(train, streamed(folder / "data"), no_checkpoint()))
    save("norm", partial(train, a_run(model=BATCH_NORM), no_checkpoint()))
    recipe = tiny(replicates=1, controls__reinit=0, search__levels=1)
    save("experiment", partial(run_experiment, recipe, folder / "results", progress=False))
    save("workers", partial(run_experiment, recipe, folder / "none", workers=2))
    save("engine", partial(run_experiment, recipe, folder / "none", engine="sparse"))
