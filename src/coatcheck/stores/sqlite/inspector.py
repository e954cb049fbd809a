"""Looking into the file of a SQLite store without changing it, also while another process has it open."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import msgspec

from coatcheck.clock import SystemClock
from coatcheck.engine.entry import Discreet
from coatcheck.engine.store import Owner, Record, StoreSize
from coatcheck.errors import StoreFailed
from coatcheck.stores.key_provider import ring_of
from coatcheck.stores.seal import Seal, SealedEntry, SessionKey
from coatcheck.stores.sqlite.dates import age
from coatcheck.stores.sqlite.file import OPENING_SECONDS, Damaged, problem, readable, told_with, translated
from coatcheck.stores.sqlite.place import beside, check_place, exists, real_path, status_of, unwritable
from coatcheck.stores.sqlite.place import size as size_of
from coatcheck.stores.sqlite.process import no_fork
from coatcheck.stores.sqlite.schema import APPLICATION_ID, STEPS
from coatcheck.stores.sqlite.tombstones import covered, noted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coatcheck.clock import Clock
    from coatcheck.stores.key_provider import KeyProvider
    from coatcheck.stores.key_ring import KeyRing
    from coatcheck.stores.sqlite.tombstones import Stone

# What SQLite says where it cannot put beside a file what it needs there.
_NO_WAY: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}

# Sessions whose entries are read in one transaction: a long one would keep the log from being emptied.
_SLICE: Final = 64

_ANY_WRITE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

_PSEUDONYM_BYTES: Final = 8

_TOTALS: Final = """
    SELECT (SELECT count(*) FROM sessions), (
        SELECT count(*) FROM sessions AS s CROSS JOIN entries AS e ON e.session = s.session
        WHERE length(e.sealed) > 0
    )"""

_SESSIONS: Final = """
    SELECT s.session, s.owner, s.catalog, s.opened, max(e.started), count(e.sealed), coalesce(sum(length(e.sealed)), 0)
    FROM (SELECT session, owner, catalog, opened FROM sessions WHERE session > ? ORDER BY session LIMIT ?) AS s
    LEFT JOIN entries AS e ON e.session = s.session AND length(e.sealed) > 0
    GROUP BY s.session ORDER BY s.session"""

_KEYS: Final = """
    SELECT s.session, s.owner, s.catalog, s.id, t.salt, s.key, s.user FROM sessions AS s LEFT JOIN salts AS t ON t.slot = s.slot
    WHERE s.session > ? ORDER BY s.session LIMIT ?"""

_ENTRIES: Final = """
    SELECT kind, name, started, sealed FROM entries WHERE session = ? AND length(sealed) > 0 AND era = ?"""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One session, under a pseudonym.

    Attributes:
        owner: the first 8 bytes of a keyed digest, in hexadecimal: it tells owners apart, and nobody who they are.
        opened_age: seconds since it was opened, to the hour.
        newest_age: seconds since the load of its youngest entry; None if it has none.
        entries: how many entries it has.
        bytes: how many bytes they take, sealed.
        cleared: whether a clear of it is noted that could not be applied yet: nobody is served from it any more.
    """

    owner: str
    opened_age: float
    newest_age: float | None
    entries: int
    bytes: int
    cleared: bool = False


class Revealed(Discreet):
    """One session with all that is in it, as who has the keys can see it. Shows nothing of it.

    Attributes:
        owner: whose it is; None if that does not open.
        digest: what it is listed under by `Inspector.sessions`.
        records: the entries that open.
        rejected: how many do not.
    """

    owner: Owner | None
    digest: str
    records: tuple[Record, ...]
    rejected: int


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of a store found.

    Attributes:
        problems: what SQLite says of the file, a line each; nothing when it is sound.
        sessions: how many there are.
        opened: entries that open; None without keys.
        rejected: entries that do not; None without keys.
        cleared: sessions of which a clear is noted that could not be applied yet. None of their entries is opened.
    """

    problems: tuple[str, ...]
    sessions: int
    opened: int | None
    rejected: int | None
    cleared: int = 0


class _Opened(NamedTuple):
    number: int
    owner: Owner | None
    digest: bytes
    key: SessionKey


class Inspector:
    """A look into a store's file. Made by `inspect`; used in one thread. Every method may raise `StoreFailed`."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, keys: KeyRing | None, clock: Clock
    ) -> None:
        self._connection = connection
        self._path = path
        self._seal = None if keys is None else Seal(keys)
        self._clock = clock

    def size(self) -> StoreSize:
        """Return how much there is: sessions, their entries, and the bytes of the file that are in use."""
        sessions, entries = self._ask(_TOTALS)[0]
        pages, free, size = (
            self._ask(f"PRAGMA {what}")[0][0] for what in ("page_count", "freelist_count", "page_size")
        )
        return StoreSize(sessions=sessions, entries=entries, bytes=(pages - free) * size)

    def sessions(self) -> Iterator[SessionInfo]:
        """Yield every session under a pseudonym, the oldest first."""
        after = 0
        stones = self._noted()
        while rows := self._ask(_SESSIONS, after, _SLICE):
            now = self._now()
            for number, digest, catalog, opened, newest, entries, size in rows:
                after = number
                yield SessionInfo(
                    owner=pseudonym(digest),
                    opened_age=age(now, opened),
                    newest_age=None if newest is None else age(now, newest),
                    entries=entries,
                    bytes=size,
                    cleared=covered(stones, digest, catalog),
                )
            stones = self._noted()

    def reveal(self) -> Iterator[Revealed]:
        """Yield every session that is not cleared with its owner and its entries, expired ones too.

        Raises:
            StoreFailed: the inspector was given no keys.
        """
        seal = self._seal
        if seal is None:
            raise StoreFailed("what is stored is sealed: its keys are needed to look into it")
        era, _ = self._meta()
        for session in self._owners(seal):
            now = self._now()
            records, rejected = [], 0
            for kind, name, started, sealed in self._ask(_ENTRIES, session.number, era):
                contents = None
                if session.owner is not None:
                    entry = SealedEntry(kind, name, started, sealed)
                    contents = seal.unseal(session.owner, session.key, entry)
                if contents is None:
                    rejected += 1
                else:
                    records.append(
                        Record(contents.resource, contents.arguments, contents.body, age(now, started))
                    )
            yield Revealed(session.owner, pseudonym(session.digest), tuple(records), rejected)

    def check(self) -> Checked:
        """Return whether the file is sound and, with keys, how many of its entries open.

        While it runs, for as long as it takes to read the whole file once, clears in the process that has the store open
        are not durable.
        """
        try:
            problems = tuple(str(row[0]) for row in self._ask("PRAGMA integrity_check"))
            stones = self._noted()
            filed = self._ask("SELECT owner, catalog FROM sessions")
            opened, rejected = 0, 0
            if self._seal is not None:
                for session in self.reveal():
                    opened, rejected = opened + len(session.records), rejected + session.rejected
        except Damaged as error:
            return Checked(problems=(str(error),), sessions=0, opened=None, rejected=None)
        return Checked(
            problems=() if problems == ("ok",) else problems,
            sessions=len(filed),
            opened=None if self._seal is None else opened,
            rejected=None if self._seal is None else rejected,
            cleared=sum(covered(stones, *each) for each in filed),
        )

    def _owners(self, seal: Seal) -> Iterator[_Opened]:
        after = 0
        stones = self._noted()
        while rows := self._ask(_KEYS, after, _SLICE):
            for number, digest, catalog, id_, salt, key, user in rows:
                after = number
                if not covered(stones, digest, catalog):
                    session = SessionKey(id_, salt, key)
                    yield _Opened(number, seal.unseal_user(digest, session, user), digest, session)
            stones = self._noted()

    def _noted(self) -> frozenset[Stone]:
        """Return of whom a clear is noted. To be asked before their rows are: what is applied is taken off the list."""
        return noted(beside(self._path, ".clears"))

    def _now(self) -> float:
        """Return the date, as the process that wrote last may have it."""
        _, high_water = self._meta()
        now = self._clock.wall()
        return max(now, high_water) if isinstance(high_water, float) else now

    def _meta(self) -> tuple[object, object]:
        """Return the era, and the highest date that was noted."""
        for era, high_water in self._ask("SELECT era, high_water FROM meta"):
            return era, high_water
        raise Damaged

    def _ask(self, statement: str, *parameters: object) -> list[Any]:
        # Read to the end at once: a transaction that is left open keeps the log from being emptied.
        with no_fork:
            return translated(lambda: self._connection.execute(statement, parameters).fetchall(), self._path)


def pseudonym(digest: object) -> str:
    """Return what a session is listed under: the first 16 hexadecimal digits of what it is filed under."""
    return digest[:_PSEUDONYM_BYTES].hex() if isinstance(digest, bytes) else "?"


@contextlib.contextmanager
def inspect(
    path: Path | str, *, keys: KeyRing | KeyProvider | None = None, clock: Clock | None = None
) -> Iterator[Inspector]:
    """Open a store's file for a look into it; nothing in it is changed.

    Any process may do so at any time, as long as it may read the file. Where nothing can be put beside the file, it cannot
    be read while there is something in its log.

    Args:
        path: the file.
        keys: what its entries are sealed with, or what returns it, as for a `SQLiteStore`; without them only pseudonyms
            and numbers can be seen.
        clock: what its dates are compared with.

    Raises:
        StoreFailed: there is no store at *path*, or not one that this version of coatcheck knows.
        KeysUnusable: a provider brought no keys.
    """
    with connected(path) as (connection, place):
        ring = None if keys is None else ring_of(keys)
        yield Inspector(connection, place, ring, SystemClock() if clock is None else clock)


@contextlib.contextmanager
def connected(path: Path | str) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """Connect to a store's file for a look into it, as `inspect` does, and leave nothing beside it.

    Yields the connection, and the path of the file itself.

    Raises:
        StoreFailed: as of `inspect`.
    """
    place = real_path(path)
    if not exists(place):
        raise StoreFailed(f"there is no store at {place}")
    check_place(place)
    with told_with(place), _kept_open(place) as connection:
        with no_fork:
            [[application], [version]] = translated(
                lambda: [
                    connection.execute(f"PRAGMA {what}").fetchone()
                    for what in ("application_id", "user_version")
                ],
                place,
            )
        if application == version == 0:
            raise StoreFailed(
                f"there is no store at {place} yet: the file is empty, until a program begins one in it"
            )
        if application != APPLICATION_ID or version != len(STEPS):
            raise StoreFailed(f"at {place} is no store that this version of coatcheck knows")
        yield connection, place


@contextlib.contextmanager
def _kept_open(place: Path) -> Iterator[sqlite3.Connection]:
    with no_fork:
        connection = _connect(place)
    try:
        yield connection
    finally:
        with no_fork:
            connection.close()


def _connect(place: Path) -> sqlite3.Connection:
    """Open a file in the way that disturbs it least.

    With a log that something is in, it is only read: the log stays as it is. With none, SQLite may write: it makes a log and
    an index of it to read, and whoever closes the file last removes them, if it may. Where nothing can be put beside the
    file nobody writes it, and it is read as one that does not change. So is a file that its mode lets nobody write: who only
    reads would leave log and index behind, and cannot know whether another still needs them.
    """
    logged = bool(size_of(beside(place, "-wal")) or size_of(beside(place, "-journal")))
    reason = unwritable(place)
    ways = ["mode=ro"] if logged or reason is not None else ["mode=rw", "mode=ro"]
    if not logged and not beside(place, "-shm").exists():
        # A program that may write it all the same, as root's may, has made an index before it does.
        status = status_of(place)
        protected = reason is not None and status is not None and not status.st_mode & _ANY_WRITE
        ways.insert(0 if protected else len(ways), "mode=ro&immutable=1")
    for way in ways:
        connection = translated(
            lambda: sqlite3.connect(
                f"{place.as_uri()}?{way}",  # noqa: B023 - called at once
                uri=True,
                timeout=OPENING_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            ),
            place,
        )
        connection.text_factory = readable
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA application_id").fetchone()
        except sqlite3.Error as error:
            connection.close()
            failure = error
        else:
            return connection
        if getattr(failure, "sqlite_errorcode", 0) & 0xFF not in _NO_WAY:
            translated(lambda: _raise(failure), place)  # noqa: B023 - called at once
    raise StoreFailed(f"the store at {place} cannot be read: {reason or problem(failure)}")


def _raise(error: Exception) -> NoReturn:
    raise error
