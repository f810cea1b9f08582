"""MethodSections: the options of all search methods, as sections of a recipe."""

from __future__ import annotations

from tombola.experiments.methods.acdc import AcdcSection
from tombola.experiments.methods.bernoulli_gates import BernoulliGatesSection
from tombola.experiments.methods.biprop import BipropSection
from tombola.experiments.methods.early_bird import EarlyBirdSection
from tombola.experiments.methods.edge_popup import EdgePopupSection
from tombola.experiments.methods.gradual import GradualSection
from tombola.experiments.methods.granet import GranetSection
from tombola.experiments.methods.rigl import RiglSection
from tombola.experiments.methods.soft_threshold import StrSection
from tombola.experiments.methods.sparse_evolutionary import SetSection
from tombola.experiments.methods.srigl import SriglSection
from tombola.experiments.methods.swamp import SwampSection
from tombola.experiments.methods.top_kast import TopKastSection
from tombola.utils.frozen_model import FrozenModel


class MethodSections(FrozenModel):
    """The options of search methods. They are a base of `Recipe`, not fields of it: a field named `str` would replace
    the type `str` in the annotations of its own class."""

    swamp: SwampSection | None = None
    """Options of `search.method = "swamp"`."""
    gradual: GradualSection | None = None
    """Options of `search.method = "gradual"`."""
    set: SetSection | None = None
    """Options of `search.method = "set"`."""
    rigl: RiglSection | None = None
    """Options of `search.method = "rigl"`."""
    srigl: SriglSection | None = None
    """Options of `search.method = "srigl"`."""
    acdc: AcdcSection | None = None
    """Options of `search.method = "acdc"`."""
    granet: GranetSection | None = None
    """Options of `search.method = "granet"`."""
    top_kast: TopKastSection | None = None
    """Options of `search.method = "top-kast"`."""
    str: StrSection | None = None
    """Options of `search.method = "str"`."""
    early_bird: EarlyBirdSection | None = None
    """Options of `search.method = "early-bird"`."""
    edge_popup: EdgePopupSection | None = None
    """Options of `search.method = "edge-popup"`."""
    biprop: BipropSection | None = None
    """Options of `search.method = "biprop"`."""
    bernoulli_gates: BernoulliGatesSection | None = None
    """Options of `search.method = "bernoulli-gates"`."""
