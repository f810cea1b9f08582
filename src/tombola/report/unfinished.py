"""What is said of an experiment that is not finished: how far it is, whether it is running, and how to resume it."""

from __future__ import annotations

from pathlib import Path

from tombola.experiments.experiment import count_runs
from tombola.experiments.live_mark import is_marked
from tombola.experiments.results import Results
from tombola.utils.text import plural

CALL = "tombola.find_ticket(...)"
"""What resumes a search with a user's own functions."""


def is_running(folder: Path | None) -> bool:
    """Whether a process on this machine is at work on the experiment in `folder`, as far as can be seen from here."""
    return folder is not None and is_marked(folder)


def state_text(folder: Path | None, results: Results) -> str:
    """Whether it is running or was interrupted, and how far it is, in a sentence."""
    done = sum(cost.runs for cost in results.costs) or len(results.rows)
    expected = max(done, count_runs(results.config))
    state = "is running" if is_running(folder) else "was interrupted"
    share = f" ({done / expected:.0%})" if expected else ""
    return f"This experiment {state}: {done:,} of {plural(expected, 'run')} are finished{share}."


def resume_text(folder: Path | None, results: Results) -> tuple[str, str]:
    """What resumes it: a sentence, and a command or a call."""
    if results.command is None:
        return "To resume it, call this in Python, with the same arguments as before:", CALL
    if is_running(folder):
        return "If it is interrupted, the same command resumes it:", results.command
    return "To resume it, in the folder where it was started:", results.command
