"""Loggers: send curves and measures of runs to TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tombola.runs.outcome import Outcome
from tombola.studies.conductor import Listener
from tombola.studies.request import RequestId, RunRequest
from tombola.utils.errors import InputError, unknown
from tombola.utils.libraries import require
from tombola.utils.text import first_line


class Logger(Protocol):
    """Writes metrics to a file or a service."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics by name at this iteration. The iterations of a name may decrease."""

    def close(self) -> None:
        """Called after the last `log`."""


class NamedLogger(Logger, Protocol):
    """A logger that says where it writes."""

    @property
    def where(self) -> str:
        """Where it writes, in a few words."""

    @property
    def view(self) -> str:
        """The command or the address by which one looks at it."""


class TensorBoard:
    """Writes event files to `folder`, for `tensorboard --logdir`.

    Raises `InputError` if TensorBoard is not installed or the folder cannot be written.
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        require("tensorboard", "tensorboard")
        self._folder = Path(folder)
        from torch.utils.tensorboard import SummaryWriter

        try:
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise InputError(f"the TensorBoard folder {folder} cannot be written: {error.strerror}") from None

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # in case it is never closed

    def close(self) -> None:
        """See `Logger`."""
        self._writer.close()

    @property
    def where(self) -> str:
        """See `NamedLogger`."""
        return f"TensorBoard's event files are written to {self._folder}"

    @property
    def view(self) -> str:
        """See `NamedLogger`."""
        return shlex.join(["tensorboard", "--logdir", str(self._folder)])


class WeightsAndBiases:
    """Logs to a run of Weights & Biases: a new one, made by `wandb.init(**options)`, or the given `run`.

    The steps of a wandb run cannot decrease, but every training begins at iteration 0, so all names are plotted over
    `tombola/iteration`. A given run is not finished by `close`. Each point is one step of it: if you pass `step` to
    `wandb.log` yourself, let tombola make a new run.

    Raises `InputError` if wandb is not installed or the run cannot be made.
    """

    AXIS = "tombola/iteration"
    """The metric that all others are drawn against: W&B's own step would be shared with the user's."""

    def __init__(self, run: Any = None, **options: Any) -> None:
        self._new = run is None
        self._names: set[str] = set()
        if run is None:
            wandb = require("wandb", "wandb")
            try:
                run = wandb.init(**{"reinit": "create_new"} | options)  # not the active run
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
        if self._new:
            self._run.finish()

    @property
    def where(self) -> str:
        """See `NamedLogger`."""
        return f"Logged to the run {self._run.name} of Weights & Biases"

    @property
    def view(self) -> str:
        """See `NamedLogger`. Offline there is no address: the run is sent there by `wandb sync`."""
        return self._run.url or shlex.join(["wandb", "sync", str(Path(self._run.dir).parent)])


class MLflow:
    """Logs to a run of MLflow: a new one in the named experiment, or the one with this `run_id`, which `close` does
    not end. MLflow's active run is not used.

    `tracking_uri` is by default `MLFLOW_TRACKING_URI`, or MLflow's own default.
    Raises `InputError` if MLflow is not installed or the tracking URI cannot be used.
    """

    def __init__(
        self, experiment: str = "tombola", *, tracking_uri: str | None = None, run_id: str | None = None
    ) -> None:
        mlflow = require("mlflow", "mlflow")
        self._metric: Callable[..., Any] = require("mlflow.entities", "mlflow").Metric
        self._new = run_id is None
        try:
            self._client = mlflow.MlflowClient(tracking_uri)
            self._run = run_id or self._client.create_run(self._experiment(experiment)).info.run_id
            self._client.get_run(self._run)
            self._uri = str(self._client.tracking_uri)
        except Exception as error:
            raise InputError(f"mlflow: {first_line(error)}") from error

    def _experiment(self, name: str) -> str:
        known = self._client.get_experiment_by_name(name)
        return str(known.experiment_id if known else self._client.create_experiment(name))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Logger`."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [self._metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        """See `Logger`."""
        if self._new:
            self._client.set_terminated(self._run)

    @property
    def where(self) -> str:
        """See `NamedLogger`."""
        return f"Logged to the run {self._run} of MLflow"

    @property
    def view(self) -> str:
        """See `NamedLogger`. A server shows it itself; for files, MLflow's page has to be started."""
        if self._uri.startswith(("http://", "https://")):
            return self._uri
        return shlex.join(["mlflow", "ui", "--backend-store-uri", self._uri])


LOGGERS: dict[str, Callable[[str], NamedLogger]] = {
    "tensorboard": lambda folder: TensorBoard(folder or "runs"),
    "wandb": lambda project: WeightsAndBiases(project=project or "tombola"),
    "mlflow": lambda experiment: MLflow(experiment or "tombola"),
}
"""Makes a logger of what stands after the colon, which may be empty, by name."""


def logger(spec: str) -> NamedLogger:
    """The logger for `tensorboard[:FOLDER]`, `wandb[:PROJECT]` or `mlflow[:EXPERIMENT]`.

    Raises `InputError` for another name, and if that library cannot be used.
    """
    name, _, where = spec.partition(":")
    if name not in LOGGERS:
        raise unknown("logger", name, LOGGERS)
    return LOGGERS[name](where)


class Logging(Listener):
    """A listener that logs the outcome of every run, whether it was trained or came from the store.

    Curves have names such as `ticket/level-03/replicate-0/validation_loss`, and are logged at their iterations; final
    measures are logged as `.../measures/...` at the last iteration. Names of controls contain the draw, and those of
    points between two networks contain the point. Closing the logger is up to the caller.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._logged: set[tuple[int, RequestId]] = set()
        self._names: set[str] = set()

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        """See `Listener`."""
        if (study, request.request_id) in self._logged:  # a study may request the same run again
            return
        self._logged.add((study, request.request_id))
        name = _name(study, request)
        if name in self._names:
            name += f"/run-{request.run.key[:8]}"
        self._names.add(name)
        curves = {curve: values.tolist() for curve, values in outcome.curves.items()}
        iterations = curves.pop("iteration", [])
        for index, iteration in enumerate(iterations):
            self._logger.log({f"{name}/{curve}": values[index] for curve, values in curves.items()}, iteration)
        measures = outcome.measures.model_dump(exclude_none=True)
        final = {f"{name}/measures/{measure}": float(value) for measure, value in measures.items()}
        self._logger.log(final, outcome.measures.iterations)


def _name(study: int, request: RunRequest) -> str:
    parts = [request.branch, f"level-{request.level:02}", f"replicate-{study}"]
    if request.branch != "ticket":
        parts.append(f"draw-{request.draw}")
    if request.point is not None:
        parts += [request.point.tickets] if request.point.tickets else []
        parts.append(f"k-{request.point.k}/share-{request.point.share:.2f}")
    return "/".join(parts)
