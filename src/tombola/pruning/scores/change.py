"""Scores that compare weights with what they were drawn as: w_i initial, w_f final.

Most are the mask criteria of Zhou et al. 2019 ("Deconstructing Lottery Tickets", section 2, figure 3; the two by sign
in section 5). All raise `InputError` where the initial weights are not known.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tombola.pruning.scores.inputs import ScoreInputs


def large_init(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|w_i|: magnitude before training."""
    return _each(grounds, lambda initial, final: initial.abs())  # noqa: ARG005


def small_init(grounds: ScoreInputs) -> dict[str, Tensor]:
    """-|w_i|: a criterion that should fail."""
    return _each(grounds, lambda initial, final: -initial.abs())  # noqa: ARG005


def magnitude_increase(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|w_f| - |w_i|."""
    return _each(grounds, lambda initial, final: final.abs() - initial.abs())


def distance(grounds: ScoreInputs) -> dict[str, Tensor]:
    """|w_f - w_i|; "movement" in the paper, a name that has since come to mean `movement`."""
    return _each(grounds, lambda initial, final: (final - initial).abs())


def large_final_same_sign(grounds: ScoreInputs) -> dict[str, Tensor]:
    """max(0, w_i w_f / |w_i|): magnitude of the weights that kept their sign, 0 of the others."""
    return _each(grounds, lambda initial, final: (initial.sign() * final).clamp(min=0))


def large_final_diff_sign(grounds: ScoreInputs) -> dict[str, Tensor]:
    """max(0, -w_i w_f / |w_i|): magnitude of the weights that changed their sign, 0 of the others."""
    return _each(grounds, lambda initial, final: (-initial.sign() * final).clamp(min=0))


def movement(grounds: ScoreInputs) -> dict[str, Tensor]:
    """(w_f² - w_i²) / 2: how far training took a weight away from zero.

    Movement pruning accumulates S = -Σ_t lr g_t w_t over the steps of a training (Sanh et al. 2020, section 4). A
    step of SGD is Δw_t = -lr g_t, so S = Σ_t w_t Δw_t, which for small steps is the integral of w dw: only the ends
    of the training matter. What is left out: S is smaller by half the sum of Δw_t², and the paper goes on training
    the weights it has pruned, through a straight-through estimator.
    """
    return _each(grounds, lambda initial, final: (final.square() - initial.square()) / 2)


def large_init_large_final(grounds: ScoreInputs) -> dict[str, Tensor]:
    """min(α |w_f|, |w_i|), α such that both bounds cut off the same fraction of the layer's weights.

    That α depends on how many weights are to go. The minimum of the two ranks, each within the layer's weights that
    are left and in [0, 1], keeps the same weights whatever that number is, and is what we return.
    """
    return _ranked(grounds, lambda initial, final: torch.minimum(initial, final))


def small_init_small_final(grounds: ScoreInputs) -> dict[str, Tensor]:
    """-max(α |w_f|, |w_i|), with ranks in place of α as in `large_init_large_final`."""
    return _ranked(grounds, lambda initial, final: -torch.maximum(initial, final))


def _each(grounds: ScoreInputs, of: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    start = grounds.start()
    return {name: of(start[name].detach().to(final), final) for name, final in grounds.weights.items()}


def _ranked(grounds: ScoreInputs, of: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    start = grounds.start()
    scores = {}
    for name, final in grounds.weights.items():
        left = grounds.mask[name].to(final.device)
        scores[name] = of(_rank(start[name].detach().to(final).abs(), left), _rank(final.abs(), left))
    return scores


def _rank(values: Tensor, among: Tensor) -> Tensor:
    """What fraction of the values `among` is smaller: float64 in [0, 1]; equal values have equal ranks."""
    in_order = values[among].sort().values
    return torch.searchsorted(in_order, values.contiguous()).double() / max(1, len(in_order))
