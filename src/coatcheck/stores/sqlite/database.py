"""A store's file as its writer has it: opened, replaced when it is damaged, written in transactions, its log emptied."""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import threading
from typing import TYPE_CHECKING, Final

from coatcheck.errors import StoreFailed
from coatcheck.stores.sqlite.file import Damaged, damaged, problem, translated
from coatcheck.stores.sqlite.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.stores.seal import Seal
    from coatcheck.stores.sqlite.dates import Dates
    from coatcheck.stores.sqlite.file import StoreFile

MARK_SECONDS: Final = 30.0
"""How far the date in the file may lag behind: a clock set back by less is not noticed at the next start."""

LOG_BYTES: Final = 16 * 1024 * 1024
"""A write-ahead log longer than this is written back and emptied, whoever waits; a quarter of it, when nobody does."""

ERASE_ATTEMPTS: Final = 4
"""Each waits for readers of other programs as long as any operation waits for a lock."""

logger = logging.getLogger("coatcheck.stores")


class Database:
    """Two connections to a store's file, one that writes and one that reads beside it, and what is done with the first.

    Used in one thread at a time, but for what is under *turn*.

    Args:
        file: the file, locked.
        seal: what seals its entries.
        dates: what dates them.
        opened: called when the file has been opened, which it is anew when it was damaged.
        make_room: called when the disk is full; tells whether another attempt is worth it.

    Attributes:
        turn: held by who reads, for a moment at a time, and by the writer when nobody may.
        reading: the reader's connection, used under *turn* only; None while the file cannot be opened.
        tables: what is written; None while the file cannot be opened.
        ends: a number that grows when sessions have ended.
    """

    def __init__(
        self,
        file: StoreFile,
        seal: Seal,
        dates: Dates,
        *,
        opened: Callable[[], None],
        make_room: Callable[[], bool],
    ) -> None:
        self.turn = threading.Lock()
        self.reading: sqlite3.Connection | None = None
        self.tables: Tables | None = None
        self.ends = 0
        self._file = file
        self._seal = seal
        self._dates = dates
        self._opened = opened
        self._make_room = make_room
        self._synced = False
        # The date that the file knows of.
        self._marked = -math.inf
        self._complaint: str | None = None

    # -- the file ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file; a damaged one is moved aside.

        Raises:
            StoreFailed: there can be no store there.
        """
        for again in (False, True):
            try:
                self._connect()
            except Damaged as error:
                why = str(error)
            else:
                return
            if not again:
                self._file.move_aside(why)
        raise StoreFailed(why)

    def _connect(self) -> None:
        try:
            writing = self._file.connect_writer()
            self.tables = Tables(writing, self._seal, self._dates, self._file.tombstones)
            translated(lambda: self._dates.start(writing))
            self.reading = self._file.connect_reader()
        except BaseException:
            self.close()
            raise
        self._synced = False
        self._opened()

    def close(self) -> None:
        """Close both connections, the writer's last: the last one writes the log back."""
        tables, self.tables = self.tables, None
        reading, self.reading = self.reading, None
        for connection in (reading, None if tables is None else tables.connection):
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
        self._seal.forget_all()

    def connections(self) -> list[sqlite3.Connection]:
        """Return what a forked child must neither touch nor let go of."""
        tables = self.tables
        both = (self.reading, None if tables is None else tables.connection)
        return [connection for connection in both if connection is not None]

    def replace(self, seen: sqlite3.Connection, why: str) -> None:
        """Move the file aside from which *seen* has read damage, unless that has been done meanwhile."""
        if self.reading is seen:
            self._replace(why)

    def met(self, error: sqlite3.Error) -> None:
        """Replace the file if it is what *error* comes from."""
        if damaged(error):
            self._replace(problem(error))

    def complain(self, what: str) -> None:
        """Log what is wrong once, not for every operation that fails of it."""
        if what != self._complaint:
            self._complaint = what
            logger.error("%s", what)

    def _replace(self, why: str) -> None:
        """Move a damaged file aside and begin an empty one, if that can be done now."""
        with self.turn:
            self.close()
            try:
                self._file.move_aside(why)
                self.open()
            except StoreFailed as error:
                self.complain(str(error))

    # -- transactions -----------------------------------------------------------------------------------------------

    def attempt(self, work: Callable[[Tables], object], *, synced: bool = False) -> str | None:
        """Do something in a transaction; return what went wrong, if anything did.

        When there is no room, some is made, once.
        """
        error = self.transact(work, synced=synced)
        if isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_FULL and self._make_room():
            error = self.transact(work, synced=synced)
        if error is None:
            return None
        if isinstance(error, sqlite3.Error):
            self.met(error)
            return problem(error)
        return str(error)

    def transact(self, work: Callable[[Tables], object], *, synced: bool) -> Exception | None:
        """Do something in a transaction, or nothing of it; return what was raised."""
        tables = self.tables
        try:
            if tables is None:
                tables = self._reopen()
            execute = tables.connection.execute
            if synced is not self._synced:
                execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                self._synced = synced
            execute("BEGIN IMMEDIATE")
            changes = tables.connection.total_changes
            work(tables)
            now = self._dates.now()
            # Slices of a sweep mostly find nothing: they should write nothing.
            dated = tables.connection.total_changes != changes or not self.is_dated()
            if dated:
                execute("UPDATE meta SET high_water = ? WHERE high_water < ?", (now, now))
            execute("COMMIT")
            self._marked = now if dated else self._marked
            self._settle(tables)
        except (sqlite3.Error, StoreFailed) as error:
            failure: Exception = error
        except Exception as error:  # noqa: BLE001 - this thread serves everybody: one mistake must not end it
            failure = StoreFailed("the store failed by a mistake of its own")
            self.complain(f"the writer of a store met a {type(error).__qualname__}")
        else:
            self._complaint = None
            return None
        if tables is not None:
            with contextlib.suppress(sqlite3.Error):
                if tables.connection.in_transaction:
                    tables.connection.execute("ROLLBACK")
            self._settle(tables)
        return failure

    def date(self) -> None:
        """Note in the file what day it is."""
        self._marked = -math.inf
        self.attempt(lambda _tables: None)

    def is_dated(self) -> bool:
        """Tell whether the file knows well enough what day it is."""
        return self._dates.now() - self._marked < MARK_SECONDS

    def _settle(self, tables: Tables) -> None:
        # In this order: a reader that derives a session's keys once more has either read that it ended, or sees now that
        # something has, or is seen here.
        self.ends += tables.ended()
        tables.settle()

    def _reopen(self) -> Tables:
        """Open a file that could not be opened when it should have been."""
        with self.turn:
            self.open()
        assert self.tables is not None
        return self.tables

    # -- the log ----------------------------------------------------------------------------------------------------

    def erase(self, attempts: int = ERASE_ATTEMPTS) -> str | None:
        """Empty the log, so that nothing of sessions that ended is left in it; return what stands in the way."""
        tables = self.tables
        if tables is None:
            return "the store's file cannot be opened"
        if not tables.unclean:
            return None
        try:
            for _ in range(attempts):
                if self.checkpoint("TRUNCATE"):
                    tables.unclean = False
                    return None
        except sqlite3.Error as error:
            self.met(error)
            return problem(error)
        return "another program reads the store and keeps its log from being emptied"

    def write_back(self) -> None:
        """Write the log back and empty it, if nobody of another program reads."""
        # Readers are kept waiting only while the log is cut, not while it is copied and synced.
        self.checkpoint("PASSIVE")
        self.checkpoint("TRUNCATE")

    def checkpoint(self, mode: str) -> bool:
        """Write the log back into the file; tell whether all of it was."""
        tables = self.tables
        if tables is None:
            return False
        # Who reads meanwhile would keep the log from being emptied.
        with self.turn if mode == "TRUNCATE" else contextlib.nullcontext():
            row = tables.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return bool(row[0] == 0)

    def log_is_too_long(self) -> bool:
        """Tell whether the log must be written back, whoever waits."""
        return self._file.log_too_long(LOG_BYTES)

    def log_to_empty(self) -> bool:
        """Tell whether the log should be emptied when there is a moment for it."""
        tables = self.tables
        return tables is not None and (tables.unclean or self._file.log_size() > LOG_BYTES // 4)

    def empty_log(self) -> None:
        """Do that, once."""
        tables = self.tables
        if tables is not None and tables.unclean:
            self.erase(attempts=1)
        else:
            self.write_back()


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
