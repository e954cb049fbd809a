"""How a store dates what it keeps: by a clock that never goes back, across restarts either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coatcheck.stores.sqlite.file import Damaged
from coatcheck.stores.sqlite.schema import FUTURE

if TYPE_CHECKING:
    import sqlite3

    from coatcheck.clock import Clock


class Dates:
    """The time of one open store, in seconds of the Unix epoch.

    The wall clock is read once. From then on time passes as the monotonic clock says: whoever sets the wall clock
    changes the age of nothing before the next start. At a start it may be ahead, then everything has aged; or behind the
    highest date in the file, then nobody knows how long ago anything was, and all that is stored has expired.

    Attributes:
        era: what entries are marked with; those of another have expired.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = clock.wall() - clock.monotonic()
        self.era = 0

    def now(self) -> float:
        """Return the date."""
        return self._clock.monotonic() + self._offset

    def start(self, connection: sqlite3.Connection) -> None:
        """Find out from a file that was just opened what the date is in it.

        Raises:
            Damaged: it does not tell.
        """
        era, high_water = connection.execute("SELECT era, high_water FROM meta").fetchone() or (None, None)
        if not (isinstance(era, int) and isinstance(high_water, float)):
            raise Damaged
        self.era = era
        now = self.now()
        if now >= high_water:
            return
        if now >= high_water - FUTURE:
            # A correction of the clock. Set back a little at each start, it must not add up.
            self._offset += high_water - now
            return
        self.era += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET era = ?, high_water = ?", (self.era, now))
        connection.execute("UPDATE sessions SET opened = ? WHERE opened > ?", (now, now))
        # They are of the same dates. The loads that they stood against ended with the process that began them.
        connection.execute("DELETE FROM floors")
        connection.execute("COMMIT")


def age(now: float, date: object) -> float:
    """Return how many seconds ago something was; 0.0 if it has no date, which only a damaged file can show."""
    return max(0.0, now - date) if isinstance(date, float) else 0.0
