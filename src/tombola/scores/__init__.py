"""What a weight is worth: one small function for each score. Low scores are pruned first.

To add one, write it in a file here and name it in `SCORES`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from tombola.scores.grounds import Grounds
from tombola.scores.weights import magnitude, random

Score = Callable[[Grounds], dict[str, Tensor]]
"""What it may look at -> a score for every weight, by name, of the same shapes."""

SCORES: dict[str, Score] = {"magnitude": magnitude, "random": random}
