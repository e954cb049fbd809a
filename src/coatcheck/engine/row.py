"""A session's row: what a hit reads and writes, in one list.

Most of what a hit takes, when many users take turns, is waiting for memory that was not touched lately. So it all
stands side by side: when a caller last got something, the slots, then for each resource, from its mark on, how long its
short cut serves, what it answers, and how many hits it had. A list, because nothing else can be set as quickly in any
thread.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

USED, SLOTS = 0, 1
ANSWER, HITS = 1, 2
WIDTH = 3

TICK = 0.005
"""Seconds by which the time of a hit may be noted later than it was: all hits meanwhile note the same object. With a
clock other than the machine's there are none."""


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


def mark_of(index: int) -> int:
    """Return where the part of a resource begins that has this place in its catalog."""
    return SLOTS + 1 + WIDTH * index
