"""RunCosts: how long trainings take, by their kind and the weights left, as far as it was measured."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import NamedTuple

from tombola.engines.short_training import Measured
from tombola.runs.run import BaseRun, Run
from tombola.zoo import datasets
from tombola.zoo.datasets.description import Data
from tombola.zoo.datasets.parquet_columns import Columns
from tombola.zoo.datasets.split import count_training_examples

TRAINING_PASSES = 3
"""An example that is trained on costs as much as three that are evaluated: forward, and twice backward."""


HANDLING = 0.02
"""Seconds of a training that its outcome does not count: to build the network, and to store the outcome durably."""


class Interval(NamedTuple):
    """From the lowest to the highest value that is expected."""

    low: float
    high: float

    def __add__(self, other: object) -> Interval:
        assert isinstance(other, Interval)
        return Interval(self.low + other.low, self.high + other.high)

    def plus(self, seconds: float) -> Interval:
        """Both ends later."""
        return Interval(self.low + seconds, self.high + seconds)

    def times(self, low: float, high: float | None = None) -> Interval:
        """Both ends multiplied by `low`, or the higher one by `high`."""
        return Interval(self.low * low, self.high * (low if high is None else high))

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


NOTHING = Interval(0.0, 0.0)


class Load(NamedTuple):
    """What a training costs, apart from the speed."""

    kind: Hashable
    """Trainings of one kind have the same speed at the same density."""
    density: float
    """The fraction of weights left."""
    work: float
    """In passes of one example forward through the network; 1 for a training by the user's function."""

    @classmethod
    def of(cls, run: BaseRun, data_dir: str | Path | None = None) -> Load:
        """Of a whole run."""
        if not isinstance(run, Run):
            # Whatever the user's function does, it does it with all weights, zeros included.
            return cls((run.model_dump_json(exclude={"start", "mask", "seed"}), run.interpolates), 1.0, 1.0)
        final = 1 + (run.last > run.begin)  # of the weights of the end, and of the early stop
        train, _, test = _sizes(run.data, data_dir)
        passes = _passes(run, run.begin, run.last, data_dir) + final * (train + test) + _recomputed(run, train)
        return cls(_kind(run), _density(run), passes)

    @classmethod
    def of_part(cls, run: Run, measured: Measured, data_dir: str | Path | None = None) -> Load:
        """Of those iterations that were measured."""
        if measured.finished:
            return cls.of(run, data_dir)
        return cls(_kind(run), _density(run), _passes(run, measured.begin, measured.end, data_dir))


def _kind(run: Run) -> Hashable:
    training = run.training
    options = training.optimizer, training.batch_size, training.precision, run.data.augmented
    # These decide whether an engine can use its fastest way.
    further = training.label_smoothing > 0, training.mixup > 0, training.ema > 0, training.clip_norm is None
    return run.start.network.model_dump_json(), options, further


def _density(run: BaseRun) -> float:
    return run.mask.density if run.mask else 1.0


def _passes(run: Run, begin: int, end: int, data_dir: str | Path | None) -> float:
    """Of the iterations from `begin` to `end`, and of the evaluations among them."""
    train, validation, test = _sizes(run.data, data_dir)
    every = run.training.evaluate_every.iterations
    evaluations = end // every - begin // every + (end == run.last and (end % every > 0 or end == begin))
    each = validation + (test if run.training.test_curve else 0) + (train if end == begin else 0)
    return float(TRAINING_PASSES * (end - begin) * run.training.batch_size + evaluations * each)


def _recomputed(run: Run, train: int) -> int:
    """The examples for which running statistics are recomputed."""
    batch_size = run.training.batch_size
    return run.start.trained.statistics.iterations_of(train, batch_size) * batch_size if run.start.trained else 0


def _sizes(data: Data, data_dir: str | Path | None) -> tuple[int, int, int]:
    """The numbers of training, validation and test examples."""
    return _counted(data.name, data.columns, data.digest, data.validation, data.fraction, data_dir)


@functools.lru_cache(maxsize=16)
def _counted(
    name: str, columns: Columns, digest: str, validation: int, fraction: float, data_dir: str | Path | None
) -> tuple[int, int, int]:
    dataset = datasets.load(name, data_dir, columns)
    assert dataset.digest == digest
    return count_training_examples(dataset.y_train, validation, fraction), validation, len(dataset.y_test)


class RunCosts:
    """Measured times, and what follows from them for other trainings of the same kinds."""

    def __init__(self) -> None:
        # By kind and density: seconds, and the work done in them.
        self._measured: defaultdict[Hashable, dict[float, tuple[float, float]]] = defaultdict(dict)

    def __bool__(self) -> bool:
        return bool(self._measured)

    def knows(self, kind: Hashable, density: float | None = None) -> bool:
        """Whether a training of this kind was measured, and at this density if it is given."""
        return kind in self._measured and (density is None or _rounded(density) in self._measured[kind])

    def add(self, load: Load, seconds: float) -> None:
        """A training of this load took so long."""
        points, density = self._measured[load.kind], _rounded(load.density)
        before, work = points.get(density, (0.0, 0.0))
        points[density] = before + seconds, work + load.work

    def seconds(self, load: Load) -> Interval | None:
        """How long a training of this load takes; None if none of its kind was measured.

        Between two measured densities the time is interpolated. Beyond them it is between that of the next one and
        one that is proportional to the density: engines that compute with the kept weights only save up to that.
        """
        points = self._measured.get(load.kind)
        if not points:
            return None
        density = _rounded(load.density)
        below = max((measured for measured in points if measured <= density), default=None)
        above = min((measured for measured in points if measured >= density), default=None)
        if below is not None and above is not None:
            share = 0.0 if above == below else (density - below) / (above - below)
            speed = (1 - share) * _speed(points[below]) + share * _speed(points[above])
            return Interval(speed, speed).times(load.work).plus(HANDLING)
        nearest = above if above is not None else below
        assert nearest is not None
        speed, ratio = _speed(points[nearest]), density / nearest if nearest else 1.0
        return Interval(speed * min(1.0, ratio), speed * max(1.0, ratio)).times(load.work).plus(HANDLING)

    def total(self, loads: Mapping[Load, int]) -> Interval | None:
        """The sum for this number of trainings of each load; None if the time of one is unknown."""
        total = NOTHING
        for load, count in loads.items():
            seconds = self.seconds(load)
            if seconds is None:
                return None
            total += seconds.times(count)
        return total


def _rounded(density: float) -> float:
    return float(f"{density:.3g}")


def _speed(point: tuple[float, float]) -> float:
    seconds, work = point
    return seconds / work if work else 0.0


def wall_time(times: Interval, chain: Interval, workers: int) -> Interval:
    """How long trainings take on `workers`: `times` is the sum, `chain` that of the longest sequence of trainings of
    which each needs the one before it."""
    return Interval(max(times.low / workers, chain.low), max(times.high / workers, chain.high))
