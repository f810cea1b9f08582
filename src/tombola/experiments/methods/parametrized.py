"""Runs of networks whose weights are computed by a parametrization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tombola.pruning.mask import Mask
from tombola.runs.outcome import Outcome
from tombola.runs.run import Run
from tombola.zoo.models import describe_parametrized
from tombola.zoo.models.reparametrization import original_name


def parametrized_run(
    dense: Run, by: str, layers: Mapping[str, Mapping[str, Any]], training: Mapping[str, Any] | None = None
) -> Run:
    """The dense network's run, with the weights named in `layers` computed by a parametrization of `PARAMETRIZATIONS`
    with these options, without a mask, and with changes of its `training`."""
    run = dense.with_network(describe_parametrized(dense.start.network, by, layers))
    changed = dense.training.model_copy(update=training)
    return run.model_copy(update={"mask": Mask({}), "training": changed})


def magnitudes_of_originals(dense: Run, outcome: Outcome) -> dict[str, Tensor]:
    """The magnitudes of the tensors that weights are computed from; of the weights that are not parametrized."""
    state = outcome.final
    originals = {name: original_name(name) for name in dense.mask}
    return {name: state[original if original in state else name].abs() for name, original in originals.items()}
