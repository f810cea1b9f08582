"""The tuned baseline: the dense network trained in other ways than the tickets were.

A ticket that matches a badly trained dense network shows little: the dense network trained with the best of several
learning rates may be more accurate than any ticket (Ma et al. 2021, "Sanity Checks for Lottery Tickets: Does Your
Winning Ticket Really Win the Jackpot?", arXiv:2107.00166).
"""

from __future__ import annotations

from collections.abc import Sequence

from tombola.runs.run import BaseRun
from tombola.studies.request import BASELINE, RunRequest, Study


def train_baselines(runs: Sequence[BaseRun]) -> Study[None]:
    """Train `runs`, further trainings of the dense network of one replicate; each is a draw at level 0."""
    if runs:
        yield [RunRequest(BASELINE, 0, run, index) for index, run in enumerate(runs)]
