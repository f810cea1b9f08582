"""The inputs of scores after a training, and pruning by these scores."""

from __future__ import annotations

from torch import Tensor

from tombola.experiments.workload import ScoreSource
from tombola.pruning.mask import Mask
from tombola.pruning.scores.inputs import ScoreInputs
from tombola.runs.initial_state import no_stored_states
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.utils.random_state import seeded


def score_inputs(source: ScoreSource, run: BaseRun, outcome: Outcome, seed: int) -> ScoreInputs:
    """The inputs of scores after `run`; networks and batches are made when a score needs them."""

    def initial() -> dict[str, Tensor]:
        untrained = run.start.model_copy(update={"trained": None})
        state = source.initial_state(untrained, no_stored_states)
        return {name: tensor.to(source.device) for name, tensor in state.items()}

    return ScoreInputs(
        weights={name: outcome.final[name].to(source.device) for name in run.mask},
        mask=run.mask,
        seed=seed,
        _start=initial,
        _network=source.trained_network(run, outcome.final),
        _batches=source.score_batches(run),
        loss=source.loss,
    )


def prune(source: ScoreSource, run: BaseRun, outcome: Outcome, seed: int) -> Mask:
    """The mask of the next level."""
    with seeded(seed, source.generators):
        return source.pruner(score_inputs(source, run, outcome, seed))
