"""What lies in the file of a SQLite store, session by session: as anybody sees it, and as who has the keys does."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from coatcheck.clock import SystemClock
from coatcheck.engine.entry import Discreet
from coatcheck.engine.store import Owner  # noqa: TC001 - a Struct reads its annotations
from coatcheck.stores.envelope import Contents  # noqa: TC001 - the same
from coatcheck.stores.seal import DIGEST_BYTES, SealedEntry, SessionKey
from coatcheck.stores.sqlite.dates import age
from coatcheck.stores.sqlite.inspector import Inspector, connected, pseudonym
from coatcheck.stores.sqlite.schema import FUTURE, TOLERANCE
from coatcheck.stores.sqlite.tombstones import covered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coatcheck.clock import Clock
    from coatcheck.stores.key_ring import KeyRing

_SLICE: Final = 256

_ROWS: Final = """
    SELECT s.session, s.owner, s.catalog, s.id, t.salt, s.key, s.user, s.opened
    FROM sessions AS s LEFT JOIN salts AS t ON t.slot = s.slot"""
_NEXT: Final = f"{_ROWS} WHERE s.session > ? ORDER BY s.session LIMIT ?"
_LISTED: Final = f"{_ROWS} WHERE s.owner BETWEEN ? AND ? ORDER BY s.session LIMIT 1"

# The same that decides whether an entry is brought back to a program.
_ENTRIES: Final = f"""
    SELECT kind, name, started, sealed, length(sealed), expires,
        era = (SELECT era FROM meta) AND started <= ? AND NOT EXISTS (
            SELECT 1 FROM floors AS f
            WHERE f.scope = 0 AND f.kind = e.kind AND f.floor + {TOLERANCE} >= e.started
        )
    FROM entries AS e WHERE session = ? AND length(sealed) > 0 ORDER BY started DESC, name"""  # noqa: S608 - a number of ours


class StoredEntry(Discreet, gc=False):
    """One entry in the file. Shows nothing of it.

    Attributes:
        contents: what was sealed; None if it does not open, or there are no keys.
        age: seconds since its load started.
        kept_for: seconds until it is swept; 0.0 if it may not be served any more.
        bytes: how many it takes, sealed.
    """

    contents: Contents | None
    age: float
    kept_for: float
    bytes: int


class SessionContents(Discreet, gc=False):
    """One session in the file. Shows nothing of it.

    Attributes:
        pseudonym: what it is listed under.
        owner: whose it is; None if that does not open, or there are no keys.
        opened_age: seconds since it was opened, to the hour.
        cleared: whether a clear of it is noted that could not be applied yet; then no entry is shown.
        entries: the youngest first.
    """

    pseudonym: str
    owner: Owner | None
    opened_age: float
    cleared: bool
    entries: tuple[StoredEntry, ...]


class _Row(NamedTuple):
    number: int
    pseudonym: str
    owner: Owner | None
    key: SessionKey
    opened: object
    catalog: object
    digest: object


class FileContents(Inspector):
    """An `Inspector` that also tells of single sessions. Made by `look`; every method may raise `StoreFailed`."""

    def owners(self) -> Iterator[tuple[str, Owner | None]]:
        """Yield the pseudonym of every session, the oldest first, and its owner as far as that opens."""
        after = 0
        while rows := self._rows(_NEXT, after, _SLICE):
            for row in rows:
                after = row.number
                yield row.pseudonym, row.owner

    def sessions_of(self, user: str) -> tuple[list[str], int]:
        """Return the pseudonyms of a user's sessions, of whatever catalog, and how many sessions do not open."""
        owners = list(self.owners())
        found = [listed for listed, owner in owners if owner is not None and owner.user == user]
        return found, sum(owner is None for _, owner in owners)

    def session(self, listed: str) -> SessionContents | None:
        """Return what there is under a pseudonym; None if there is nothing."""
        start = bytes.fromhex(listed)
        rest = DIGEST_BYTES - len(start)
        stones = self._noted()
        for row in self._rows(_LISTED, start + b"\x00" * rest, start + b"\xff" * rest):
            now = self._now()
            cleared = covered(stones, row.digest, row.catalog)
            entries = () if cleared else tuple(self._entries(row, now))
            return SessionContents(row.pseudonym, row.owner, age(now, row.opened), cleared, entries)
        return None

    def _entries(self, row: _Row, now: float) -> Iterator[StoredEntry]:
        for kind, name, started, sealed, size, expires, alive in self._ask(
            _ENTRIES, now + FUTURE, row.number
        ):
            contents = None
            if self._seal is not None and row.owner is not None:
                contents = self._seal.unseal(row.owner, row.key, SealedEntry(kind, name, started, sealed))
            kept_for = max(0.0, expires - now) if alive and isinstance(expires, float) else 0.0
            yield StoredEntry(contents, age(now, started), kept_for, size)

    def _rows(self, statement: str, *parameters: object) -> list[_Row]:
        found = []
        for number, digest, catalog, id_, salt, key, user, opened in self._ask(statement, *parameters):
            session = SessionKey(id_, salt, key)
            owner = None if self._seal is None else self._seal.unseal_user(digest, session, user)
            found.append(_Row(number, pseudonym(digest), owner, session, opened, catalog, digest))
        return found


@contextlib.contextmanager
def look(
    path: Path | str, *, keys: KeyRing | None = None, clock: Clock | None = None
) -> Iterator[FileContents]:
    """Open a store's file for a look into it, as `coatcheck.stores.sqlite.inspector.inspect` does.

    Raises:
        StoreFailed: there is no store at *path*, or not one that this version of coatcheck knows.
    """
    with connected(path) as (connection, place):
        yield FileContents(connection, place, keys, SystemClock() if clock is None else clock)
