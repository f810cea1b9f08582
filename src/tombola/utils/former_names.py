"""Former names of modules and classes.

Code that imports a module by its former name still works, with a warning (`accept_former_modules`). Keys of stored
runs depend on former names too: fingerprints of users' functions contain the names of the modules and objects that
they refer to. So a module that moves keeps its former name here; otherwise stored runs would be trained again.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_MODULES = {
    "tombola._find_ticket": "tombola.find",
    "tombola.engines.augmentation": "tombola.zoo.data.augment",
    "tombola.engines.custom.step_counter": "tombola.marking",
    "tombola.experiments.recipe": "tombola.recipe",
    "tombola.experiments.results": "tombola.results",
    "tombola.exports": "tombola.ship",
    "tombola.exports.onnx_file": "tombola.ship.to_onnx",
    "tombola.exports.runtime.sparse_layers": "tombola.ship.runtime.layers",
    "tombola.exports.torch_export": "tombola.ship.exported",
    "tombola.pruning.hold": "tombola.holding",
    "tombola.pruning.held_weight": "tombola.held_weight",
    "tombola.pruning.mask": "tombola.mask",
    "tombola.pruning.prune_model": "tombola.pruning",
    "tombola.pruning.pruner": "tombola.pruning",
    "tombola.pruning.ranking": "tombola.ranking",
    "tombola.pruning.scopes": "tombola.scopes",
    "tombola.pruning.scores": "tombola.scores",
    "tombola.pruning.scores.inputs": "tombola.scores.grounds",
    "tombola.pruning.scores.losses": "tombola.scores.grounds",
    "tombola.pruning.structures": "tombola.structures",
    "tombola.pruning.structures.layer_units": "tombola.structures.rows",
    "tombola.pruning.structures.unit_structure": "tombola.structures.units",
    "tombola.pruning.torch_prune": "tombola.torch_prune",
    "tombola.tickets.ticket": "tombola.ticket",
    "tombola.utils.duration": "tombola.length",
    "tombola.utils.errors": "tombola.errors",
    "tombola.zoo.datasets": "tombola.zoo.data",
    "tombola.zoo.datasets.image_decoding": "tombola.zoo.data.images",
    "tombola.zoo.datasets.mnist": "tombola.zoo.data.idx",
    "tombola.zoo.datasets.npz": "tombola.zoo.data.arrays",
    "tombola.zoo.datasets.parquet_columns": "tombola.zoo.data.columns",
    "tombola.zoo.models": "tombola.zoo.networks",
    "tombola.zoo.models.parametrizations.edge_popup": "tombola.zoo.networks.supermask",
}
"""Modules and packages -> their former names. Of several with one former name, the first has it."""

_FORMER_ONLY = {
    "tombola.check": "tombola.tickets.verify",
    "tombola.coding": "tombola.tickets.mask_codec",
    "tombola.outcome": "tombola.runs.outcome",
    "tombola.record": "tombola.tickets.provenance",
    "tombola.run": "tombola.runs.run",
    "tombola.schedule": "tombola.engines.optimizers",
    "tombola.store": "tombola.runs.store",
    "tombola.zoo.models.supermask": "tombola.zoo.models.parametrizations.edge_popup",
}
"""Former names of modules that fingerprints need not know -> the present ones."""

_OBJECTS = {
    "tombola._find_ticket.SearchResult": "Found",
    "tombola.pruning.scores.inputs.ScoreInputs": "Grounds",
    "tombola.pruning.structures.unit_structure.UnitStructure": "WeightUnits",
    "tombola.tickets.verify.verify_ticket": "check_ticket",
    "tombola.utils.duration.Duration": "Length",
    "tombola.zoo.datasets.mnist.load_mnist": "load_idx",
    "tombola.zoo.models.resnet.ResidualBlock": "Block",
    "tombola.zoo.models.parametrizations.edge_popup.EdgePopup": "Popup",
    "tombola.zoo.models.vit.EncoderBlock": "Block",
    "tombola.zoo.models.vit.MeanPool": "Average",
    "tombola.zoo.models.vit.PatchEmbedding": "Tokens",
}
"""Full names of objects -> their former names."""


def former_name(module: str, name: str) -> tuple[str, str]:
    """The former names of a module and of the object `name` in it; unchanged if they were not renamed."""
    return _translated(module, _MODULES) or module, _OBJECTS.get(f"{module}.{name}", name)


def _translated(module: str, names: dict[str, str]) -> str | None:
    """The other name of a module, or of the innermost package around it that has one."""
    parts = module.split(".")
    for end in range(len(parts), 1, -1):
        if other := names.get(".".join(parts[:end])):
            return ".".join([other, *parts[end:]])
    return None


def former_attribute(former: str, present: str) -> property:
    """A property that hands on the attribute `present`, with a `DeprecationWarning`."""

    def get(owner: Any) -> Any:
        name = type(owner).__name__
        warnings.warn(f"{name}.{former} is deprecated: use {name}.{present}", DeprecationWarning, stacklevel=2)
        return getattr(owner, present)

    return property(get)


def accept_former_modules() -> None:
    """Make modules importable by their former names, with a `DeprecationWarning`."""
    sys.meta_path.insert(0, _FormerModules())


class _FormerModules(MetaPathFinder, Loader):
    """Imports a module that hands on what the present one has, under former names too.

    `tombola.pruning`, formerly a module, is a package now, which hands on its former objects itself.
    """

    def __init__(self) -> None:
        modules = reversed(_MODULES.items())
        former = {former: present for present, former in modules if former != "tombola.pruning"}
        self._present = _FORMER_ONLY | former

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if not fullname.startswith("tombola.") or _translated(fullname, self._present) is None:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        name = _translated(module.__name__, self._present)
        assert name is not None, "find_spec accepted the name"
        public = name.partition("._")[0]  # the package itself has what its private modules define
        warnings.warn(f"{module.__name__} is deprecated: use {public}", DeprecationWarning, stacklevel=2)
        present = importlib.import_module(name)
        objects = {
            former: full.rpartition(".")[2] for full, former in _OBJECTS.items() if full.startswith(f"{name}.")
        }

        def get(attribute: str) -> Any:
            if attribute in objects or hasattr(present, attribute):
                return getattr(present, objects.get(attribute, attribute))
            return getattr(sys.modules["tombola"], attribute)  # it may have been public

        module.__getattr__ = get  # type: ignore[method-assign]
