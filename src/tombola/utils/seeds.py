"""Seeds by purpose: each use of randomness has its own stream, and none uses global state.

A stream is identified by the experiment's seed, a purpose and where it is used (replicate, level, draw ...), and
independent of the others by construction. Numbers of purposes are never reused: all results depend on them.
"""

from __future__ import annotations

from enum import IntEnum
from numbers import Integral

import numpy as np

from tombola.utils.errors import InputError


class Purpose(IntEnum):
    WEIGHTS = 0  # the initial weights of a replicate
    SPLIT = 1  # which training examples are held out for validation
    TRAINING = 2  # everything random while a run trains; divided into ORDER and NOISE
    ORDER = 3  # batch order
    NOISE = 4  # dropout and other randomness inside the network
    SCORE = 5  # random scores
    REINIT = 6  # the initial weights of the control `reinit`; the next five are for controls too
    REUSE = 7
    REUSE_SIGN = 8
    RANDOM = 9
    SHUFFLED = 10
    RANDOM_GLOBAL = 11
    SIGNS = TRAINED_SIGNS = SIGN_IN = REINIT  # each level and draw has the initial weights of `reinit`
    PERMUTED = UNPERMUTED = REINIT  # the same initial weights for both, at level 0, where `reinit` draws none
    LABELS = 12  # which training labels are randomised, and their new values
    AUGMENT = 13  # how each image is flipped and cropped in training
    STABILITY = 14  # everything random in a training that is compared with that of the dense network
    SPARSE_START = 15  # the initial mask of sparse training
    GROWTH = 16  # which weights are grown at random
    UNTRAINED = 17  # the random subnetwork that a supermask is compared with
    TRANSFER_RANDOM = 18  # the random masks that transferred tickets are compared with
    CHECK = 19  # everything random in a training that verifies a ticket; the initial weights of its controls
    EVALUATION = 20  # everything random while a user's own function evaluates or tests
    MAGNITUDES = 21  # the signs of the control `magnitudes`
    PARTICLE = 24  # everything random in a training whose weights are averaged with those of others
    MIXUP = 40  # with which other examples, and at which ratio, those of a batch are mixed


def sequence(seed: int, purpose: Purpose, *where: int) -> np.random.SeedSequence:
    """The stream of this seed for `purpose` at `where`."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *where))


def derive(seed: int, purpose: Purpose, *where: int) -> int:
    """An integer below 2**63 from the same stream, for generators that need an integer seed."""
    return int(sequence(seed, purpose, *where).generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_seed(seed: object) -> None:
    """Raises `InputError` unless `seed` can be the seed of a stream."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed: should be a whole number, at least 0, not {seed!r}")
