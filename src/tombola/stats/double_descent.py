"""Sparse double descent (He et al. 2022): as weights are removed, test error at the end of training first rises, then
falls, because the network no longer fits noisy labels, and rises again when too few weights are left."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tombola.experiments.results import Results
from tombola.stats.curve_shape import (
    BUMP_AND_DESCENT,
    VALLEY,
    cross_fitted_heights,
    most_prominent_bump,
    p_of_shape,
)
from tombola.stats.double_descent_summary import CurveSummary, DoubleDescentLevel, DoubleDescentSummary
from tombola.stats.paired_test import Values

INTERPOLATION = 0.01
"""Up to this training error, tickets are said to fit their training labels."""

_MEASURES = {
    "test_error": "test_accuracy",
    "test_error_at_stop": "test_accuracy_at_stop",
    "train_error": "train_accuracy",
}


def double_descent(results: Results) -> DoubleDescentSummary | None:
    """Whether the curves have bumps; None unless the configuration asks for it and there are three levels."""
    config = results.config
    if not config.analyses_double_descent:
        return None
    tickets = {
        (row.replicate, row.level): row
        for row in results.rows
        if row.branch == "ticket" and not row.measures.diverged and row.replicate not in results.copies
    }
    levels = sorted({level for _, level in tickets})
    replicates = [r for r in sorted({r for r, _ in tickets}) if all((r, level) in tickets for level in levels)]
    if len(levels) < 3 or not replicates:
        return None
    curves = {
        name: np.array([[1 - (tickets[r, lv].measures[measure] or 0.0) for lv in levels] for r in replicates])
        for name, measure in _MEASURES.items()
    }
    moved = _distances(results)
    known = all((r, level) in moved for r in replicates for level in levels)
    distance = np.array([[moved[r, level] for level in levels] for r in replicates]) if known else None
    alpha = config.verdict.alpha
    return DoubleDescentSummary(
        replicates=len(replicates),
        alpha=alpha,
        label_noise=config.label_noise,
        levels=[
            DoubleDescentLevel(
                level=level,
                weights_left=tickets[replicates[0], level].weights_left,
                **{name: curve[:, index].tolist() for name, curve in curves.items()},
                distance=[] if distance is None else distance[:, index].tolist(),
            )
            for index, level in enumerate(levels)
        ],
        end=_shape(curves["test_error"], levels, alpha),
        stop=_shape(curves["test_error_at_stop"], levels, alpha),
        distance=None if distance is None else _shape(distance, levels, alpha),
        interpolates_to=_interpolates_to(curves["train_error"], levels),
        correlation=[] if distance is None else _rank_correlations(distance, curves["test_error"]),
    )


def _distances(results: Results) -> Mapping[tuple[int, int], float]:
    """The L2 norm of the change of all kept weights, by replicate and level."""
    squares: dict[tuple[int, int], float] = {}
    for layer in results.layers:
        if layer["branch"] == "ticket" and layer["distance"] is not None:
            place = (layer["replicate"], layer["level"])
            squares[place] = squares.get(place, 0.0) + layer["distance"] ** 2
    return {place: math.sqrt(square) for place, square in squares.items()}


def _shape(curves: Values, levels: list[int], alpha: float) -> CurveSummary:
    p_bump, p_rises_again = (p_of_shape(curves, pieces, alpha) for pieces in (VALLEY, BUMP_AND_DESCENT))
    bump, heights = most_prominent_bump(curves.mean(0)), cross_fitted_heights(curves)
    rise, fall, final_rise = heights or (None, None, None)
    return CurveSummary(
        bump=None if p_bump is None else p_bump <= alpha,
        rises_again=None if p_rises_again is None else p_rises_again <= alpha,
        p_bump=p_bump,
        p_rises_again=p_rises_again,
        before=None if bump is None else levels[bump.before],
        peak=None if bump is None else levels[bump.peak],
        after=None if bump is None else levels[bump.after],
        rise=rise,
        fall=fall,
        final_rise=final_rise,
    )


def _interpolates_to(train_error: Values, levels: list[int]) -> int | None:
    fits = train_error.mean(0) <= INTERPOLATION
    return None if not fits[0] else levels[len(levels) - 1 if fits.all() else int(fits.argmin()) - 1]


def _rank_correlations(one: Values, other: Values) -> list[float]:
    """Kendall's τ over levels, for each replicate; ties count as 0."""
    first, second = np.triu_indices(one.shape[1], 1)
    agree = np.sign(one[:, second] - one[:, first]) * np.sign(other[:, second] - other[:, first])
    correlations: list[float] = agree.mean(1).tolist()
    return correlations
