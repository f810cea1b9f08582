from __future__ import annotations

from tombola.experiments.results_schema import Row
from tombola.runs.outcome import Measures
from tombola.stats.copies import copied_replicates, copies_text


def row(replicate: int, final: str, level: int = 0, branch: str = "ticket", draw: int = 0) -> Row:
    return Row(replicate, level, branch, draw, 1, 1, "key", Measures(diverged=False, iterations=0), {}, final)


def test_copies_have_the_same_weights_at_the_same_place() -> None:
    assert copied_replicates([row(0, "a"), row(1, "b"), row(2, "a")]) == [0, 2]
    assert copied_replicates([row(0, "a"), row(1, "a", level=1), row(2, "a", branch="reinit")]) == []
    assert copied_replicates([row(0, "a", draw=0), row(0, "a", draw=1)]) == []
    assert copied_replicates([row(3, "a"), row(1, "a"), row(2, "b", 1), row(0, "b", 1)]) == [0, 1, 2, 3]
    assert copied_replicates([row(0, ""), row(1, "")]) == []  # unknown weights
    assert copied_replicates([]) == []


def test_the_text_names_them_and_both_reasons() -> None:
    text = copies_text([0, 3])
    for fact in ("0, 3", "torch.initial_seed()", "function that makes it"):
        assert fact in text
    assert copies_text([]) == ""
