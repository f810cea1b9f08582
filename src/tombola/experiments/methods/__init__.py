"""Search methods: the values of `[search] method`.

To add one, write its search in `studies/`, and a file here with its options, which are a section of the recipe; name
it in `METHODS`, and its section in `Recipe`.
"""

from __future__ import annotations

from tombola.experiments.methods.early_bird import EARLY_BIRD
from tombola.experiments.methods.gradual import GRADUAL
from tombola.experiments.methods.iterative import ITERATIVE, ONE_SHOT
from tombola.experiments.methods.sparse_training import SPARSE_TRAINING
from tombola.experiments.methods.supermasks import SUPERMASKS
from tombola.experiments.methods.swamp import SWAMP

_ALL = [ITERATIVE, ONE_SHOT, SWAMP, GRADUAL, *SPARSE_TRAINING, EARLY_BIRD, *SUPERMASKS]

METHODS = {method.name: method for method in _ALL}
