"""What can be done to the file of a SQLite store while no program has it open. None of it needs the keys.

A session ends with the salt of its key, whatever the key is. Nothing here ends a session that it was not asked to end.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final, TypeVar

from coatcheck.clock import SystemClock
from coatcheck.errors import StoreFailed
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.seal import Seal
from coatcheck.stores.sqlite.dates import Dates
from coatcheck.stores.sqlite.file import StoreFile, told_with, translated
from coatcheck.stores.sqlite.inspector import inspect, pseudonym
from coatcheck.stores.sqlite.operations import end_buried
from coatcheck.stores.sqlite.place import real_path
from coatcheck.stores.sqlite.sweep import Sweep
from coatcheck.stores.sqlite.tables import Ended, Tables

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from coatcheck.clock import Clock
    from coatcheck.stores.sqlite.tombstones import Stone

T = TypeVar("T")

ERASE_ATTEMPTS: Final = 20
"""How often the log is tried to be emptied while others read; each attempt waits a tenth of a second."""


class Upkeep:
    """A store's file for oneself. Made by `upkeep`; used in one thread. Every method may raise `StoreFailed`."""

    def __init__(self, file: StoreFile, tables: Tables) -> None:
        self._file = file
        self._tables = tables
        self._buried: tuple[Stone, ...] = ()

    def clear(self, pseudonyms: Collection[str] | None = None) -> int:
        """End sessions, listed under *pseudonyms*, or all; return how many.

        When this returns they are gone from the file and its log, on the disk.
        """

        def end(tables: Tables) -> int:
            rows = tables.connection.execute("SELECT session, slot, id, owner FROM sessions").fetchall()
            self._bury(tables)
            ended = tables.end(
                Ended(number, slot, id_)
                for number, slot, id_, owner in rows
                if pseudonyms is None or pseudonym(owner) in pseudonyms
            )
            tables.settle()
            return ended

        ended = self._transact(end)
        self._erase()
        self._file.tombstones.take_down(self._buried)
        return ended

    def compact(self) -> tuple[int, int]:
        """Remove what has expired and give back the room; return the bytes of the file before and after."""
        before = sum(self._file.sizes())
        self._transact(self._bury)
        sweep = Sweep(sys.maxsize)
        sweep.restart()
        while sweep.due(self._tables.dates.now()):
            self._transact(sweep.step)
        translated(lambda: self._tables.connection.execute("VACUUM"), self._file.path)
        self._erase()
        self._file.tombstones.take_down(self._buried)
        return before, sum(self._file.sizes())

    def _bury(self, tables: Tables) -> None:
        """End what clears were to end that could not be applied."""
        self._buried = self._file.tombstones.pending()
        end_buried(tables, self._buried)

    def _transact(self, work: Callable[[Tables], T]) -> T:
        def transact() -> T:
            connection = self._tables.connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self._tables)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            return result

        return translated(transact, self._file.path)

    def _erase(self) -> None:
        """Write the log back and empty it, so that nothing of what has gone is left in it."""
        for _ in range(ERASE_ATTEMPTS):
            row = translated(
                lambda: self._tables.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone(),
                self._file.path,
            )
            if row[0] == 0:
                return
        raise StoreFailed(
            f"another program reads the store at {self._file.path} and keeps its log from being emptied: try again"
        )


@contextlib.contextmanager
def upkeep(path: Path | str, *, clock: Clock | None = None) -> Iterator[Upkeep]:
    """Have a store's file for oneself. A damaged one stays where it is.

    Raises:
        StoreInUse: a program has it open.
        StoreFailed: there is no store at *path*, or not one that this version of coatcheck knows, or it is damaged.
    """
    # That there is one is checked there: nothing is made here.
    with inspect(path, clock=clock):
        pass
    clock = SystemClock() if clock is None else clock
    place = real_path(path)
    with told_with(place), contextlib.ExitStack() as stack:
        file = StoreFile(place, clock)
        stack.callback(file.release)
        connection = stack.enter_context(contextlib.closing(file.connect_writer()))
        dates = Dates(clock)
        translated(lambda: _start(connection, dates), place)
        file.opened([connection])
        # What is done here seals and opens nothing.
        yield Upkeep(file, Tables(connection, Seal(KeyRing.drawn()), dates, file.tombstones))


def _start(connection: sqlite3.Connection, dates: Dates) -> None:
    dates.start(connection)
    connection.execute("PRAGMA synchronous = FULL")
