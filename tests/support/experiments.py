"""Whole experiments, their requests, and other data to transfer tickets to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fake_engine import FakeEngine
from tombola._run_experiment import run_experiment
from tombola.experiments.recipe import Recipe
from tombola.experiments.results import Results
from tombola.runs.outcome import Outcome
from tombola.runs.run import BaseRun
from tombola.studies.conductor import Listener
from tombola.studies.request import RunRequest
from tombola.zoo.datasets.digits import load_digits


class Recorder(Listener):
    """Records requests and trained runs; interrupts the experiment after so many trainings."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.begun: list[RunRequest] = []
        self.answers: list[tuple[int, RunRequest]] = []
        """(study, request)."""
        self.trained: list[BaseRun] = []

    def started(self, study: int, request: RunRequest) -> None:  # noqa: ARG002
        self.begun.append(request)

    def answered(self, study: int, request: RunRequest, outcome: Outcome, trained: bool) -> None:  # noqa: ARG002
        self.answers.append((study, request))
        if trained:
            self.trained.append(request.run)
        if self.stop_after is not None and len(self.trained) >= self.stop_after:
            raise KeyboardInterrupt


def train(recipe: Recipe, folder: Path, stop_after: int | None = None, **options: Any) -> tuple[Results, Recorder]:
    """Run the experiment in `folder / "out"`; its store is `folder / "store"`."""
    recorder = Recorder(stop_after)
    options = {"workers": 1} | options
    results = run_experiment(recipe, folder / "out", store=folder / "store", listeners=[recorder], **options)
    return results, recorder


def simulate(recipe: Recipe, folder: Path, stop_after: int | None = None, **options: Any) -> tuple[Results, Recorder]:
    """The same with a `FakeEngine`, which trains nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola._trainers.named_engine", lambda *_: FakeEngine())
        return train(recipe, folder, stop_after, **options)


def rotated_digits(folder: Path, classes: int) -> Path:
    """An `.npz` file of transposed digits, only those below `classes`."""
    digits = load_digits()
    train, test = digits.y_train < classes, digits.y_test < classes
    path = folder / f"rotated{classes}.npz"
    np.savez(
        path,
        x_train=digits.x_train[train].transpose(0, 2, 1),
        y_train=digits.y_train[train],
        x_test=digits.x_test[test].transpose(0, 2, 1),
        y_test=digits.y_test[test],
    )
    return path
