"""Byte strings that somebody might put where ours were."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

BLOBS = 125_000
SEEDS = range(80 if os.environ.get("COATCHECK_DEEP") else 8)
"""What makes a million of them, in parts that workers can share."""


def blobs(real: list[bytes], seed: int, count: int = BLOBS) -> Iterator[bytes]:
    """Yield *count* of them: random ones, and *real* ones that were changed, cut, lengthened or mixed."""
    chance = random.Random(seed)
    while count > 0:
        one, other = bytearray(chance.choice(real)), chance.choice(real)
        match chance.randrange(6):
            case 0:
                one = bytearray(chance.randbytes(chance.randrange(200)))
            case 1:
                for _ in range(chance.randint(1, 3)):
                    one[chance.randrange(len(one))] ^= 1 << chance.randrange(8)
            case 2:
                del one[chance.randrange(len(one)) :]
            case 3:
                one += chance.randbytes(chance.randint(1, 20))
            case 4:
                place = chance.randrange(len(one))
                one[place:] = other[place:]
            case 5:
                place, length = chance.randrange(len(one)), chance.randint(1, 12)
                one[place : place + length] = chance.randbytes(length)
        if bytes(one) not in real:
            count -= 1
            yield bytes(one)


def flips(real: bytes) -> Iterator[bytes]:
    """Yield it with each of its bits changed in turn."""
    for place in range(len(real)):
        for bit in range(8):
            yield real[:place] + bytes((real[place] ^ 1 << bit,)) + real[place + 1 :]
