from __future__ import annotations

from tombola.utils.seeds import Purpose, derive


def test_streams_differ_by_seed_purpose_and_place() -> None:
    streams = [
        derive(seed, purpose, *where) for seed in (0, 1) for purpose in Purpose for where in [(), (0,), (1,), (0, 1)]
    ]
    assert len(set(streams)) == len(streams)
    assert all(0 <= stream < 2**63 for stream in streams)


def test_streams_never_change() -> None:
    """They are part of every result: these numbers are for ever."""
    assert derive(0, Purpose.WEIGHTS, 0) == 1317536309490288386
    assert derive(7, Purpose.REINIT, 1, 2, 3) == 4984266201262163669
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "WEIGHTS": 0,
        "SPLIT": 1,
        "TRAINING": 2,
        "ORDER": 3,
        "NOISE": 4,
        "SCORE": 5,
        "REINIT": 6,
        "REUSE": 7,
        "REUSE_SIGN": 8,
        "RANDOM": 9,
        "SHUFFLED": 10,
        "RANDOM_GLOBAL": 11,
        "LABELS": 12,
        "AUGMENT": 13,
        "STABILITY": 14,
        "SPARSE_START": 15,
        "GROWTH": 16,
        "UNTRAINED": 17,
        "TRANSFER_RANDOM": 18,
        "CHECK": 19,
    }
