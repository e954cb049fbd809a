"""The rows of a SQLite store as sessions and entries: found, begun, read and ended on one connection."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from coatcheck.engine.store import Record, StoredSession
from coatcheck.stores.seal import ID_BYTES, SALT_BYTES, SealedEntry, SessionKey
from coatcheck.stores.sqlite_schema import FIND_SESSIONS, FUTURE, READ_ENTRIES

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from coatcheck.engine.store import Owner
    from coatcheck.stores.seal import Seal
    from coatcheck.stores.sqlite_dates import Dates

KNOWN_SESSIONS: Final = 10_000
"""Sessions whose rows need not be looked up before a put."""


class Found(NamedTuple):
    """A session's row.

    Attributes:
        number: what its entries are filed under.
        key: what its entries are sealed with; None if the row is damaged.
        opened: when it was opened last, roughly.
    """

    number: int
    key: SessionKey | None
    opened: float


class Fetched(NamedTuple):
    """A session's row and the rows of its entries, as they are.

    Attributes:
        found: the session.
        key: what its entries are sealed with.
        rows: kind, name, start and blob of each entry.
        at: when they were read.
    """

    found: Found
    key: SessionKey
    rows: list[tuple[object, object, object, object]]
    at: float


class Ended(NamedTuple):
    """A session's row that has to go."""

    number: int
    slot: int
    id: bytes


def find(connection: sqlite3.Connection, seal: Seal, owner: Owner) -> Found | None:
    """Return the row of an owner's session, filed under whichever key of the ring."""
    digests = seal.owners(owner)
    rows = connection.execute(
        FIND_SESSIONS.format(places=", ".join("?" * len(digests))), [each.digest for each in digests]
    ).fetchall()
    for filed in digests:
        for digest, number, id_, salt, key, opened in rows:
            if digest != filed.digest:
                continue
            whole = (
                isinstance(id_, bytes) and len(id_) == ID_BYTES
                and isinstance(salt, bytes) and len(salt) == SALT_BYTES
                and key == filed.key
            )  # fmt: skip
            return Found(number, SessionKey(id_, salt, key) if whole else None, opened)
    return None


def fetch(connection: sqlite3.Connection, seal: Seal, dates: Dates, owner: Owner) -> Fetched | None:
    """Return what is stored of an owner and may still be served; None if there is no session that can be used."""
    found = find(connection, seal, owner)
    if found is None or found.key is None:
        return None
    now = dates.now()
    rows = connection.execute(READ_ENTRIES, (found.number, dates.era, now, now + FUTURE)).fetchall()
    return Fetched(found, found.key, rows, now)


def unseal(seal: Seal, owner: Owner, fetched: Fetched) -> tuple[StoredSession, list[object]]:
    """Return a session as the cache takes it, and the names of the entries that did not open."""
    records = []
    rejected: list[object] = []
    for kind, name, started, sealed in fetched.rows:
        # What the columns hold is checked there.
        entry = SealedEntry(kind, name, started, sealed)  # type: ignore[arg-type]
        contents = seal.unseal(owner, fetched.key, entry)
        if contents is None:
            rejected.append(name)
        else:
            age = max(0.0, fetched.at - entry.started)
            records.append(Record(contents.resource, contents.arguments, contents.body, age))
    return StoredSession(fetched.key.id, tuple(records), len(rejected)), rejected


class Tables:
    """The tables as who writes them sees them. Lives as long as the connection, in one thread.

    Attributes:
        unclean: a session's rows went since the log was last emptied.
    """

    def __init__(self, connection: sqlite3.Connection, seal: Seal, dates: Dates) -> None:
        self.connection = connection
        self.seal = seal
        self.dates = dates
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
        found = find(self.connection, self.seal, owner)
        if found is None or found.key is None or found.key.id != id_:
            return None
        self._known[id_] = (owner, found.number, found.key)
        if len(self._known) > KNOWN_SESSIONS:
            self._known.popitem(last=False)
        return found.number, found.key

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

    def settle(self) -> int:
        """Drop from memory what was known of sessions that ended; to be called when a transaction has. Return how many."""
        number = len(self._ended)
        for id_ in self._ended:
            self._known.pop(id_, None)
            self.seal.forget_session(id_)
        self._ended.clear()
        return number
