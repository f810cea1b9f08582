"""SRigL as a search method, and its options."""

from __future__ import annotations

from functools import partial

from pydantic import Field

from tombola.experiments.methods.mask_updates import decaying_fraction, gradients, update_search
from tombola.experiments.methods.rigl import RiglSection
from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.pruning.constant_fan_in import random_constant_fan_in, update_constant_fan_in
from tombola.pruning.prunable_layers import layers_of
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose
from tombola.zoo.models import build


class SriglSection(RiglSection):
    """`[srigl]`: RigL in which all neurons of a layer have the same number of weights, or none."""

    ablation: float = Field(default=0.3, ge=0, le=1)
    """γ_sal: a neuron with fewer salient weights than this fraction of its layer's fan-in loses all of them; 0 keeps
    all neurons."""


def _srigl(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: SriglSection = context.options
    _check_rows_are_neurons(dense)
    seed = context.derive_seed(Purpose.SPARSE_START)
    start = random_constant_fan_in(dense.mask, context.kept_counts(dense.mask), seed)
    update = partial(update_constant_fan_in, ablation=options.ablation)
    fraction = decaying_fraction(options, dense)
    return update_search("srigl", context, dense, fraction, gradients(context), start, update)


def _check_rows_are_neurons(dense: Run) -> None:
    """Refuse layers whose first dimension is not their outputs."""
    for layer in layers_of(build(dense.start), dense.mask):
        if layer.kind not in ("linear", "convolution", "projection"):
            raise InputError(
                f"srigl: needs linear and convolutional layers; leave out {layer.label}, which is a {layer.kind}"
            )


SRIGL = SearchMethod(
    "srigl",
    _srigl,
    SriglSection,
    lambda options: options.changes,
    mask_changes=True,
    own_criterion=True,
    count_per_layer=True,
)
