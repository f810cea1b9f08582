"""PruningOptions: how a network is pruned, as a recipe, a search or `prune` is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

from torch import nn

from tombola.pruning import structures
from tombola.pruning.layers import Layer, display_name
from tombola.pruning.prunable_network import PrunableNetwork
from tombola.pruning.pruner import Pruner
from tombola.pruning.scopes import (
    SCOPES,
    AtLeast,
    Counts,
    Globally,
    Layerwise,
    Rowwise,
    Scope,
    Stepwise,
    match_layers,
)
from tombola.pruning.scores import ROUNDS, SCORES, Score
from tombola.pruning.structures.unit_structure import COSTS, Cost
from tombola.pruning.structures.units import GROUP_SCORES, GroupScore
from tombola.utils.errors import InputError, unknown
from tombola.utils.model_inputs import Inputs

RATE = 0.2
"""The default rate: 20% (Frankle & Carbin 2019, section 2)."""

_BY_LAYER = ("layer", "row")
"""The scopes in which each layer may have its own rate."""

Density = float | Mapping[str, float]
"""The fraction of weights that is kept, in (0, 1]; or that of single layers, by name or pattern."""


@dataclass(frozen=True)
class PruningOptions:
    """How a network is pruned in `levels` steps. Raises `InputError` for values that are invalid for any network."""

    levels: int = 1
    rate: float | None = None
    """The fraction of the weights left that each level removes; 0.2 if neither this nor `density` is given."""
    density: Density | None = None
    """Instead of `rate`: the fraction left after all levels. Layers that a table does not name are not pruned."""
    scope: str = "layer"
    """Which weights compete: those of each layer, of each output row of a layer, of all layers, or of each layer with
    Erdős–Rényi densities."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """The rates of single layers, by name or pattern (`fc*`)."""
    output_rate: float | None = None
    """The rate of the output layers, where `rates` does not give it; without effect on structures of coupled units,
    which never prune these."""
    leave_out: Sequence[str] = ()
    """Layers, or modules with all their layers, that are not pruned, by name or pattern."""
    include: Sequence[str] = ()
    """Further parameters to prune, by name or pattern; see `tombola.prunable`."""
    outputs: Sequence[str] | None = None
    """The output layers, by name or pattern, none if it is empty; by default they are found by tracing, where they
    are needed."""
    score: str | Score = "magnitude"
    """What decides which weights are pruned first: a name (docs/how-to/pruning.md) or, in Python, a function."""
    structure: str | structures.Heads = "weights"
    """What is pruned as a whole: `weights`, `channels`, `neurons`, `heads`, `width`, `blocks:4x4`, `2:4`; in Python
    also a `Heads` that names the layers of attention heads."""
    rounds: int | None = None
    """In how many rounds of scoring each level is pruned; by default as the score needs."""
    group_score: GroupScore = "mean"
    """How the score of a unit of a structure is computed from those of its weights; `norm` is the L2 norm."""
    round_to: int = 1
    """The number of units that each set keeps is a multiple of this, and at least this; with 0 a set may lose all its
    units. With `blocks`, where a layer may lose all tiles, 1 means the same as 0."""
    cost: Cost = "units"
    """What `rate` and `density` are fractions of, where units are pruned: units, weights or multiply-adds."""

    def __post_init__(self) -> None:
        for name, count in (("levels", self.levels), ("rounds", 1 if self.rounds is None else self.rounds)):
            if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
                raise InputError(f"{name}: should be a whole number, at least 1, not {count!r}")
        _check_known("scope", self.scope, SCOPES)
        if not callable(self.score):
            _check_known("score", self.score, SCORES)
        if isinstance(self.structure, str):
            structures.parse_structure(self.structure)
        elif not callable(self.structure):
            raise unknown("structure", self.structure, structures.STRUCTURES)
        for name, names in (("leave_out", self.leave_out), ("include", self.include), ("outputs", self.outputs)):
            if isinstance(names, str):
                raise InputError(f'{name}: should be a list of names, ["{names}"]')
        self._check_rates()
        self._check_density()
        self._check_units()
        rows_of_pattern = self.scope == "row" and self.pattern_density is not None  # equal in every row as it is
        if self.scope in ("row", "erk") and self.structure != "weights" and not rows_of_pattern:
            what = f'"{self.structure}"' if isinstance(self.structure, str) else "heads"
            raise InputError(f'scope: "{self.scope}" requires structure "weights", not {what}')

    @property
    def _output_rate(self) -> float | None:
        """The `output_rate`, where it has an effect."""
        coupled = self.structure != "weights" and (
            not isinstance(self.structure, str) or self.structure in structures.STRUCTURES
        )
        return None if coupled else self.output_rate

    def _check_rates(self) -> None:
        if self.rate is not None and not (isinstance(self.rate, Real) and 0 < self.rate < 1):
            raise InputError(f"rate: should be between 0 and 1, not {self.rate!r}")
        for layer, rate in self.rates.items():
            if not (isinstance(rate, Real) and 0 <= rate < 1):
                raise InputError(f'rates: "{layer}" should be at least 0 and less than 1, not {rate!r}')
        if self.scope not in _BY_LAYER and (self.rates or self._output_rate is not None):
            name = "rates" if self.rates else "output_rate"
            raise InputError(
                f'{name}: needs scope "layer" or "row", not "{self.scope}"; leave layers out with leave_out'
            )

    def _check_density(self) -> None:
        if isinstance(self.density, Mapping):
            if self.scope not in _BY_LAYER:
                raise InputError(f'density: one for each layer requires scope "layer" or "row", not "{self.scope}"')
            if self.rates or self._output_rate is not None:
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
        if self.rates or self._output_rate is not None:
            raise InputError(f'rates: structure "{self.structure}" has the same density in every layer')
        given = self.density if self.rate is None else 1 - self.rate
        if given is not None and (isinstance(given, Mapping) or abs(given - self.pattern_density) > 1e-6):
            least = f"{self.pattern_density:g} of every layer"
            raise InputError(f'density: structure "{self.structure}" leaves {least}, not {given}')

    def _check_units(self) -> None:
        _check_known("group_score", self.group_score, GROUP_SCORES)
        _check_known("cost", self.cost, COSTS)
        if isinstance(self.round_to, bool) or not isinstance(self.round_to, Integral) or self.round_to < 0:
            raise InputError(f"round_to: should be a whole number, at least 0, not {self.round_to!r}")
        given = {
            "group_score": self.group_score != "mean",
            "round_to": self.round_to != 1,
            "cost": self.cost != "units",
        }
        if (self.structure == "weights" or self.pattern_density is not None) and any(given.values()):
            name = next(name for name, is_given in given.items() if is_given)
            raise InputError(f'{name}: needs a structure of units, such as "channels", not "{self.structure}"')
        tables = {"rates": bool(self.rates), "output_rate": self._output_rate is not None}
        tables["density"] = isinstance(self.density, Mapping)
        if self.cost != "units" and any(tables.values()):
            name = next(name for name, is_given in tables.items() if is_given)
            raise InputError(f'{name}: of single layers needs cost "units", not "{self.cost}"')

    @property
    def _in_rows(self) -> bool:
        return self.scope == "row" and self.structure == "weights"

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

    def prunable(
        self, network: nn.Module, example: Inputs | Callable[[], Inputs | None] | None = None
    ) -> PrunableNetwork:
        """What of `network` is pruned. Some structures need an `example`, a batch of its inputs; see
        `PrunableNetwork`."""
        made = PrunableNetwork(network, self.include, self.leave_out, self.outputs, example)
        if self.structure != "width":
            return made
        return made.including(structures.width_parameters(made))

    def scope_of(self, network: PrunableNetwork, structure: structures.Structure = structures.UNSTRUCTURED) -> Scope:
        """The scope over the layers of `network`, or over what competes of a `structure`. Raises `InputError` when a
        name or pattern matches no layer."""
        layers = network.layers
        left_out = {*match_layers(dict.fromkeys(self.leave_out), layers.values(), "leave_out", network.unprunable)}
        pruned = {name: layer.shape for name, layer in layers.items() if name not in left_out}
        if not pruned:
            raise InputError("leave_out: every layer is left out; at least one should be pruned")
        competing = structure.competitors(pruned)
        shapes = {name: pruned.get(name, ()) for name in competing}
        if isinstance(self.density, Mapping):
            densities = match_layers(self.density, layers.values(), "density")
            found = _of_competitors(densities, competing, "density")
            return self._layerwise({name: self._rate_for(density) for name, density in found.items()}, layers)
        if self.cost != "units":
            return Globally(tuple(shapes), self.level_rate)
        if not self.rates and self._output_rate is None:
            by_row = self.scope == "row"
            given = {name: structures.row_shape(layers[name]) for name in shapes} if by_row else shapes
            return SCOPES[self.scope](given, self.level_rate)
        rates = _of_competitors(match_layers(self.rates, layers.values(), "rates"), competing, "rates")
        if self._output_rate is not None:
            outputs = dict.fromkeys(network.outputs, self._output_rate)
            rates = _of_competitors(outputs, competing, "output_rate") | rates
        return self._layerwise({name: rates.get(name, self.level_rate) for name in competing}, layers)

    def _layerwise(self, rates: Mapping[str, float], layers: Mapping[str, Layer]) -> Layerwise:
        """The scope in which each layer has its own rate."""
        if self.scope == "row":
            return Rowwise(rates, {name: structures.row_shape(layers[name])[0] for name in rates})
        return Layerwise(rates)

    def pruner(self, prunable: PrunableNetwork) -> Pruner:
        """The pruner of a network. Raises `InputError` where it has no such layers or structure."""
        if not prunable.layers:
            raise InputError("model: has no layer to prune; include=[...] names other parameters")
        score = SCORES[self.score] if isinstance(self.score, str) else self.score
        default = ROUNDS.get(self.score, 1) if isinstance(self.score, str) else 1
        structure = self._structure_of(prunable)
        scope = self.scope_of(prunable, structure)
        if isinstance(structure, structures.UnitStructure):
            scope = self._at_least(structure, scope, prunable)
        pruner = Pruner(score, scope, structure, self.rounds or default)
        pruner.units_left(prunable.dense)
        if self.outputs is not None:
            _ = prunable.outputs  # raises for unknown names
        prunable.warn()
        return pruner

    def _structure_of(self, network: PrunableNetwork) -> structures.Structure:
        make = structures.parse_structure(self.structure) if isinstance(self.structure, str) else self.structure
        structure = structures.Rows(network.layers) if self._in_rows else make(network)
        if not isinstance(structure, structures.UnitStructure):
            return structure
        return replace(
            structure,
            group_score=self.group_score,
            round_to=structure.round_to if self.round_to == 1 else int(self.round_to),
            cost=self.cost,
            weight_costs=network.multiply_adds if self.cost == "macs" else structure.weight_costs,
            together=self.scope == "global",
        )

    def _at_least(self, structure: structures.UnitStructure, scope: Scope, network: PrunableNetwork) -> Scope:
        """The scope, with no less than what the structure always leaves. Raises `InputError` for a density below."""
        total = structure.units_left(network.dense, scope)
        least = structure.least(network.dense, scope)
        for group, count in least.items() if self.cost != "units" else ():
            if not isinstance(self.density, Mapping | None) and self.density * total[group] < count:
                raise InputError(
                    f"density: should be at least {count / max(1, total[group]):.3g} of the {COSTS[self.cost]}: so "
                    f"many are left of the whole network if every set of {structure.what} keeps as few as it may"
                )
        alone = self.cost == "units" and structure.round_to > 1
        if not isinstance(scope, Layerwise | Globally) or not (alone or self.cost != "units"):
            return AtLeast(scope, least)
        multiples: Counts = {group: structure.round_to for group in least if alone and len(group) == 1}
        return Stepwise(scope, self.levels, total, least, multiples)


def _of_competitors(
    values: Mapping[str, float], competing: Mapping[str, tuple[str, ...]], where: str
) -> dict[str, float]:
    """The value of each competitor whose layers have one. Raises `InputError`, which names the option `where`, if
    they have several."""
    found = {}
    for name, layers in competing.items():
        given = {layer: values[layer] for layer in layers if layer in values}
        if len({*given.values()}) > 1:
            listed = ", ".join(f"{display_name(layer)} {value:g}" for layer, value in given.items())
            raise InputError(f"{where}: layers whose units are coupled should have the same, not {listed}")
        if given:
            found[name] = next(iter(given.values()))
    return found


def _check_known(option: str, value: object, known: Collection[str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise unknown(option, value, known)


def _check_fraction(name: str, density: object) -> None:
    if isinstance(density, bool) or not isinstance(density, Real) or not 0 < float(density) <= 1:
        raise InputError(f"{name}: should be a number greater than 0 and at most 1, not {density!r}")
