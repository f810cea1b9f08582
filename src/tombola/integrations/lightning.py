"""A callback for Lightning's Trainer, whether it is imported from `lightning.pytorch` or from `pytorch_lightning`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from tombola.integrations.callback_base import SearchCallback
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.pruning.scores import Score
from tombola.utils.duration import Duration
from tombola.utils.errors import InputError
from tombola.utils.extras import require

_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


def _bases() -> tuple[type, ...]:
    """The same class has two names, and is two classes where both are installed: a callback is one of each."""
    installed = [name for name in ("lightning", "pytorch_lightning") if find_spec(name)] or ["lightning"]
    modules = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
    return tuple(require(modules[name], "lightning").Callback for name in installed)


_Callback: Any = type("_Callback", _bases(), {})


class LotteryTicket(SearchCallback, _Callback):  # type: ignore[misc]
    """Searches for a winning ticket during one `Trainer.fit`: see `InLoopSearch` for what happens when.

    >>> callback = LotteryTicket(levels=5, every="2ep")  # doctest: +SKIP
    >>> Trainer(max_epochs=12, callbacks=[callback]).fit(module)  # doctest: +SKIP
    >>> callback.ticket.save("ticket.safetensors")  # doctest: +SKIP

    An iteration is a step of the optimizer, for which `accumulate_grad_batches` may take several batches; with manual
    optimization it is a batch in which any optimizer makes a step, and an epoch is expected to have as many as
    batches. Masks and tickets name weights as the whole module does. Training is stopped when all levels are done.

    The state is in the Trainer's checkpoints: `fit(module, ckpt_path=...)` goes on with the search. What is saved at
    the end of a level are its trained weights.

    See `SearchConfig` for the options. With `log`, `tombola/level` and `tombola/density` are logged at every step.
    Raises `InputError`, when training begins, where the options do not go with the network or the Trainer.
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
        seed: int = 0,
        log: bool = False,
    ) -> None:
        super().__init__()
        self.search = SearchConfig(levels, every, rate, density, rewind, scope, score, leave_out, seed)
        self._logs = log
        self._loaded: dict[str, Any] = {}
        self._steps = 0  # the Trainer's count of steps, when it was last looked at

    @property
    def state_key(self) -> str:
        """The name of this state in checkpoints, the same for both of Lightning's names."""
        return "tombola.LotteryTicket"

    def state_dict(self) -> dict[str, Any]:
        """Called by the Trainer, to save a checkpoint."""
        if self._loaded or self._rounds is None:
            return self._loaded
        tensors, about = self._rounds.state()
        return {"tensors": tensors, "about": about}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by the Trainer, when it reads a checkpoint; its optimizers are not there yet."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Called by the Trainer: begin, or go on from the checkpoint that it has read."""
        name = type(trainer.strategy).__name__
        if name in _SHARDING:
            raise InputError(f"{name} shards parameters, and a search within a training needs them whole")
        rounds = InLoopSearch(
            self.search,
            pl_module,
            trainer.optimizers,
            [config.scheduler for config in trainer.lr_scheduler_configs],
            _per_epoch(trainer, pl_module),
            lambda: {name: float(value) for name, value in trainer.callback_metrics.items()},
        )
        self._steps = trainer.global_step
        if self._loaded:
            rounds.load(self._loaded["tensors"], self._loaded["about"])
            self._loaded = {}
        elif self._steps > 0:
            raise InputError(
                "there is no search to go on with in this checkpoint: begin with fit(module), or name one that "
                "was saved while LotteryTicket was among the callbacks"
            )
        self._rounds = rounds
        _check_length(trainer, pl_module, rounds)
        if rounds.complete:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: prune and rewind before anybody else does something to begin the epoch."""
        self._searching.before_step()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Called by the Trainer: the same where a level ends within an epoch."""
        self._searching.before_step()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Called by the Trainer: count the step, if there was one."""
        rounds = self._searching
        if trainer.global_step != self._steps:
            self._steps = trainer.global_step
            rounds.after_step()
        if self._logs:
            pl_module.log_dict({"tombola/level": float(rounds.level), "tombola/density": rounds.mask.density})
        if rounds.complete:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: let go of the module."""
        self._finish(aloud=trainer.is_global_zero)


def _per_epoch(trainer: Any, module: Any) -> int | None:
    """How many iterations an epoch has."""
    if math.isinf(trainer.num_training_batches):
        return None
    batches = trainer.accumulate_grad_batches if module.automatic_optimization else 1
    return int(-(-trainer.num_training_batches // batches))


def _check_length(trainer: Any, module: Any, rounds: InLoopSearch) -> None:
    """Raises `InputError` where the Trainer would end before the search; a quick run to find bugs may."""
    if trainer.fast_dev_run:
        return
    epoch = _per_epoch(trainer, module)
    limits = {}
    if epoch is not None and trainer.max_epochs not in (None, -1):
        limits[f"max_epochs={trainer.max_epochs}"] = trainer.max_epochs * epoch
    if module.automatic_optimization and trainer.max_steps != -1:  # otherwise every optimizer's steps count
        limits[f"max_steps={trainer.max_steps}"] = trainer.max_steps
    for limit, iterations in limits.items():
        if iterations < rounds.total:
            enough = (
                f"max_epochs={-(-rounds.total // (epoch or 1))}" if "epochs" in limit else f"max_steps={rounds.total}"
            )
            raise InputError(
                f"Trainer({limit}) makes {iterations:,} steps, and dense training and {rounds.search.levels} levels "
                f"take {rounds.total:,}: set {enough}"
            )
