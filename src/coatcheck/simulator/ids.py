"""Ids: every kind has a range of its own, and from an id alone follows whose it is."""

from __future__ import annotations

import random
from enum import Enum

_RANGE = 100_000_000
_LARGEST_OFFSET = 500_000


class IdSpace(Enum):
    """A kind of id. Its value is the place of its range and how many of them one engagement may have.

    The ranges do not touch, so an id passed where another kind belongs is never valid by chance.
    """

    PAAS = (1, 1)
    IPC = (2, 1)
    ENDPOINT = (3, 8)
    DEPARTMENT = (4, 16)
    ENVIRONMENT = (5, 16)
    ZONE = (6, 32)
    CLUSTER = (7, 64)
    TEMPLATE = (8, 16)


class Ids:
    """Makes ids from the number of an engagement, and finds the number from an id."""

    def __init__(self, seed: int) -> None:
        self._offset = random.Random(seed).randrange(_LARGEST_OFFSET)

    def make(self, space: IdSpace, engagement: int, ordinal: int = 0) -> int:
        """Return the id of the *ordinal*-th thing of its kind within an engagement."""
        place, room = space.value
        if not 0 <= ordinal < room:
            raise ValueError(f"an engagement has room for {room} of {space.name}, asked for number {ordinal}")
        return place * _RANGE + (engagement + self._offset) * room + ordinal

    def engagement(self, space: IdSpace, ident: int) -> int | None:
        """Return the number of the engagement that *ident* would belong to, or None outside of the range."""
        place, room = space.value
        within = ident - place * _RANGE
        if not 0 <= within < _RANGE:
            return None
        number = within // room - self._offset
        return number if number >= 0 else None
