"""What a SQLite store removes of itself, a slice at a time: what has expired, what was forgotten, what is too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from coatcheck.stores.sqlite.schema import FUTURE, IDLE_SESSIONS, NEXT_ENTRIES, NEXT_SESSIONS, SWEEP_ENTRIES
from coatcheck.stores.sqlite.tables import Ended

if TYPE_CHECKING:
    from coatcheck.stores.sqlite.tables import Tables

SLICE: Final = 256
"""Rows looked at in one transaction; sessions ended in one are an eighth of it."""

FIRST_SECONDS: Final = 30.0
"""From the start to the first round."""

EVERY_SECONDS: Final = 300.0
"""From the end of one round to the next."""

FLOOR_SECONDS: Final = 3_600.0
"""How long a floor stands. No load lasts longer."""

EMPTY_SECONDS: Final = 24 * 3_600.0
"""How long a session is kept in which there is nothing."""

ROOM: Final = 0.9
"""The part of the bound to which a store that has outgrown it is reduced."""

_START: Final = (-1, b"")


class Sweep:
    """Goes through a store round by round, and ends sessions when there is no more room.

    Every method does one slice, within a transaction of the caller's.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # None: the first round waits until the start is over.
        self._due: float | None = None
        self._began: float | None = None
        self._entries: tuple[int, bytes] | None = _START
        self._sessions = 0
        self._again = False

    def want(self) -> None:
        """Begin a round soon: there is something to be removed, perhaps where one that is under way has been."""
        self._due = 0.0
        self._again = self._began is not None

    def restart(self) -> None:
        """Begin a round at once."""
        self._began = None
        self.want()

    def due(self, now: float) -> bool:
        """Tell whether there is a slice to do."""
        if self._due is None:
            self._due = now + FIRST_SECONDS
        return self._began is not None or not (self._due - EVERY_SECONDS <= now < self._due)

    def step(self, tables: Tables) -> bool:
        """Do a slice and tell whether the round goes on."""
        now = tables.dates.now()
        if self._began is None:
            self._began, self._entries, self._sessions = now, _START, 0
        if self._entries is not None:
            self._entries = self._sweep_entries(tables, self._entries, now)
            return True
        if self._sweep_sessions(tables, now):
            return True
        self._sweep_floors(tables, now)
        self._began = None
        self._due = 0.0 if self._again else now + EVERY_SECONDS
        self._again = False
        return False

    def outgrown(self, tables: Tables) -> bool:
        """Tell whether a store has outgrown its bound."""
        return used_bytes(tables) > self._max_bytes

    def make_room(self, tables: Tables, goal: float | None = None) -> bool:
        """End the sessions opened longest ago, a slice of them; tell whether there is more to do.

        Args:
            tables: the store.
            goal: bytes to be reached instead of what the bound says.
        """
        enough = self._max_bytes * ROOM if goal is None else goal
        rows = tables.connection.execute(
            "SELECT session, slot, id FROM sessions ORDER BY opened, session LIMIT ?", (SLICE // 8,)
        ).fetchall()
        for row in rows:
            if used_bytes(tables) <= enough:
                return False
            tables.end([Ended(*row)])
        return bool(rows)

    def knows_ring(self, tables: Tables) -> bool:
        """Tell whether the keys that sessions are filed under are those of the ring."""
        return _keys(tables) == tables.seal.key_ids

    def foreign(self, tables: Tables) -> int:
        """Return how many sessions are filed under keys that are not of the ring any more."""
        foreign = sorted(_keys(tables) - tables.seal.key_ids)
        found: tuple[int] = tables.connection.execute(
            f"SELECT count(*) FROM sessions WHERE key IN ({', '.join('?' * len(foreign))})",  # noqa: S608
            foreign,
        ).fetchone()
        return found[0]

    def drop_foreign(self, tables: Tables) -> bool:
        """End sessions filed under keys that are not of the ring any more, a slice; tell whether there may be more.

        Nobody can find them, so no clear reaches them: should their key come back, they must not.
        """
        execute = tables.connection.execute
        foreign = sorted(_keys(tables) - tables.seal.key_ids)
        if foreign:
            rows = execute(
                f"SELECT session, slot, id FROM sessions WHERE key IN ({', '.join('?' * len(foreign))}) LIMIT ?",  # noqa: S608
                [*foreign, SLICE],
            ).fetchall()
            if rows:
                return tables.end((Ended(*row) for row in rows), entries=False) > 0
        tables.connection.execute("DELETE FROM keys")
        tables.connection.executemany("INSERT INTO keys VALUES (?)", [(key,) for key in tables.seal.key_ids])
        return False

    def _sweep_entries(
        self, tables: Tables, after: tuple[int, bytes], now: float
    ) -> tuple[int, bytes] | None:
        """Look at the entries behind a place; return where the slice ended, None at the end."""
        execute = tables.connection.execute
        last = execute(NEXT_ENTRIES, (*after, SLICE - 1)).fetchone()
        end = (2**62, b"") if last is None else last
        # What has expired stands, for a while, as the floor of its key.
        execute(SWEEP_ENTRIES, (*after, *end, tables.dates.era, now + FUTURE, now, now - FLOOR_SECONDS))
        return last  # type: ignore[no-any-return]

    def _sweep_sessions(self, tables: Tables, now: float) -> bool:
        """Look at the sessions behind the last slice; tell whether there may be more."""
        execute = tables.connection.execute
        last = execute(NEXT_SESSIONS, (self._sessions, SLICE - 1)).fetchone()
        end = 2**62 if last is None else last[0]
        rows = execute(IDLE_SESSIONS, (self._sessions, end, now - EMPTY_SECONDS)).fetchall()
        tables.end((Ended(*row) for row in rows), entries=False)
        self._sessions = end
        return last is not None

    def _sweep_floors(self, tables: Tables, now: float) -> None:
        began = now if self._began is None else self._began
        tables.connection.execute(
            "DELETE FROM floors WHERE floor < ? AND (scope <> 0 OR floor < ?)", (now - FLOOR_SECONDS, began)
        )


def used_bytes(tables: Tables) -> int:
    """Return the bytes of the pages that hold something."""
    return _bytes(tables, "page_count") - free_bytes(tables)


def free_bytes(tables: Tables) -> int:
    """Return the bytes of the pages that hold nothing, and are used again before the file grows."""
    return _bytes(tables, "freelist_count")


def _bytes(tables: Tables, pages: str) -> int:
    number, size = (
        tables.connection.execute(f"PRAGMA {what}").fetchone()[0] for what in (pages, "page_size")
    )
    return int(number * size)


def _keys(tables: Tables) -> set[str]:
    return {key for (key,) in tables.connection.execute("SELECT id FROM keys").fetchall()}
