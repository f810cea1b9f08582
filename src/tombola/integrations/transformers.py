"""A callback for the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tombola.integrations.callback_base import SearchCallback
from tombola.integrations.in_loop_search import InLoopSearch
from tombola.integrations.search_config import SearchConfig
from tombola.pruning.scores import Score
from tombola.utils.duration import Duration
from tombola.utils.errors import DamagedFile, InputError
from tombola.utils.extras import require
from tombola.utils.files import read_tensors, write_tensors

FILE = "tombola.safetensors"
"""In each checkpoint's folder: the search, as of then."""

_Callback: Any = require("transformers", "transformers").TrainerCallback


class LotteryTicketCallback(SearchCallback, _Callback):  # type: ignore[misc]
    """Searches for a winning ticket during one `Trainer.train`: see `InLoopSearch` for what happens when.

    >>> callback = LotteryTicketCallback(levels=5, every="500it")  # doctest: +SKIP
    >>> Trainer(model, TrainingArguments(max_steps=3000), ..., callbacks=[callback]).train()  # doctest: +SKIP
    >>> callback.ticket.save("ticket.safetensors")  # doctest: +SKIP

    An iteration is a step of the optimizer, as the Trainer counts them. Training is stopped when all levels are done.
    The Trainer makes its schedule of learning rates for all steps of the training; each level sees only the beginning
    of that. For one that ends with each level, give the Trainer an optimizer and a schedule of your own.

    Every checkpoint has a file `tombola.safetensors`, from which `train(resume_from_checkpoint=...)` goes on: a
    checkpoint in `output_dir`, or the one that `TrainingArguments.resume_from_checkpoint` names.

    See `SearchConfig` for the options.
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
    ) -> None:
        self.search = SearchConfig(levels, every, rate, density, rewind, scope, score, leave_out, seed)

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: begin, or go on from the checkpoint that it has read."""
        if args.load_best_model_at_end:
            raise InputError("load_best_model_at_end would load the weights of another level: set it to False")
        rounds = InLoopSearch(
            self.search,
            parts["model"],
            [parts["optimizer"]],
            [parts["lr_scheduler"]],
            _per_epoch(args, parts["train_dataloader"]),
            lambda: _measured(state.log_history),
        )
        if state.max_steps < rounds.total:
            raise InputError(
                f"the Trainer makes {state.max_steps:,} steps, and dense training and {rounds.search.levels} levels "
                f"take {rounds.total:,}: set max_steps={rounds.total}"
            )
        if state.global_step > 0:
            rounds.load(*_read(args, state.global_step))
        self._rounds = rounds
        if rounds.complete and state.global_step < state.max_steps:  # the Trainer would make a step before it stops
            rounds.finish()
            raise InputError("the search in this checkpoint is finished: its ticket is in the callback")

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: prune and rewind, if a level has ended."""
        self._searching.before_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: count the step."""
        self._searching.after_step()
        if self._searching.complete and state.global_step < state.max_steps:
            control.should_training_stop = True
            # What the Trainer does by itself at its last step.
            control.should_log |= args.logging_strategy == "steps"
            control.should_evaluate |= args.eval_strategy == "steps"
            control.should_save |= args.save_strategy == "steps"

    def on_save(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer, when it has written a checkpoint."""
        if state.is_world_process_zero:
            tensors, about = self._searching.state()
            write_tensors(
                _folder(args, state.global_step) / FILE, tensors, {"step": state.global_step, "rounds": about}
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:  # noqa: ARG002
        """Called by the Trainer: let go of the network."""
        self._finish(aloud=state.is_world_process_zero)


def _folder(args: Any, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


def _read(args: Any, step: int) -> tuple[Any, Any]:
    """The search as of this step, from the checkpoint that the Trainer goes on from, which it does not name."""
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
    looked = " or ".join(str(folder / FILE) for folder in folders)
    raise InputError(
        f"there is no search to go on with: {looked} should hold that of step {step}; if the checkpoint lies "
        f"elsewhere, name it in TrainingArguments.resume_from_checkpoint too"
    )


def _per_epoch(args: Any, loader: Any) -> int | None:
    """How many iterations an epoch has; None where its length is not known."""
    try:
        return -(-len(loader) // int(args.gradient_accumulation_steps))
    except TypeError:
        return None


def _measured(history: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What was logged last of every name, but for times, and for what the Trainer says at the very end."""
    found: dict[str, float] = {}
    for entry in history:
        if "train_runtime" not in entry:
            found |= {name: value for name, value in entry.items() if isinstance(value, int | float)}
    times = ("_runtime", "_per_second")
    return {
        name: value for name, value in found.items() if name not in ("step", "epoch") and not name.endswith(times)
    }
