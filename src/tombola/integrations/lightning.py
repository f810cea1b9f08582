"""A callback for Lightning's Trainer, whether it is imported from `lightning.pytorch` or from `pytorch_lightning`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from tombola.experiments.custom_config import import_path
from tombola.integrations.callback_base import SearchCallback
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.pruning.scores import Score
from tombola.pruning.structures import Heads
from tombola.pruning.structures.unit_structure import Cost
from tombola.pruning.structures.units import GroupScore
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.libraries import require
from tombola.utils.model_inputs import Inputs

_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
_INCOMPATIBLE = {
    "WeightAveraging": "averages weights over levels",
    "StochasticWeightAveraging": "averages weights over levels",
    "ModelPruning": "prunes the same weights",
}
"""By class of callback: why there is no search beside it."""


def _bases() -> tuple[type, ...]:
    """Lightning's two packages each have a class `Callback`: inherit from that of every installed one."""
    installed = [name for name in ("lightning", "pytorch_lightning") if find_spec(name)] or ["lightning"]
    modules = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
    return tuple(require(modules[name], "lightning").Callback for name in installed)


_Callback: Any = type("_Callback", _bases(), {})


class LotteryTicket(SearchCallback, _Callback):  # type: ignore[misc]
    """Searches for a winning ticket during one `Trainer.fit`, as `InLoopSearch` describes.

    >>> callback = LotteryTicket(levels=5, every="2ep")  # doctest: +SKIP
    >>> Trainer(max_epochs=12, callbacks=[callback]).fit(module)  # doctest: +SKIP
    >>> callback.ticket.save("ticket.safetensors")  # doctest: +SKIP

    An iteration is a step of the optimizer, which takes `accumulate_grad_batches` batches; with manual optimization,
    a batch in which any optimizer makes a step, and an epoch should have as many iterations as batches. Masks and
    tickets name weights as the whole module does. Training stops after the last level.

    The state is in the Trainer's checkpoints: `fit(module, ckpt_path=...)` resumes the search. A checkpoint saved at
    the end of a level contains its trained weights.

    See `SearchConfig` for the options. With `log`, `tombola/level` and `tombola/density` are logged at every step.
    Raises `InputError`, when training begins, for options that do not fit the network or the Trainer.
    """

    def __init__(
        self,
        levels: int,
        every: Duration | str,
        *,
        rate: float | None = None,
        density: float | None = None,
        rewind: Duration | str = "0it",
        scope: str = "layer",
        score: str | Score = "magnitude",
        leave_out: Sequence[str] = (),
        include: Sequence[str] = (),
        seed: int = 0,
        structure: str | Heads = "weights",
        group_score: GroupScore = "mean",
        round_to: int = 1,
        cost: Cost = "units",
        example: Inputs | None = None,
        log: bool = False,
    ) -> None:
        super().__init__()
        units: tuple[Any, ...] = (structure, group_score, round_to, cost, example)
        self.config = SearchConfig(
            levels, every, rate, density, rewind, scope, score, leave_out, seed, include, *units
        )
        """How tickets are searched for."""
        self._log = log
        self._loaded: dict[str, Any] = {}
        self._steps = 0  # the Trainer's count of steps after the last batch

    @property
    def state_key(self) -> str:
        """The name of this state in checkpoints, the same for both packages."""
        return "tombola.LotteryTicket"

    def state_dict(self) -> dict[str, Any]:
        """Called by the Trainer to save a checkpoint."""
        if self._loaded or self._running is None:
            return self._loaded
        tensors, about = self._running.state()
        return {"tensors": tensors, "about": about}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by the Trainer to load a checkpoint, before it has optimizers."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Called by the Trainer: begin, or resume from its checkpoint."""
        name = type(trainer.strategy).__name__
        if name in _SHARDING:
            raise InputError(
                f"{name} shards parameters: a search within a training needs whole ones on every process"
            )
        _check_callbacks(trainer.callbacks)
        search = InLoopSearch(
            self.config,
            pl_module,
            trainer.optimizers,
            [config.scheduler for config in trainer.lr_scheduler_configs],
            _steps_per_epoch(trainer, pl_module),
            lambda: {name: float(value) for name, value in trainer.callback_metrics.items()},
            import_path(type(trainer).fit),
        )
        self._steps = trainer.global_step
        if self._loaded:
            search.load(self._loaded["tensors"], self._loaded["about"])
            self._loaded = {}
        elif self._steps > 0:
            raise InputError(
                "this checkpoint contains no search to resume: start with fit(module), or give a checkpoint that was "
                "saved with a LotteryTicket callback"
            )
        self._running = search
        _check_length(trainer, pl_module, search)
        if search.complete:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: prune and rewind before anything else happens in the epoch."""
        self._active.before_step()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Called by the Trainer: prune and rewind after a level that ended within an epoch."""
        self._active.before_step()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Called by the Trainer: count the step, unless it only accumulated gradients."""
        search = self._active
        if trainer.global_step != self._steps:
            self._steps = trainer.global_step
            search.after_step()
        if self._log:
            pl_module.log_dict({"tombola/level": float(search.level), "tombola/density": search.mask.density})
        if search.complete:
            trainer.should_stop = True

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: see that the module still has the layers of the search."""
        if batch_idx == 0 and self._running is not None:
            self._running.check_layers()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: release the module."""
        self._finish(warn=trainer.is_global_zero)


def _steps_per_epoch(trainer: Any, module: Any) -> int | None:
    """Optimizer steps in an epoch; None if the loader has no length."""
    if math.isinf(trainer.num_training_batches):
        return None
    batches = trainer.accumulate_grad_batches if module.automatic_optimization else 1
    return int(-(-trainer.num_training_batches // batches))


def _check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raises `InputError` for a callback of Lightning that changes pruned weights."""
    for callback in callbacks:
        for base in type(callback).__mro__:
            if base.__name__ in _INCOMPATIBLE:
                raise InputError(
                    f"{type(callback).__name__} {_INCOMPATIBLE[base.__name__]}, so others than the ticket's would be "
                    "validated and saved: remove it from the Trainer's callbacks"
                )


def _check_length(trainer: Any, module: Any, search: InLoopSearch) -> None:
    """Raises `InputError` if the Trainer would end before the search, except with `fast_dev_run`."""
    if trainer.fast_dev_run:
        return
    epoch = _steps_per_epoch(trainer, module)
    limits = {}
    if epoch is not None and trainer.max_epochs not in (None, -1):
        limits[f"max_epochs={trainer.max_epochs}"] = trainer.max_epochs * epoch
    if module.automatic_optimization and trainer.max_steps != -1:  # otherwise every optimizer's steps count
        limits[f"max_steps={trainer.max_steps}"] = trainer.max_steps
    for limit, iterations in limits.items():
        if iterations < search.total:
            enough = (
                f"max_epochs={-(-search.total // (epoch or 1))}" if "epochs" in limit else f"max_steps={search.total}"
            )
            raise InputError(
                f"Trainer({limit}) makes {iterations:,} steps, but dense training and {search.config.levels} levels "
                f"take {search.total:,}: set {enough}"
            )
