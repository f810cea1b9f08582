"""PruningOptions: how a network is pruned, as a recipe, a search or `prune` is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from torch import nn

from tombola.pruning import structures
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import SCOPES, Layerwise, Scope, match_layers
from tombola.pruning.scores import ROUNDS, SCORES, Score
from tombola.utils.errors import InputError, unknown

RATE = 0.2
"""The default rate: 20% (Frankle & Carbin 2019, section 2)."""

Density = float | Mapping[str, float]
"""The fraction of weights that is kept, in (0, 1]; or that of single layers, by name or pattern."""


@dataclass(frozen=True)
class PruningOptions:
    """How a network is pruned in `levels` steps. Raises `InputError` for values that are invalid for any network."""

    levels: int = 1
    rate: float | None = None
    """The fraction of the weights left that each level removes; `RATE` if neither this nor `density` is given."""
    density: Density | None = None
    """Instead of `rate`: the fraction left after all levels. Layers that a table does not name are not pruned."""
    scope: str = "layer"
    """A name in `tombola.pruning.scopes.SCOPES`."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """The rates of single layers, by name or pattern (`fc*`)."""
    output_rate: float | None = None
    """The rate of the output layers, where `rates` does not give it."""
    leave_out: Sequence[str] = ()
    """Layers, or modules with all their layers, that are not pruned, by name or pattern."""
    include: Sequence[str] = ()
    """Further parameters to prune, by name or pattern; see `tombola.prunable`."""
    outputs: Sequence[str] | None = None
    """The output layers, by name or pattern, none if it is empty; by default they are found by tracing, where they
    are needed."""
    score: str | Score = "magnitude"
    """A name in `tombola.pruning.scores.SCORES`, or a function."""
    structure: str | structures.Heads = "weights"
    """A name that `tombola.pruning.structures.parse_structure` accepts, or a description of attention heads."""
    rounds: int | None = None
    """In how many rounds of scoring each level is pruned; by default as the score needs."""

    def __post_init__(self) -> None:
        for name, count in (("levels", self.levels), ("rounds", 1 if self.rounds is None else self.rounds)):
            if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
                raise InputError(f"{name}: should be a whole number, at least 1, not {count!r}")
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES)
        if isinstance(self.score, str) and self.score not in SCORES:
            raise unknown("score", self.score, SCORES)
        if isinstance(self.structure, str):
            structures.parse_structure(self.structure)
        for name, names in (("leave_out", self.leave_out), ("include", self.include), ("outputs", self.outputs)):
            if isinstance(names, str):
                raise InputError(f'{name}: should be a list of names, ["{names}"]')
        self._check_rates()
        self._check_density()
        if self.scope == "erk" and self.structure != "weights":
            what = f'"{self.structure}"' if isinstance(self.structure, str) else "heads"
            raise InputError(f'scope: "erk" requires structure "weights", not {what}')

    def _check_rates(self) -> None:
        if self.rate is not None and not (isinstance(self.rate, Real) and 0 < self.rate < 1):
            raise InputError(f"rate: should be between 0 and 1, not {self.rate!r}")
        for layer, rate in self.rates.items():
            if not (isinstance(rate, Real) and 0 <= rate < 1):
                raise InputError(f'rates: "{layer}" should be at least 0 and less than 1, not {rate!r}')
        if self.scope != "layer" and (self.rates or self.output_rate is not None):
            name = "rates" if self.rates else "output_rate"
            raise InputError(f'{name}: goes with scope "layer", not "{self.scope}"; leave layers out with leave_out')

    def _check_density(self) -> None:
        if isinstance(self.density, Mapping):
            if self.scope != "layer":
                raise InputError(f'density: one for each layer requires scope "layer", not "{self.scope}"')
            if self.rates or self.output_rate is not None:
                raise InputError("rates: give the densities of the layers in density instead")
            for layer, density in self.density.items():
                _check_fraction(f'density of "{layer}"', density)
        elif self.density is not None:
            _check_fraction("density", self.density)
        if self.rate is not None and self.density is not None:
            raise InputError("rate, density: give one of them: what each level removes, or what the last one leaves")
        if self.pattern_density is None:
            return
        if self.levels > 1:
            raise InputError(f'levels: should be 1 with structure "{self.structure}", not {self.levels}')
        if self.rates or self.output_rate is not None:
            raise InputError(f'rates: structure "{self.structure}" has the same density in every layer')
        given = self.density if self.rate is None else 1 - self.rate
        if given is not None and (isinstance(given, Mapping) or abs(given - self.pattern_density) > 1e-6):
            least = f"{self.pattern_density:g} of every layer"
            raise InputError(f'density: structure "{self.structure}" leaves {least}, not {given}')

    @property
    def pattern_density(self) -> float | None:
        """n / m of a structure `n:m`; None of any other."""
        pattern = structures.parse_pattern(self.structure) if isinstance(self.structure, str) else None
        return None if pattern is None else pattern[0] / pattern[1]

    @property
    def level_rate(self) -> float:
        """The fraction of the weights left that each level removes."""
        if self.rate is not None:
            return self.rate
        density = self.pattern_density if self.density is None else self.density
        return RATE if density is None or isinstance(density, Mapping) else self._rate_for(density)

    def _rate_for(self, density: float) -> float:
        """To keep density d after n levels, each keeps d^(1/n) (Frankle & Carbin 2019, section 1)."""
        return 1.0 - float(density ** (1 / self.levels))

    def prunable(self, network: nn.Module) -> PrunableNetwork:
        """What of `network` is pruned."""
        return PrunableNetwork(network, self.include, self.leave_out, self.outputs)

    def scope_of(self, network: PrunableNetwork) -> Scope:
        """The scope over the layers of `network`. Raises `InputError` when a name or pattern matches no layer."""
        layers = network.layers
        left_out = {*match_layers(dict.fromkeys(self.leave_out), layers.values(), "leave_out", network.unprunable)}
        pruned = {name: layer.shape for name, layer in layers.items() if name not in left_out}
        if not pruned:
            raise InputError("leave_out: every layer is left out; at least one should be pruned")
        if isinstance(self.density, Mapping):
            densities = match_layers(self.density, layers.values(), "density")
            return Layerwise({n: self._rate_for(density) for n, density in densities.items() if n in pruned})
        if not self.rates and self.output_rate is None:
            return SCOPES[self.scope](pruned, self.level_rate)
        rates = match_layers(self.rates, layers.values(), "rates")
        if self.output_rate is not None:
            rates = dict.fromkeys(network.outputs, self.output_rate) | rates
        return Layerwise({layer: rates.get(layer, self.level_rate) for layer in pruned})

    def pruner(self, prunable: PrunableNetwork) -> Pruner:
        """The pruner of a network. Raises `InputError` where it has no such layers or structure."""
        if not prunable.layers:
            raise InputError("model: has no layer to prune; include=[...] names other parameters")
        score = SCORES[self.score] if isinstance(self.score, str) else self.score
        default = ROUNDS.get(self.score, 1) if isinstance(self.score, str) else 1
        pruner = Pruner(score, self.scope_of(prunable), self._structure_of(prunable), self.rounds or default)
        pruner.units_left(prunable.dense)
        if self.outputs is not None:
            _ = prunable.outputs  # raises for unknown names
        prunable.warn()
        return pruner

    def _structure_of(self, network: PrunableNetwork) -> structures.Structure:
        if isinstance(self.structure, str):
            return structures.parse_structure(self.structure)(network)
        return self.structure(network.network)


def _check_fraction(name: str, density: object) -> None:
    if isinstance(density, bool) or not isinstance(density, Real) or not 0 < float(density) <= 1:
        raise InputError(f"{name}: should be a number greater than 0 and at most 1, not {density!r}")
