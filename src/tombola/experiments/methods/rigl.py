"""RigL as a search method, and its options."""

from __future__ import annotations

from pydantic import Field

from tombola.experiments.methods.mask_updates import UpdateSection, decaying_fraction, gradients, update_search
from tombola.experiments.methods.search_method import MethodContext, SearchMethod
from tombola.runs.run import Run
from tombola.studies.request import RunRequest, Study


class RiglSection(UpdateSection):
    """`[rigl]`: sparse training in which small weights are replaced where gradients are large. `fraction` is α, which
    decays to 0 along half a cosine; `end` is T_end."""

    end: float = Field(default=0.75, gt=0, le=1)


def _rigl(context: MethodContext, dense: Run) -> Study[list[RunRequest]]:
    return update_search("rigl", context, dense, decaying_fraction(context.options, dense), gradients(context))


RIGL = SearchMethod(
    "rigl", _rigl, RiglSection, lambda options: options.changes, mask_changes=True, own_criterion=True
)
