"""Parametrizations: modules that compute a layer's weight from other tensors, which are trained in its place.

Each is called with the layer's weight and returns the effective weight, of the same shape. Its constructor gets the
weight and the options of the layer, as keywords. `frozen` says whether only its own parameters are trained: weights,
biases and normalisation then stay at their initial values. To add one, write it here and name it in
`PARAMETRIZATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tombola.zoo.models.parametrizations.bernoulli_gates import BernoulliGates
from tombola.zoo.models.parametrizations.biprop import Biprop
from tombola.zoo.models.parametrizations.edge_popup import EdgePopup
from tombola.zoo.models.parametrizations.sign_in import SignIn
from tombola.zoo.models.parametrizations.soft_threshold import SoftThreshold
from tombola.zoo.models.parametrizations.top_kast import TopKast

PARAMETRIZATIONS: dict[str, Callable[..., nn.Module]] = {
    "edge-popup": EdgePopup,
    "biprop": Biprop,
    "bernoulli-gates": BernoulliGates,
    "sign-in": SignIn,
    "soft-threshold": SoftThreshold,
    "top-kast": TopKast,
}
