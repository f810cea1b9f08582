"""Loggers: what runs measured, in TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tombola.runs.outcome import Outcome
from tombola.studies.request import Position, RunRequest
from tombola.utils.errors import InputError, unknown
from tombola.utils.extras import require
from tombola.utils.text import first_line


class Logger(Protocol):
    """Somewhere to write numbers to."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write values by name, as of this iteration. Any name may begin again at any iteration."""

    def close(self) -> None:
        """Nothing more will come."""


class TensorBoard:
    """Writes event files to `folder`, for `tensorboard --logdir`.

    Raises `InputError` where TensorBoard is not installed or the folder cannot be written.
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise InputError(f"the TensorBoard folder {folder} cannot be written: {error.strerror}") from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # it is not closed by whoever forgets to

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()


class WeightsAndBiases:
    """Logs to a run of Weights & Biases: a new one, made by `wandb.init(**options)`, or one of your own.

    Steps of such a run can only grow, and every training begins anew, so every name has an axis of its own,
    `tombola/iteration`. A run of your own gets these names and nothing else, and is not finished; but each point is
    one step of it, so whoever gives `step` to `wandb.log` should let tombola have a new one.

    Raises `InputError` where wandb is not installed or cannot begin.
    """

    AXIS = "tombola/iteration"

    def __init__(self, run: Any = None, **options: Any) -> None:
        self._own = run is None
        self._names: set[str] = set()
        if run is None:
            wandb = require("wandb", "wandb")
            try:
                run = wandb.init(**{"reinit": "create_new"} | options)  # not a run that is there already
            except Exception as error:
                raise InputError(f"wandb: {first_line(error)}") from error
        self._run = run
        self._run.define_metric(self.AXIS, hidden=True)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        for name in values:
            if name not in self._names:
                self._names.add(name)
                self._run.define_metric(name, step_metric=self.AXIS)
        self._run.log({**values, self.AXIS: step})

    def close(self) -> None:
        """See `Logger`."""
        if self._own:
            self._run.finish()


class MLflow:
    """Logs to a run of MLflow: a new one in the experiment of that name, or the one that has this `run_id`, which is
    not ended. MLflow's active run, if there is one, is left alone.

    `tracking_uri` says where; by default `MLFLOW_TRACKING_URI`, or MLflow's own default.
    Raises `InputError` where MLflow is not installed or that place cannot be used.
    """

    def __init__(
        self, experiment: str = "tombola", *, tracking_uri: str | None = None, run_id: str | None = None
    ) -> None:
        mlflow = require("mlflow", "mlflow")
        self._metric: Callable[..., Any] = require("mlflow.entities", "mlflow").Metric
        self._own = run_id is None
        try:
            self._client = mlflow.MlflowClient(tracking_uri)
            self._run = run_id or self._client.create_run(self._experiment(experiment)).info.run_id
            self._client.get_run(self._run)
        except Exception as error:
            raise InputError(f"mlflow: {first_line(error)}") from error

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        made: str = known.experiment_id if known else self._client.create_experiment(name)
        return made

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [self._metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        """See `Logger`."""
        if self._own:
            self._client.set_terminated(self._run)


LOGGERS: dict[str, Callable[[str], Logger]] = {
    "tensorboard": lambda folder: TensorBoard(folder or "runs"),
    "wandb": lambda project: WeightsAndBiases(project=project or "tombola"),
    "mlflow": lambda experiment: MLflow(experiment or "tombola"),
}


def logger(spec: str) -> Logger:
    """The logger for `tensorboard[:FOLDER]`, `wandb[:PROJECT]` or `mlflow[:EXPERIMENT]`.

    Raises `InputError` for another name, and where that library cannot be used.
    """
    name, _, where = spec.partition(":")
    if name not in LOGGERS:
        raise unknown("logger", name, LOGGERS)
    return LOGGERS[name](where)


class Logging:
    """Listens to the conductor, and logs what came of every run, whether it was trained or came from the store.

    Curves have names such as `ticket/level-03/replicate-0/validation_loss`, at the iterations they were measured at;
    what is measured once stands under `.../measures/`, at the last iteration. Draws of controls, and points between
    networks, have their own part of the name. The logger is closed by whoever made it.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._answered: set[tuple[int, Position]] = set()
        self._names: set[str] = set()

    def started(self, study: int, ask: RunRequest) -> None:
        """See `Listener`."""

    def answered(self, study: int, ask: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`."""
        if (study, ask.place) in self._answered:  # a study may ask again for what it knows
            return
        self._answered.add((study, ask.place))
        name = _name(study, ask)
        if name in self._names:
            name += f"/run-{ask.run.key[:8]}"
        self._names.add(name)
        curves = {curve: values.tolist() for curve, values in outcome.curves.items()}
        iterations = curves.pop("iteration", [])
        for index, iteration in enumerate(iterations):
            self._logger.log({f"{name}/{curve}": values[index] for curve, values in curves.items()}, iteration)
        measures = outcome.measures.model_dump(exclude_none=True)
        once = {f"{name}/measures/{measure}": float(value) for measure, value in measures.items()}
        self._logger.log(once, outcome.measures.iterations)


def _name(study: int, ask: RunRequest) -> str:
    parts = [ask.branch, f"level-{ask.level:02}", f"replicate-{study}"]
    if ask.branch != "ticket":
        parts.append(f"draw-{ask.draw}")
    if ask.point is not None:
        parts.append(f"k-{ask.point.k}/share-{ask.point.share:.2f}")
    return "/".join(parts)
