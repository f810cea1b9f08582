"""What a summary says about sparse double descent. Errors are fractions."""

from __future__ import annotations

from tombola.utils.frozen_model import FrozenModel


class CurveSummary(FrozenModel):
    """The shape of one curve against the weights left; see `tombola.stats.curve_shape`."""

    bump: bool | None
    """Whether it has a bump, with the confidence of the criteria; None if there are too few replicates to tell."""
    rises_again: bool | None
    """Whether it also rises after the bump, with the same confidence."""
    p_bump: float | None
    """The p-value of "the mean curve has no bump"."""
    p_rises_again: float | None
    """The p-value of "it does not rise after a bump"."""
    before: int | None
    """The levels of the most prominent bump of the mean curve: the lowest before the peak; None if it has none."""
    peak: int | None
    after: int | None
    """The lowest level after the peak."""
    rise: float | None
    """From `before` to `peak`, the mean over replicates, each at the levels that the other replicates choose."""
    fall: float | None
    """From `peak` to `after`, likewise."""
    final_rise: float | None
    """From `after` to the highest level behind it, likewise."""


class DoubleDescentLevel(FrozenModel):
    """The tickets of one level: one value for each of the replicates."""

    level: int
    weights_left: float
    test_error: list[float]
    """At the end of training."""
    test_error_at_stop: list[float]
    train_error: list[float]
    """At the end of training; label noise is counted in."""
    distance: list[float]
    """The L2 norm of the change of all kept weights in training; empty if unknown."""


class DoubleDescentSummary(FrozenModel):
    """Test error, training error and distance travelled against the weights left."""

    replicates: int
    """The number of replicates that have finished tickets at all levels, without copies."""
    alpha: float
    """The error rate allowed for each statement."""
    label_noise: float
    levels: list[DoubleDescentLevel]
    end: CurveSummary
    """Test error at the end of training."""
    stop: CurveSummary
    """Test error at early stop."""
    distance: CurveSummary | None
    """The distance travelled; None if unknown."""
    interpolates_to: int | None
    """The last level, from dense to sparse, at which tickets fit at least 99% of their training labels on average;
    None if the dense network does not."""
    correlation: list[float]
    """For each replicate, Kendall's rank correlation over levels of distance and test error; empty if unknown."""
