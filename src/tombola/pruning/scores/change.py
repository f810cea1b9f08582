"""Scores that need the initial weights: w_i initial, w_f final.

Most are mask criteria of Zhou et al. 2019 ("Deconstructing Lottery Tickets", section 2, figure 3; the two by sign in
section 5). All raise `InputError` if the initial weights are missing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tombola.pruning.scores.inputs import ScoreInputs


def large_init(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|w_i|: magnitude before training."""
    return _score_each(inputs, lambda initial, final: initial.abs())  # noqa: ARG005


def small_init(inputs: ScoreInputs) -> dict[str, Tensor]:
    """-|w_i|: a criterion that should fail."""
    return _score_each(inputs, lambda initial, final: -initial.abs())  # noqa: ARG005


def magnitude_increase(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|w_f| - |w_i|."""
    return _score_each(inputs, lambda initial, final: final.abs() - initial.abs())


def distance(inputs: ScoreInputs) -> dict[str, Tensor]:
    """|w_f - w_i|; the paper calls it "movement", which now means the score `movement`."""
    return _score_each(inputs, lambda initial, final: (final - initial).abs())


def large_final_same_sign(inputs: ScoreInputs) -> dict[str, Tensor]:
    """max(0, w_i w_f / |w_i|): magnitude of the weights that kept their sign, 0 of the others."""
    return _score_each(inputs, lambda initial, final: (initial.sign() * final).clamp(min=0))


def large_final_diff_sign(inputs: ScoreInputs) -> dict[str, Tensor]:
    """max(0, -w_i w_f / |w_i|): magnitude of the weights that changed their sign, 0 of the others."""
    return _score_each(inputs, lambda initial, final: (-initial.sign() * final).clamp(min=0))


def movement(inputs: ScoreInputs) -> dict[str, Tensor]:
    """(w_f² - w_i²) / 2: how far training moved a weight away from zero.

    Movement pruning accumulates S = -Σ_t lr g_t w_t over the training steps (Sanh et al. 2020, section 4). With SGD
    this is Σ_t w_t Δw_t, for small steps the integral of w dw, which depends only on both ends of the training. Two
    differences remain: S is smaller by half the sum of Δw_t², and the paper continues to train pruned weights.
    """
    return _score_each(inputs, lambda initial, final: (final.square() - initial.square()) / 2)


def large_init_large_final(inputs: ScoreInputs) -> dict[str, Tensor]:
    """min(α |w_f|, |w_i|), with α such that both thresholds remove the same fraction of the layer's weights.

    As α depends on how many weights are pruned, the score is the minimum of the two ranks, in [0, 1], among the
    layer's weights that are left; this keeps the same weights."""
    return _score_ranks(inputs, lambda initial, final: torch.minimum(initial, final))


def small_init_small_final(inputs: ScoreInputs) -> dict[str, Tensor]:
    """-max(α |w_f|, |w_i|), with ranks in place of α as in `large_init_large_final`."""
    return _score_ranks(inputs, lambda initial, final: -torch.maximum(initial, final))


def _score_each(inputs: ScoreInputs, score: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    start = inputs.start()
    return {name: score(start[name].detach().to(final), final) for name, final in inputs.weights.items()}


def _score_ranks(inputs: ScoreInputs, score: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    start = inputs.start()
    scores = {}
    for name, final in inputs.weights.items():
        left = inputs.mask[name].to(final.device)
        scores[name] = score(_rank(start[name].detach().to(final).abs(), left), _rank(final.abs(), left))
    return scores


def _rank(values: Tensor, among: Tensor) -> Tensor:
    """The fraction of the values `among` that is smaller: float64 in [0, 1]; equal values have equal ranks."""
    in_order = values[among].sort().values
    return torch.searchsorted(in_order, values.contiguous()).double() / max(1, len(in_order))
