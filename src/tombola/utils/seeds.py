"""Seeds by purpose: everything random draws from a stream of its own, never from global state.

A stream is named by an experiment's seed, a purpose and where it is used (replicate, level, draw ...), and
comes from `numpy.random.SeedSequence`, whose streams are independent by construction. A new purpose gets a
new number; numbers are never reused, because they are part of every result.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    WEIGHTS = 0  # the initial weights of a replicate
    SPLIT = 1  # which training examples are held out for validation
    TRAINING = 2  # everything random while a run trains; divided into ORDER and NOISE
    ORDER = 3  # batch order
    NOISE = 4  # dropout and other randomness inside the network
    SCORE = 5  # random scores
    REINIT = 6  # the initial weights of the control of that name, and so on:
    REUSE = 7
    REUSE_SIGN = 8
    RANDOM = 9
    SHUFFLED = 10
    RANDOM_GLOBAL = 11
    LABELS = 12  # which training labels are randomised, and what they become
    AUGMENT = 13  # how each image is turned and cut while training
    STABILITY = 14  # everything random in a training that the dense network's is compared with
    SPARSE_START = 15  # the mask that sparse training begins with
    GROWTH = 16  # which weights are grown at random
    UNTRAINED = 17  # the random subnetwork that a supermask is compared with
    TRANSFER_RANDOM = 18  # the random masks that transferred tickets are compared with
    CHECK = 19  # everything random in a training that checks a ticket; the initial weights of its controls


def sequence(seed: int, purpose: Purpose, *where: int) -> np.random.SeedSequence:
    """The stream for `purpose` at `where` in everything that `seed` determines."""
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *where))


def derive(seed: int, purpose: Purpose, *where: int) -> int:
    """The same stream as one integer below 2**63, for generators that are seeded with a number."""
    return int(sequence(seed, purpose, *where).generate_state(1, np.uint64)[0] >> np.uint64(1))
