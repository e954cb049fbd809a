"""The file of a SQLite store: private, locked for one process, opened the same way each time, moved aside when damaged."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from coatcheck.errors import StoreFailed, StoreInUse
from coatcheck.stores.sqlite.place import MARK, beside, check_place, exists, reason_of, size, unwritable
from coatcheck.stores.sqlite.process import no_fork, watch
from coatcheck.stores.sqlite.schema import migrate
from coatcheck.stores.sqlite.tombstones import Tombstones

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from coatcheck.clock import Clock

T = TypeVar("T")

OLDEST_SQLITE: Final = (3, 37, 0)
"""The first with STRICT tables."""

BUSY_SECONDS: Final = 0.1
"""How long an operation waits for a lock that another program holds on the file."""

OPENING_SECONDS: Final = 3.0
"""How long it is waited for while a file is opened: a backup, say, holds it for a moment, and nobody tries once more."""

BETWEEN_MOVES: Final = timedelta(minutes=1)
"""A file that is damaged again sooner after one was moved aside stays where it is."""

DAMAGED: Final = "the store's file is damaged"

_PRIVATE: Final = 0o600
_FOLDER: Final = 0o700
_BESIDE: Final = ("", "-wal", "-shm")
_PRAGMAS: Final = (
    "secure_delete = ON",
    "temp_store = MEMORY",
    "cell_size_check = ON",
    "trusted_schema = OFF",
    # The writer does it: SQLite before 3.51.3 can damage a file when two connections write and checkpoint at once.
    "wal_autocheckpoint = 0",
    "cache_size = -8000",
)
_STAMP: Final = "%Y%m%dT%H%M%SZ"

logger = logging.getLogger("coatcheck.stores")


class Damaged(StoreFailed):
    """The file is no database, or one that contradicts itself."""

    def __init__(self, message: str = DAMAGED) -> None:
        super().__init__(message)


def damaged(error: sqlite3.Error) -> bool:
    """Tell whether an error means that the file cannot be trusted any more."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    if code & 0xFF == sqlite3.SQLITE_ERROR:
        # All statements are fixed: one that misses a table or a column has met a schema that is not ours.
        return "no such " in str(error) or "malformed" in str(error)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def problem(error: sqlite3.Error, path: Path | None = None) -> str:
    """Return what is wrong, in words that hold no data; with the file's path, to whom it may be new."""
    file = "the store's file" if path is None else f"the store at {path}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    known = {
        sqlite3.SQLITE_BUSY: f"another program has locked {file}",
        sqlite3.SQLITE_LOCKED: f"another program has locked {file}",
        sqlite3.SQLITE_FULL: f"there is no room left for {file}",
        sqlite3.SQLITE_READONLY: f"{file} cannot be written",
        sqlite3.SQLITE_PERM: f"{file} cannot be written",
        sqlite3.SQLITE_CANTOPEN: f"{file} cannot be opened",
        sqlite3.SQLITE_IOERR: f"{file} cannot be read or written",
        sqlite3.SQLITE_CORRUPT: f"{file} is damaged",
        sqlite3.SQLITE_NOTADB: f"{file} is damaged",
    }
    return known.get(code, f"{file} failed ({getattr(error, 'sqlite_errorname', 'not open')})")


def damage_at(path: Path) -> str:
    """Return what is said of a damaged file to who does not have it open: where it is, and what becomes of it."""
    return (
        f"the store at {path} is damaged: the program that has it open, or opens it next, moves it aside when it meets the"
        " damage, and begins an empty one"
    )


@contextlib.contextmanager
def told_with(path: Path) -> Iterator[None]:
    """Say of damage that is met where it is.

    Raises:
        Damaged: it was met.
    """
    try:
        yield
    except Damaged:
        pass
    else:
        return
    raise Damaged(damage_at(path))


class StoreFile:
    """One store's file and what lies beside it.

    Args:
        path: where. Folders that are missing are made, for this user alone.
        clock: dates what is moved aside.

    Attributes:
        tombstones: the clears that could not be applied to it yet.

    Raises:
        StoreInUse: another process, or another store of this one, has it.
        StoreFailed: there can be no file there, or there is one that is not a store's; then nothing was touched.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._log = beside(path, "-wal")
        self._clock = clock
        self._lock: int | None = None
        self._patience = OPENING_SECONDS
        self.tombstones = Tombstones(beside(path, ".clears"))
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise StoreFailed(
                f"this store needs SQLite {oldest} or newer, and this Python has {sqlite3.sqlite_version}"
            )
        check_place(path)
        if (reason := unwritable(path)) is not None:
            wrong = (
                f"the store at {path} cannot be written"
                if exists(path)
                else f"there can be no store at {path}"
            )
            raise StoreFailed(f"{wrong}: {reason}")
        try:
            _make_folder(path.parent)
            watch(self)
            with no_fork:
                self._lock = os.open(beside(path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._lock).st_size == 0:
                os.pwrite(self._lock, MARK, 0)
            self.tombstones.open()
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            reason = reason_of(error, path)
        except StoreFailed:
            self.release()
            raise
        else:
            return
        self.release()
        if reason is not None:
            raise StoreFailed(f"there can be no store at {path}: {reason}")
        raise StoreInUse(
            f"the store at {path} is open in another program, or in another store of this one; one file serves one"
            " process: give each a file of its own. To share sessions between processes takes Redis/Valkey, which this"
            " version cannot use yet"
        )

    def release(self) -> None:
        """Let another process have it."""
        self.tombstones.close()
        if self._lock is not None:
            # Closing it alone would leave it to a child that has not let go of it yet.
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._let_go()

    @property
    def released(self) -> bool:
        """Whether another process may have it."""
        return self._lock is None

    def inherited(self) -> list[sqlite3.Connection]:
        """Let go of it in a forked child; the parent's lock stays."""
        self._let_go()
        return []

    def end(self) -> None:
        """Do nothing at the end of the process: who uses it releases it."""

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        self.tombstones.close()
        if lock is not None:
            with contextlib.suppress(OSError):
                os.close(lock)

    def connect_writer(self) -> sqlite3.Connection:
        """Return the connection that writes, to a file of today's schema.

        Raises:
            Damaged: it is no database.
            StoreFailed: it cannot be opened or written, is of a newer version, or not a store at all.
        """
        check_place(self.path)
        self._make()
        connection = self._connect()
        try:
            translated(lambda: _bring_up(connection, self.path), self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_reader(self) -> sqlite3.Connection:
        """Return a connection that reads.

        Raises:
            Damaged: it is no database.
            StoreFailed: it cannot be opened.
        """
        connection = self._connect()
        try:
            translated(lambda: connection.execute("PRAGMA query_only = ON"), self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def opened(self, connections: Iterable[sqlite3.Connection]) -> None:
        """Wait for a lock no longer than an operation may, from now on, on these connections and on new ones."""
        self._patience = BUSY_SECONDS
        for connection in connections:
            connection.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1_000)}")

    def move_aside(self, why: str) -> None:
        """Give way to a new file: move the damaged one and what lies beside it out of the way, and say so.

        Raises:
            StoreFailed: one was moved a moment ago, or it cannot be moved.
        """
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        if any(abs(now - moved) < BETWEEN_MOVES for moved in self._moved()):
            raise StoreFailed(
                f"the store at {self.path} is damaged again, right after another was moved aside: it stays where it is, and is"
                " moved in a minute; check the disk that it is on, or choose another path"
            )
        aside = self.path.with_name(f"{self.path.name}.corrupt-{now.strftime(_STAMP)}")
        reason = None
        try:
            for suffix in _BESIDE:
                with contextlib.suppress(FileNotFoundError):
                    beside(self.path, suffix).replace(beside(aside, suffix))
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            raise StoreFailed(
                f"the store at {self.path} is damaged and cannot be moved aside ({reason}): move or delete it by hand"
            )
        logger.error(
            "the store at %s was damaged%s: it was moved to %s and an empty one was begun. What it holds is sealed;"
            " delete it when nobody wants to look into it",
            self.path, "" if why == DAMAGED else f" ({why})", aside,
        )  # fmt: skip

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the file and of its write-ahead log."""
        return size(self.path), self.log_size()

    def log_too_long(self, limit: int) -> bool:
        """Tell whether the log is longer than *limit*, or than the room that is left to write it back to."""
        length = self.log_size()
        return length > 0 and length > min(limit, self.room())

    def room(self) -> int:
        """Return the bytes that the disk has left; a number beyond all bounds if it does not tell."""
        try:
            disk = os.statvfs(self.path.parent)
        except OSError:
            return sys.maxsize
        return disk.f_bavail * disk.f_frsize

    def log_size(self) -> int:
        """Return the bytes of the write-ahead log."""
        return size(self._log)

    def _make(self) -> None:
        """Make an empty file for this user alone; what SQLite puts beside it later is as private as the file is."""
        reason = None
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE))
        except FileExistsError:
            for suffix in _BESIDE:
                with contextlib.suppress(OSError):
                    beside(self.path, suffix).chmod(_PRIVATE)
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            raise StoreFailed(f"there can be no store at {self.path}: {reason}")

    def _connect(self) -> sqlite3.Connection:
        connection = translated(
            lambda: sqlite3.connect(
                f"{self.path.as_uri()}?mode=rw",
                uri=True,
                timeout=self._patience,
                isolation_level=None,
                # Opened here and used in one thread at a time.
                check_same_thread=False,
                cached_statements=64,
            ),
            self.path,
        )
        try:
            translated(lambda: _configure(connection), self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _moved(self) -> list[datetime]:
        """Return when files were moved aside here, from their names."""
        found = []
        prefix = f"{self.path.name}.corrupt-"
        with contextlib.suppress(OSError):
            for each in self.path.parent.iterdir():
                with contextlib.suppress(ValueError):
                    if each.name.startswith(prefix):
                        stamp = datetime.strptime(each.name.removeprefix(prefix), _STAMP)  # noqa: DTZ007 - it is, next
                        found.append(stamp.replace(tzinfo=UTC))
        return found


def readable(text: bytes) -> str:
    """Return a text of the file. What is none, as a damaged file may hold, must not fail those who read beside it."""
    return text.decode(errors="replace")


def _configure(connection: sqlite3.Connection) -> None:
    connection.text_factory = readable
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a file to today's schema and to write-ahead logging."""
    # In this order: the mode is part of the file, and the file may be another program's.
    migrate(connection, path)
    [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreFailed(f"there can be no write-ahead log for {path}: choose a path on a local disk")
    connection.execute("PRAGMA synchronous = NORMAL")


def translated(work: Callable[[], T], path: Path | None = None) -> T:
    """Return what *work* returns; what SQLite raises in it is raised as ours, with the file's path.

    Raises:
        Damaged: the file is no database.
        StoreFailed: it failed otherwise.
    """
    failure: Exception
    try:
        return work()
    except sqlite3.Error as error:
        failure = Damaged() if damaged(error) else StoreFailed(problem(error, path))
    # Outside of the handler: nothing foreign is shown as its context.
    raise failure


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with contextlib.suppress(FileExistsError):
            each.mkdir(_FOLDER)
