from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tombola.experiments import copies as module
from tombola.experiments.copies import TOLERANCE, Copies, Sketch, copies_text, sketch, tolerances
from tombola.pruning.mask import Mask

ONE, OTHER = {"w": (0.1, 1.0, 2.0)}, {"w": (0.1, 1.0, 2.2)}
"""Sketches that are too far apart."""


def copied_replicates(sketches: dict[tuple[int, int], Sketch]) -> list[int]:
    copies = Copies()
    for place, found in sketches.items():
        copies.add(*place, found)
    return copies.replicates


def test_copies_have_the_same_weights_at_the_same_level() -> None:
    assert copied_replicates({(0, 0): ONE, (0, 1): OTHER, (0, 2): ONE}) == [0, 2]
    assert copied_replicates({(0, 0): ONE, (1, 1): ONE}) == []
    assert copied_replicates({(0, 3): ONE, (0, 1): ONE, (1, 2): OTHER, (1, 0): OTHER}) == [0, 1, 2, 3]
    assert copied_replicates({(0, 0): {}, (0, 1): {}}) == []  # unknown weights
    assert copied_replicates({}) == []


def test_a_sketch_is_compared_with_those_of_its_level_only(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr(module, "are_alike", lambda *pair: compared.append(pair))
    copied_replicates({(level, replicate): ONE for level in range(10) for replicate in range(4)})
    assert len(compared) == 10 * 6


def test_the_text_names_them_and_both_reasons() -> None:
    text = copies_text([0, 3])
    for fact in ("0, 3", "torch.initial_seed()", "function that makes it"):
        assert fact in text
    assert copies_text([]) == ""


def state(**changes: float) -> dict[str, Tensor]:
    """Two layers, a bias and a buffer; `changes` are the norms of random changes, by name."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"one.weight": (40, 30), "two.weight": (5, 40), "two.bias": (5,), "seed": (1,)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, norm in changes.items():
        change = torch.randn(shapes[name])
        tensors[name] = tensors[name] + norm * change / change.norm()
    return tensors


DENSE = Mask({name: torch.ones_like(state()[name], dtype=torch.bool) for name in ("one.weight", "two.weight")})


def are_copies(
    start: dict[str, Tensor], one: dict[str, Tensor], other: dict[str, Tensor], mask: Mask = DENSE
) -> bool:
    finals = [
        sketch(final, mask, tolerances(DENSE, start, trained)) for final, trained in ((one, one), (other, other))
    ]
    return copied_replicates({(0, replicate): final for replicate, final in enumerate(finals)}) == [0, 1]


def trained(**changes: float) -> dict[str, Tensor]:
    """Where training ends from `state()`, up to random changes."""
    torch.manual_seed(3)
    end = state(**{"one.weight": 1.0, "two.weight": 2.0})
    torch.manual_seed(4)
    return {name: tensor + changes.get(name, 0.0) * torch.randn(tensor.shape) for name, tensor in end.items()}


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({}, True),
        ({"seed": 5.0}, True),  # a buffer
        ({"two.bias": 5.0}, True),
        ({"one.weight": 1e-6, "two.weight": 1e-6}, True),  # rounding
        ({"two.weight": 0.02}, False),
        ({"one.weight": 0.02, "two.weight": 0.02}, False),
    ],
)
def test_copies_agree_in_the_prunable_weights_that_training_changes(changes: dict[str, float], alike: bool) -> None:
    assert are_copies(state(), trained(), trained(**changes)) == alike


def test_layers_that_training_leaves_as_they_are_do_not_matter() -> None:
    end = trained()
    unused = [end | {"one.weight": torch.full((40, 30), value)} for value in (1.0, 2.0)]
    compared = [tolerances(DENSE, state() | {"one.weight": final["one.weight"]}, final) for final in unused]
    one, other = (sketch(final, DENSE, tolerated) for final, tolerated in zip(unused, compared, strict=True))
    assert one == other
    assert [*one] == ["two.weight"]


def test_a_frozen_body_that_all_share_does_not_make_copies() -> None:
    ends = [state() | {"two.bias": torch.full((5,), value)} for value in (1.0, 2.0, 1.0)]
    assert not are_copies(state(), ends[0], ends[1])
    assert are_copies(state(), ends[0], ends[2])


def test_trainings_that_change_nothing_are_copies_only_if_their_weights_are_equal() -> None:
    start = state()
    assert are_copies(start, state(), state())
    other = {name: tensor * (1 + 1e-6) for name, tensor in start.items()}
    tolerated = tolerances(DENSE, start, start), tolerances(DENSE, other, other)
    assert sketch(start, DENSE, tolerated[0]) != sketch(other, DENSE, tolerated[1])


def test_weights_that_are_not_finite_are_no_copies() -> None:
    end = {name: tensor * torch.nan for name, tensor in state().items()}
    assert not are_copies(state(), end, end)


def test_a_sparse_ticket_tolerates_less() -> None:
    end, few = trained(), Mask({name: torch.rand(kept.shape) < 0.01 for name, kept in DENSE.items()})
    tolerated = tolerances(DENSE, state(), end)
    assert tolerated["two.weight"] == pytest.approx(2 * TOLERANCE, rel=1e-3)
    left = float(few["two.weight"].double().mean())
    assert sketch(end, few, tolerated)["two.weight"][0] == pytest.approx(2 * TOLERANCE * left**0.5, rel=1e-3)


def test_projections_are_as_far_apart_as_the_weights() -> None:
    ratios = []
    for seed in range(30):
        torch.manual_seed(seed)
        one, other = state(), state(**{"one.weight": 3.0})
        a, b = (torch.tensor(sketch(each, DENSE, {"one.weight": 0.0})["one.weight"]) for each in (one, other))
        ratios.append(float((a - b).norm()) / 3)
    assert 0.85 < sum(ratios) / len(ratios) < 1.1
    assert 0.2 < min(ratios) < max(ratios) < 2.0
