"""A program that runs an experiment whose runs wait until a file allows so many: FOLDER FILE."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.recipes import tiny
from tombola._run_experiment import run_experiment
from tombola.experiments import results_writer
from tombola.studies.conductor import Listener


class Gate(Listener):
    def __init__(self, file: Path) -> None:
        self.file = file
        self.begun = 0

    def started(self, *_: object) -> None:
        while self.begun >= int(self.file.read_text() or 0):
            time.sleep(0.02)
        self.begun += 1


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola._trainers.named_engine", lambda *_: FakeEngine())
        patch.setattr(results_writer, "WRITE_EVERY", 0)
        patch.setattr(results_writer, "PAUSE", 0)
        gate = Gate(Path(sys.argv[2]))
        run_experiment(tiny(), sys.argv[1], workers=1, progress=False, listeners=[gate])
