"""How much a cache may hold and do at once."""

from __future__ import annotations

import math

import msgspec

from coatcheck.errors import PolicyError

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one cache. Beyond them the sessions longest unused leave the memory whole; nothing is refused.

    Attributes:
        max_bytes: memory of all sessions, estimated.
        max_sessions: sessions held.
        max_keys_per_session: entries of one session; beyond, the ones loaded first go.
        max_loads: loads at once.
        max_loads_per_user: loads at once for one user.
        max_refreshes: background loads at once.
        max_loads_per_second: loads begun in a second, evenly spread; None for no such bound.

    Raises:
        PolicyError: a bound is not above zero, or not a whole number where things are counted.
    """

    max_bytes: int = 512 * MIB
    max_sessions: int = 100_000
    max_keys_per_session: int = 1_000
    max_loads: int = 200
    max_loads_per_user: int = 16
    max_refreshes: int = 20
    max_loads_per_second: float | None = None

    def __post_init__(self) -> None:
        pace = self.max_loads_per_second
        if pace is not None and not (0 < pace < math.inf):
            raise PolicyError("max_loads_per_second must be above zero, or None for no such bound")
        for name in self.__struct_fields__:
            if name == "max_loads_per_second":
                continue
            bound = getattr(self, name)
            if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
                raise PolicyError(f"{name} must be a whole number of 1 or more")
