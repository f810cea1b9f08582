from __future__ import annotations

from tombola.utils.seeds import Purpose, derive


def test_streams_differ_by_seed_purpose_and_place() -> None:
    streams = [
        derive(seed, purpose, *where) for seed in (0, 1) for purpose in Purpose for where in [(), (0,), (1,), (0, 1)]
    ]
    assert len(set(streams)) == len(streams)
    assert all(0 <= stream < 2**63 for stream in streams)


def test_streams_never_change() -> None:
    """All results depend on these numbers."""
    assert derive(0, Purpose.WEIGHTS, 0) == 1317536309490288386
    assert derive(7, Purpose.REINIT, 1, 2, 3) == 4984266201262163669
    names = "WEIGHTS SPLIT TRAINING ORDER NOISE SCORE REINIT REUSE REUSE_SIGN RANDOM SHUFFLED RANDOM_GLOBAL LABELS"
    names += " AUGMENT STABILITY SPARSE_START GROWTH UNTRAINED TRANSFER_RANDOM CHECK EVALUATION MAGNITUDES"
    numbers = {name: number for number, name in enumerate(names.split())} | {"PARTICLE": 24, "MIXUP": 40}
    assert {purpose.name: int(purpose) for purpose in Purpose} == numbers
