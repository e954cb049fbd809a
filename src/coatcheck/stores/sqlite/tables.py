"""The rows of a SQLite store as sessions and entries: found, begun, read and ended on one connection."""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from coatcheck.engine.store import Record, StoredSession
from coatcheck.stores.seal import ID_BYTES, SALT_BYTES, SessionKey
from coatcheck.stores.sqlite.schema import FETCH_ENTRIES, FIND_SESSIONS, FUTURE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from coatcheck.engine.store import Owner
    from coatcheck.stores.seal import Seal
    from coatcheck.stores.sqlite.dates import Dates
    from coatcheck.stores.sqlite.tombstones import Tombstones

KNOWN_SESSIONS: Final = 10_000
"""Sessions whose rows need not be looked up before a put."""


class Fetched(NamedTuple):
    """A session's row and the rows of its entries, as they are.

    Attributes:
        number: what its entries are filed under.
        key: what its entries are sealed with.
        opened: when it was opened last, roughly.
        rows: kind, name, start and blob of each entry.
        at: when they were read.
    """

    number: int
    key: SessionKey
    opened: float
    rows: list[tuple[Any, ...]]
    at: float


class Ended(NamedTuple):
    """A session's row that has to go."""

    number: int
    slot: int
    id: bytes


def fetch(
    connection: sqlite3.Connection, seal: Seal, dates: Dates, tombstones: Tombstones, owner: Owner
) -> Fetched | None:
    """Return what is stored of an owner and may still be served; None if there is no session that can be used.

    Needs no transaction: the number of a session that ends between the two looks is never given to another.
    """
    found = find(connection, seal, tombstones, owner)
    if found is None:
        return None
    number, key, opened = found
    now = dates.now()
    rows = connection.execute(FETCH_ENTRIES, (number, dates.era, now, now + FUTURE)).fetchall()
    return Fetched(number, key, opened, rows, now)


def find(
    connection: sqlite3.Connection, seal: Seal, tombstones: Tombstones, owner: Owner
) -> tuple[int, SessionKey, float] | None:
    """Return number, key and last opening of an owner's session; None if there is none that can be used."""
    if tombstones.covers(seal, owner):
        return None
    filed = seal.owners(owner)
    rows = connection.execute(
        _statement(FIND_SESSIONS, len(filed)), [each.digest for each in filed]
    ).fetchall()
    # Filed under whichever key of the ring; a row that is damaged is none that can be used.
    for key, wanted in filed:
        for digest, number, id_, salt, its_key, opened in rows:
            if digest == wanted:
                sound = (
                    type(id_) is type(salt) is bytes
                    and len(id_) == ID_BYTES
                    and len(salt) == SALT_BYTES
                    and type(opened) is float
                )
                return (number, SessionKey(id_, salt, key), opened) if sound and its_key == key else None
    return None


@functools.cache
def _statement(statement: str, places: int) -> str:
    return statement.format(places=", ".join("?" * places))


def unseal(seal: Seal, owner: Owner, fetched: Fetched) -> tuple[StoredSession, list[object]]:
    """Return a session as the cache takes it, and the names of the entries that did not open."""
    at = fetched.at
    opened = seal.opener(owner, fetched.key)
    records: list[Record] = []
    rejected: list[object] = []
    for kind, name, started, sealed in fetched.rows:
        contents = opened(kind, name, started, sealed)
        if contents is None:
            rejected.append(name)
        else:
            resource, arguments, body = contents
            records.append(Record(resource, arguments, body, at - started if started < at else 0.0))
    return StoredSession(fetched.key.id, tuple(records), len(rejected)), rejected


class Tables:
    """The tables as who writes them sees them. Lives as long as the connection, in one thread.

    Attributes:
        unclean: a session's rows went since the log was last emptied.
    """

    def __init__(
        self, connection: sqlite3.Connection, seal: Seal, dates: Dates, tombstones: Tombstones
    ) -> None:
        self.connection = connection
        self.seal = seal
        self.dates = dates
        self.tombstones = tombstones
        self.unclean = True
        self._known: OrderedDict[bytes, tuple[Owner, int, SessionKey]] = OrderedDict()
        self._ended: list[bytes] = []

    def session(self, owner: Owner, id_: bytes) -> tuple[int, SessionKey] | None:
        """Return number and key of an owner's session if it is the one of this id.

        It may have ended since it was looked up: what writes asks again.
        """
        known = self._known.get(id_)
        if known is not None and known[0] == owner:
            self._known.move_to_end(id_)
            return known[1], known[2]
        found = find(self.connection, self.seal, self.tombstones, owner)
        if found is None or found[1].id != id_:
            return None
        number, key, _ = found
        self._known[id_] = (owner, number, key)
        if len(self._known) > KNOWN_SESSIONS:
            self._known.popitem(last=False)
        return number, key

    def is_current(self, number: int, id_: bytes) -> bool:
        """Tell whether a session is still there."""
        row = self.connection.execute(
            "SELECT 1 FROM sessions WHERE session = ? AND id = ?", (number, id_)
        ).fetchone()
        return row is not None

    def begin(self, owner: Owner) -> bytes:
        """Write the row of a new session and return its id."""
        key = self.seal.begin()
        execute = self.connection.execute
        slot = execute(
            "UPDATE salts SET salt = ?, taken = 1 WHERE slot = (SELECT slot FROM salts WHERE taken = 0 LIMIT 1)"
            " RETURNING slot",
            (key.salt,),
        ).fetchall()
        if not slot:
            slot = execute(
                "INSERT INTO salts (salt, taken) VALUES (?, 1) RETURNING slot", (key.salt,)
            ).fetchall()
        filed = self.seal.owners(owner)[0]
        execute(
            "INSERT INTO sessions (owner, id, slot, key, catalog, opened, user) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                filed.digest, key.id, slot[0][0], key.key, self.seal.catalogs(owner.catalog)[0].digest,
                self.dates.now(), self.seal.seal_user(owner, key),
            ),
        )  # fmt: skip
        return key.id

    def sessions_of(self, column: str, digests: Iterable[bytes]) -> list[Ended]:
        """Return the rows of sessions that are filed under any of some digests."""
        wanted = list(digests)
        rows = self.connection.execute(
            f"SELECT session, slot, id FROM sessions WHERE {column} IN ({', '.join('?' * len(wanted))})",  # noqa: S608 - a column of ours
            wanted,
        ).fetchall()
        return [Ended(*row) for row in rows]

    def all_sessions(self) -> list[Ended]:
        """Return the rows of all sessions."""
        rows = self.connection.execute("SELECT session, slot, id FROM sessions").fetchall()
        return [Ended(*row) for row in rows]

    def end(self, sessions: Iterable[Ended], *, entries: bool = True) -> int:
        """Remove sessions, their salts first of all; return how many.

        Args:
            sessions: which.
            entries: also their entries. Those that stay have no session and no salt: they are swept.
        """
        number = 0
        execute = self.connection.execute
        for session in sessions:
            execute("UPDATE salts SET salt = zeroblob(32), taken = 0 WHERE slot = ?", (session.slot,))
            execute("DELETE FROM sessions WHERE session = ?", (session.number,))
            execute("DELETE FROM floors WHERE scope = ?", (session.number,))
            if entries:
                execute("DELETE FROM entries WHERE session = ?", (session.number,))
            self._ended.append(session.id)
            number += 1
        if number:
            self.unclean = True
        return number

    def ended(self) -> int:
        """Return how many sessions ended since `settle` was called."""
        return len(self._ended)

    def settle(self) -> None:
        """Drop from memory what was known of sessions that ended; to be called when a transaction has."""
        for id_ in self._ended:
            self._known.pop(id_, None)
            self.seal.forget_session(id_)
        self._ended.clear()
