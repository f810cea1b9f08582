from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.pruning.constant_fan_in import random_constant_fan_in, update_constant_fan_in
from tombola.pruning.mask import Mask


def fan_ins(mask: Mask, name: str) -> list[int]:
    """The numbers of weights of active neurons."""
    return [n for n in mask[name].flatten(1).sum(1).tolist() if n]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    density=st.floats(0.01, 1),
    fraction=st.floats(0, 1),
    ablation=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_active_neurons_have_equal_fan_in_and_counts_are_exact(
    rows: int, columns: int, density: float, fraction: float, ablation: float, seed: int
) -> None:
    dense = Mask({"fc": torch.ones(rows, columns, dtype=torch.bool)})
    count = max(1, round(density * rows * columns))
    mask = random_constant_fan_in(dense, {("fc",): count}, seed)
    generator = torch.Generator().manual_seed(seed)
    for step in range(3):
        assert mask.count == count
        assert max(fan_ins(mask, "fc")) - min(fan_ins(mask, "fc")) <= 1
        scores = [{"fc": torch.rand(rows, columns, generator=generator)} for _ in range(2)]
        replaced = min(round(fraction * count), rows * columns - count)
        after = update_constant_fan_in(mask, *scores, {"fc": replaced}, ablation if step else 0)
        if not step and count >= rows:  # without ablation all neurons stay
            assert len(fan_ins(after, "fc")) == rows
        assert len(fan_ins(after, "fc")) <= len(fan_ins(mask, "fc"))  # an ablated neuron remains so
        mask = after


def test_a_neuron_without_salient_weights_loses_all_of_them() -> None:
    kept = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    drop = torch.tensor([[9.0, 8, 0, 0], [7, 6, 0, 0], [1, 2, 0, 0]])
    grow = torch.tensor([[0.0, 0, 5, 4], [0, 0, 1, 3], [0, 0, 0, 2]])
    after = update_constant_fan_in(Mask({"fc": kept}), {"fc": drop}, {"fc": grow}, {"fc": 2}, ablation=0.5)
    # The two lowest are those of the last neuron; the highest gradients are in the first. So it has none left, and
    # its two weights are divided: the first neuron and the second grow one each, by gradient.
    expected = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(after["fc"], expected)
    without = update_constant_fan_in(Mask({"fc": kept}), {"fc": drop}, {"fc": grow}, {"fc": 2}, ablation=0)
    assert without["fc"].sum(1).tolist() == [2, 2, 2]
    assert without["fc"][2].tolist() == [False, False, True, True]  # pruned ones come before those just dropped


def test_convolutions_have_a_neuron_for_each_channel() -> None:
    dense = Mask({"conv": torch.ones(4, 3, 2, 2, dtype=torch.bool)})
    mask = random_constant_fan_in(dense, {("conv",): 10}, seed=0)
    assert sorted(fan_ins(mask, "conv")) == [2, 2, 3, 3]
    assert random_constant_fan_in(dense, {("conv",): 10}, seed=1) != mask
