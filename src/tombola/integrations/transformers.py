"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.integrations.callback_base import SearchCallback
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.pruning.scores import Score
from tombola.pruning.structures import Heads
from tombola.pruning.structures.unit_structure import Cost
from tombola.pruning.structures.units import GroupScore
from tombola.utils.duration import Duration
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.files import read_tensors, write_tensors
from tombola.utils.libraries import require
from tombola.utils.model_inputs import Inputs

FILE = "tombola.safetensors"
"""The file with the state of the search in each checkpoint folder."""

_Callback: Any = require("transformers", "transformers").TrainerCallback


class LotteryTicketCallback(SearchCallback, _Callback):  # type: ignore[misc]
    """Searches for a winning ticket during one `Trainer.train`, as `InLoopSearch` describes.

    >>> callback = LotteryTicketCallback(levels=5, every="500it")  # doctest: +SKIP
    >>> Trainer(model, TrainingArguments(max_steps=3000), ..., callbacks=[callback]).train()  # doctest: +SKIP
    >>> callback.ticket.save("ticket.safetensors")  # doctest: +SKIP

    An iteration is a step of the optimizer, as the Trainer counts them. Training stops after the last level. The
    Trainer's learning rate scheduler spans the whole training, so each level sees only its beginning. For one that
    ends with each level, pass an optimizer and a scheduler to the Trainer.

    Every checkpoint contains a file `tombola.safetensors`, from which `train(resume_from_checkpoint=...)` resumes: a
    checkpoint in `output_dir`, or the one that `TrainingArguments.resume_from_checkpoint` names.

    See `SearchConfig` for the options.
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
    ) -> None:
        units: tuple[Any, ...] = (structure, group_score, round_to, cost, example)
        self.config = SearchConfig(
            levels, every, rate, density, rewind, scope, score, leave_out, seed, include, *units
        )
        """How tickets are searched for."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: begin, or resume from its checkpoint."""
        if args.load_best_model_at_end:
            raise InputError("load_best_model_at_end could load the weights of another level: set it to False")
        search = InLoopSearch(
            self.config,
            parts["model"],
            [parts["optimizer"]],
            [parts["lr_scheduler"]],
            _steps_per_epoch(args, parts["train_dataloader"]),
            lambda: _latest_metrics(state.log_history),
            "transformers:Trainer.train",
        )
        if state.max_steps < search.total:
            raise InputError(
                f"the Trainer makes {state.max_steps:,} steps, but dense training and {search.config.levels} levels "
                f"take {search.total:,}: set max_steps={search.total}"
            )
        if state.global_step > 0:
            search.load(*_read(args, state.global_step))
        self._running = search
        if search.complete and state.global_step < state.max_steps:  # the Trainer would train a step before it stops
            search.finish()
            raise InputError("the search in this checkpoint is finished: see the callback's ticket")

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: prune and rewind after the end of a level."""
        self._active.before_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: count the step."""
        self._active.after_step()
        if self._active.complete and state.global_step < state.max_steps:
            control.should_training_stop = True
            # The Trainer does this by itself only at max_steps.
            control.should_log |= args.logging_strategy == "steps"
            control.should_evaluate |= args.eval_strategy == "steps"
            control.should_save |= args.save_strategy == "steps"

    def on_prediction_step(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer after it has evaluated a batch: see that the model still has the layers of the
        search."""
        if self._running is not None:
            self._running.check_layers()

    def on_save(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer after it has written a checkpoint."""
        if state.is_world_process_zero:
            tensors, about = self._active.state()
            write_tensors(
                _folder(args, state.global_step) / FILE, tensors, {"step": state.global_step, "rounds": about}
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: release the network."""
        self._finish(warn=state.is_world_process_zero)


def _folder(args: Any, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


def _read(args: Any, step: int) -> tuple[Any, Any]:
    """The state of the search at this step. The Trainer does not tell which checkpoint it has loaded."""
    named = args.resume_from_checkpoint
    folders = [Path(named)] if isinstance(named, str) else []
    folders.append(_folder(args, step))
    for folder in folders:
        try:
            tensors, about = read_tensors(folder / FILE)
        except FileNotFoundError:
            continue
        except DamagedFile as error:
            raise InputError(str(error)) from error
        if about.get("step") == step:
            return tensors, about["rounds"]
    searched = " or ".join(str(folder / FILE) for folder in folders)
    raise InputError(
        f"no search to resume: {searched} should contain that of step {step}; if the checkpoint is in another "
        "folder, set TrainingArguments.resume_from_checkpoint too"
    )


def _steps_per_epoch(args: Any, loader: Any) -> int | None:
    """Optimizer steps in an epoch; None if the loader has no length."""
    try:
        return -(-len(loader) // int(args.gradient_accumulation_steps))
    except TypeError:
        return None


def _latest_metrics(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The latest value of every logged metric, without times and the Trainer's final summary."""
    found: dict[str, float] = {}
    for entry in history:
        if "train_runtime" not in entry:
            found |= {name: value for name, value in entry.items() if isinstance(value, int | float)}
    times = ("_runtime", "_per_second")
    return {
        name: value for name, value in found.items() if name not in ("step", "epoch") and not name.endswith(times)
    }
