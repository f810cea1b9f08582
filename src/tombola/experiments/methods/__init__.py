"""Search methods: the values of `[search] method`.

To add one, write its search in `studies/`, and a file here with its options, which are a section of the recipe; name
it in `METHODS`, and its section in `MethodSections`.
"""

from __future__ import annotations

from tombola.experiments.methods.acdc import ACDC
from tombola.experiments.methods.bernoulli_gates import BERNOULLI_GATES
from tombola.experiments.methods.biprop import BIPROP
from tombola.experiments.methods.early_bird import EARLY_BIRD
from tombola.experiments.methods.edge_popup import EDGE_POPUP
from tombola.experiments.methods.gradual import GRADUAL
from tombola.experiments.methods.granet import GRANET
from tombola.experiments.methods.iterative import ITERATIVE, ONE_SHOT
from tombola.experiments.methods.rigl import RIGL
from tombola.experiments.methods.soft_threshold import STR
from tombola.experiments.methods.sparse_evolutionary import SET
from tombola.experiments.methods.srigl import SRIGL
from tombola.experiments.methods.swamp import SWAMP
from tombola.experiments.methods.top_kast import TOP_KAST

_ALL = [
    ITERATIVE,
    ONE_SHOT,
    SWAMP,
    GRADUAL,
    SET,
    RIGL,
    SRIGL,
    ACDC,
    GRANET,
    TOP_KAST,
    STR,
    EARLY_BIRD,
    EDGE_POPUP,
    BIPROP,
    BERNOULLI_GATES,
]

METHODS = {method.name: method for method in _ALL}
