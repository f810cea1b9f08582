from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tombola._find_ticket import SearchResult
from tombola.engines.custom.model import seeded
from tombola.pruning.mask import Mask
from tombola.utils.seeds import Purpose, derive

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Example:
    """An example and the expected results."""

    name: str
    rate: float
    learned: float
    """A lower bound of the dense network's figure, far above chance; of its negative, if lower is better."""
    global_scope: bool = False
    unpruned: tuple[str, ...] = ()
    """Weights that are not pruned."""
    include: tuple[str, ...] = ()
    """Weights that are pruned only here."""
    branches: tuple[str, ...] = ("ticket",)
    needs: tuple[str, ...] = ()
    begin: int = 0
    """The step to which weights are rewound."""
    wins: bool = True
    """Whether a level wins, as docs/how-to/your-own.md says."""

    @property
    def module(self) -> ModuleType:
        for package in self.needs:
            pytest.importorskip(package)
        return importlib.import_module(f"examples.{self.name}")

    def weights(self, sizes: dict[str, int], level: int) -> int:
        """How many are kept."""
        parts = [n for name, n in sizes.items() if name not in self.unpruned]
        left = [sum(parts)] if self.global_scope else parts
        for _ in range(level):
            left = [n - round(self.rate * n) for n in left]
        return sum(left) + sum(n for name, n in sizes.items() if name in self.unpruned)


EXAMPLES = [
    Example("plain_loop", 1 / 3, 0.9, branches=("ticket", "reinit")),
    Example("tabular", 0.4, 0.8, global_scope=True, branches=("ticket", "reinit"), wins=False),
    Example("tiny_gpt", 0.35, -2.5, global_scope=True),  # drawing characters by frequency: -3.06
    Example("bert_trainer", 0.4, 0.8, unpruned=("classifier.weight",), needs=("transformers", "accelerate")),
    Example("resnet_lightning", 0.35, 0.9, global_scope=True, needs=("lightning",), begin=30),
    Example("accelerate_loop", 1 / 3, 0.9, needs=("accelerate",)),
    Example("lstm", 1 / 3, 0.85),
    Example("lstm_lm", 0.35, -2.3, True, (), ("characters",), ("ticket", "reinit"), begin=20, wins=False),
    Example("graph_network", 0.5, 0.8, global_scope=True, branches=("ticket", "reinit", "random"), wins=False),
    Example("cartpole", 0.4, 100, global_scope=True, branches=("ticket", "reinit"), wins=False),
    Example("gpt2", 0.35, -2.5, global_scope=True, include=("*wte", "*wpe"), needs=("transformers",)),
    Example("transformer_encoder", 1 / 3, 0.85, include=("places",)),
]

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),  # Lightning, of torch
]


@cache
def short_search(example: Example) -> SearchResult:
    result: SearchResult = example.module.main(levels=1, replicates=1)
    return result


def initial_network(example: Example) -> tuple[Mask, dict[str, Tensor]]:
    with seeded(derive(0, Purpose.WEIGHTS, 0)):
        network = example.module.make()
    return Mask.full(network, example.include), network.state_dict()


def check_table(example: Example, search: SearchResult, levels: int, replicates: int) -> None:
    table, sizes = search.levels, initial_network(example)[0].sizes
    assert {row.branch for row in table.rows} == set(example.branches)
    assert [level.level for level in table] == list(range(levels + 1))
    for result in table.rows:
        assert result.weights == example.weights(sizes, result.level)
    for branch in example.branches:
        assert all(len(table.rows_of(branch, level)) == replicates for level in range(1, levels + 1))


@every_example
def test_the_table_has_all_levels_and_branches_with_exact_counts_of_weights(example: Example) -> None:
    check_table(example, short_search(example), levels=1, replicates=1)


@pytest.mark.slow
@every_example
def test_the_whole_example(example: Example) -> None:
    options = inspect.signature(example.module.main).parameters
    search = example.module.main()
    check_table(example, search, options["levels"].default, options["replicates"].default)
    assert (search.levels.smallest_winning is not None) == example.wins
    left = search.levels[options["levels"].default].weights_left_of_all
    assert left is not None
    assert left < 0.2


@every_example
def test_the_ticket_is_the_initial_network_without_the_pruned_weights(example: Example) -> None:
    ticket = short_search(example).ticket
    full, start = initial_network(example)
    assert ticket.mask.sizes == full.sizes
    assert ticket.mask.count == example.weights(full.sizes, ticket.provenance["level"])
    assert ticket.mask.count < full.count
    for name in example.unpruned:
        assert ticket.mask[name].all()
    for name, kept in ticket.mask.items():
        assert not ticket.start[name][~kept].any()
    kept = {start[name].data_ptr(): kept for name, kept in ticket.mask.items()}  # tied weights have several names
    expected = {name: tensor * kept.get(tensor.data_ptr(), 1) for name, tensor in start.items()}
    same = {name: torch.equal(ticket.start[name], tensor) for name, tensor in expected.items()}
    assert all(same.values()) if example.begin == 0 else not any(same[name] for name in full)


@pytest.mark.slow
@every_example
def test_the_dense_network_has_learned(example: Example) -> None:
    levels = short_search(example).levels
    (dense,) = levels[0].branches["ticket"][levels.metric.at_stop].values
    assert levels.metric.sign * dense > example.learned


@every_example
def test_all_networks_train_the_same_number_of_steps(example: Example) -> None:
    (steps,) = {row.measures.iterations for row in short_search(example).levels.rows}
    assert steps > example.begin


def test_every_example_is_tested_and_documented() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    text = (ROOT / "docs/how-to/your-own.md").read_text()
    assert names == {example.name for example in EXAMPLES} | {"one_shot_gpt"}  # which searches for no ticket
    assert all(f"examples/{name}.py" in text for name in names)
