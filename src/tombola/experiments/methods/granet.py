"""GraNet as a search method, and its options."""

from __future__ import annotations

from pydantic import Field

from tombola.experiments.methods.mask_updates import UpdateSection, gradients, magnitudes
from tombola.experiments.methods.search_method import MethodContext, SearchMethod, iteration_within, spaced_iterations
from tombola.pruning.layers import display_name
from tombola.pruning.random_mask import random_mask
from tombola.pruning.scopes import Counts, ErdosRenyi, weights_left
from tombola.runs.run import Run
from tombola.studies.dynamic_masks import cosine_decay
from tombola.studies.granet import granet_search
from tombola.studies.request import RunRequest, Study
from tombola.utils.errors import InputError
from tombola.utils.seeds import Purpose


class GranetSection(UpdateSection):
    """`[granet]`: gradual pruning whose steps also replace weights. `fraction` decays to 0 along half a cosine; the
    last change, the end of pruning, is at `end`."""

    fraction: float = Field(default=0.5, gt=0, le=1)
    """The fraction of each layer's remaining weights that one step replaces."""
    end: float = Field(default=0.75, gt=0, lt=1)
    density: float = Field(default=1.0, gt=0, le=1)
    """The fraction of weights that the training starts with, in a random mask by the scope `erk`; 1 is dense."""


def _granet(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    options: GranetSection = context.options
    at = spaced_iterations(
        "granet.changes", 0, iteration_within("granet", "end", options.end, dense), options.changes
    )
    final, start = context.kept_counts(dense.mask), dense.mask
    if options.density < 1:
        sizes: Counts = {
            (name,): size for name, size in dense.mask.sizes.items() if any(name in group for group in final)
        }
        shapes = {group[0]: tuple(dense.mask.layers[group[0]].shape) for group in sizes}
        counts = ErdosRenyi(shapes, 1 - options.density).keeps(sizes)
        start = random_mask(dense.mask, dense.mask, counts, context.derive_seed(Purpose.SPARSE_START))
        for group, left in weights_left(start, [*final]).items():
            if left < final[group]:
                raise InputError(
                    f"granet.density: should leave {display_name(group[0])} at least the {final[group]:,} weights "
                    f"that it keeps, not {left:,}"
                )
    # The last change replaces nothing: the cosine has reached 0.
    fraction = cosine_decay(options.fraction, at[-1])
    return granet_search(dense, start, at, final, fraction, magnitudes(context), gradients(context))


GRANET = SearchMethod(
    "granet", _granet, GranetSection, lambda options: options.changes, mask_changes=True, own_criterion=True
)
