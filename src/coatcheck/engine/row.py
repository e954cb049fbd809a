"""A session's row: what a hit reads and writes, in one list.

Most of what a hit takes, when many users take turns, is waiting for memory that was not touched lately. So it all
stands side by side: when a caller last got something, the slots, then for each resource, from its mark on, how long its
short cut serves, what it answers, and how many hits it had. A list, because nothing else can be set as quickly in any
thread; and with times in it that many rows share, because each object of its own is one more thing to wait for.
"""

from __future__ import annotations

import ctypes
import math
import sys
from typing import Any

USED, SLOTS = 0, 1
ANSWER, HITS = 1, 2
WIDTH = 3

TICK = 0.005
"""Seconds by which the time of a hit may be noted later than it was: all hits meanwhile note the same object. With a
clock other than the machine's there are none."""

MOST_HORIZONS = 1024
"""Times that rows have in common at once; there are a few hundred for all the policies of a program."""

FINENESS = 6
"""Those times are rounded to no more than the 64th (2 to the 6th) of how far away they are."""

SHORTEST = 1e-6
"""Seconds; what is no further away is not rounded."""


# Of our own, since argument types are set on what ctypes shares with everybody.
_untrack = (
    ctypes.PYFUNCTYPE(None, ctypes.py_object)(("PyObject_GC_UnTrack", ctypes.pythonapi))
    if sys.implementation.name == "cpython"
    else None
)


def uncollected(row: list[Any]) -> list[Any]:
    """Take a row out of the garbage collector's walk, and return it; elsewhere than in CPython, only return it.

    The collector would look at all that a hundred thousand rows hold, tens of milliseconds long. It need not: nothing
    in a row leads back to one, so that a row is freed when nobody refers to it. Lists have no declared way to say so.
    """
    if _untrack is not None:
        _untrack(row)
    return row


class Horizons:
    """When short cuts end to serve: rounded down, so that many rows have one object, which is at hand when they are not.

    A get after that and before the true end of its short cut finds it once more, the next end a 64th as far away: a few
    such gets in the life of an entry, all others wait for one look at memory less. Changed under the cache's lock only.
    """

    __slots__ = ("_shared",)

    def __init__(self) -> None:
        self._shared: dict[float, float] = {}

    def before(self, until: float, now: float) -> float:
        """Return a time after *now* that is at most *until*, earlier by at most a 64th of what is between the two."""
        if until - now < SHORTEST:
            return until
        step = math.ldexp(1.0, math.frexp(until - now)[1] - 1 - FINENESS)
        rounded = math.floor(until / step) * step
        if len(self._shared) >= MOST_HORIZONS:
            self._shared.clear()
        return self._shared.setdefault(rounded, rounded)


def mark_of(index: int) -> int:
    """Return where the part of a resource begins that has this place in its catalog."""
    return SLOTS + 1 + WIDTH * index
