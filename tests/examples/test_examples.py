from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tombola._find_ticket import SearchResult
from tombola.engines.custom.run import seeded
from tombola.pruning.mask import Mask
from tombola.utils.seeds import Purpose, derive

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Example:
    """A reduced run of an example, with one replicate, and what must come out."""

    name: str
    rate: float
    learned: float
    """The dense network's figure is above this, which is far above chance."""
    levels: int = 2
    together: bool = False
    """All layers are pruned by one threshold."""
    dense: tuple[str, ...] = ()
    """Weights that are not pruned."""
    branches: tuple[str, ...] = ("ticket",)
    needs: tuple[str, ...] = ()
    begin: int = 0
    """The step that weights are rewound to."""

    @property
    def module(self) -> ModuleType:
        for package in self.needs:
            pytest.importorskip(package)
        return importlib.import_module(f"examples.{self.name}")

    def weights(self, sizes: dict[str, int], level: int) -> int:
        """How many are left."""
        parts = [n for name, n in sizes.items() if name not in self.dense]
        left = [sum(parts)] if self.together else parts
        for _ in range(level):
            left = [n - round(self.rate * n) for n in left]
        return sum(left) + sum(n for name, n in sizes.items() if name in self.dense)


EXAMPLES = [
    Example("plain_loop", 1 / 3, 0.9, branches=("ticket", "reinit")),
    Example("tabular", 0.4, 0.8, together=True, branches=("ticket", "reinit")),
    Example("tiny_gpt", 0.35, -2.5, levels=1, together=True),  # characters drawn by frequency: -3.06
    Example("bert_trainer", 0.4, 0.8, levels=1, dense=("classifier.weight",), needs=("transformers", "accelerate")),
    Example("resnet_lightning", 0.35, 0.9, together=True, needs=("lightning",), begin=30),
    Example("accelerate_loop", 1 / 3, 0.9, needs=("accelerate",)),
]

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),  # Lightning, of torch
]


@cache
def found(example: Example) -> SearchResult:
    result: SearchResult = example.module.main(levels=example.levels, replicates=1)
    return result


def initial(example: Example) -> tuple[Mask, dict[str, Tensor]]:
    with seeded(derive(0, Purpose.WEIGHTS, 0)):
        network = example.module.make()
    return Mask.full(network), network.state_dict()


@every_example
def test_the_table_has_every_level_and_branch_with_as_many_weights_as_asked(example: Example) -> None:
    levels = found(example).levels
    sizes = initial(example)[0].sizes
    assert levels.branches == list(example.branches)
    assert [level.level for level in levels] == list(range(example.levels + 1))
    for answer in levels.answers:
        assert answer.weights == example.weights(sizes, answer.level)
    for branch in example.branches:
        assert all(len(levels.of(branch, level)) == 1 for level in range(1, example.levels + 1))


@every_example
def test_the_ticket_is_the_initial_network_without_the_weights_that_were_pruned(example: Example) -> None:
    ticket = found(example).ticket
    full, start = initial(example)
    assert ticket.mask.sizes == full.sizes
    assert ticket.mask.count == example.weights(full.sizes, ticket.provenance["level"])
    assert ticket.mask.count < full.count
    for name in example.dense:
        assert ticket.mask[name].all()
    for name, kept in ticket.mask.items():
        assert not ticket.start[name][~kept].any()
    same = {name: torch.equal(ticket.start[name], start[name] * ticket.mask.get(name, 1)) for name in start}
    assert all(same.values()) if example.begin == 0 else not any(same[name] for name in full)


@every_example
def test_the_dense_network_has_learned(example: Example) -> None:
    levels = found(example).levels
    (dense,) = levels.values("ticket", 0).values()
    assert dense > example.learned


@every_example
def test_every_network_takes_as_many_steps_as_the_dense_one(example: Example) -> None:
    (steps,) = {answer.iterations for answer in found(example).levels.answers}
    assert steps > example.begin


def test_every_example_is_tested_and_in_the_documentation() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    text = (ROOT / "docs" / "your-own.md").read_text()
    assert names == {example.name for example in EXAMPLES}
    assert all(f"examples/{name}.py" in text for name in names)
