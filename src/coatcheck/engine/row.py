"""A session's row: what a hit reads and writes, in one list.

Most of what a hit takes, when many users take turns, is waiting for memory that was not touched lately. So it all
stands side by side: when a caller last got something, the slots, then for each resource, from its mark on, how long its
short cut serves, what it answers, and how many hits it had. A list, because nothing else can be set as quickly in any
thread.
"""

from __future__ import annotations

USED, SLOTS = 0, 1
ANSWER, HITS = 1, 2
WIDTH = 3

TICK = 0.005
"""Seconds by which the time of a hit may be noted later than it was: all hits meanwhile note the same object. With a
clock other than the machine's there are none."""


def mark_of(index: int) -> int:
    """Return where the part of a resource begins that has this place in its catalog."""
    return SLOTS + 1 + WIDTH * index
