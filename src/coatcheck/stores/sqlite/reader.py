"""The thread that reads a SQLite store: brings sessions back, many in one turn, and opens what is sealed in them."""

from __future__ import annotations

import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Final

from coatcheck.errors import CoatcheckError, StoreFailed
from coatcheck.stores.sqlite.calls import deliver
from coatcheck.stores.sqlite.file import damaged, problem
from coatcheck.stores.sqlite.operations import Chore
from coatcheck.stores.sqlite.process import no_fork
from coatcheck.stores.sqlite.schema import TOUCH_SESSION
from coatcheck.stores.sqlite.tables import Fetched, fetch

if TYPE_CHECKING:
    from coatcheck.stores.seal import Seal
    from coatcheck.stores.sqlite.dates import Dates
    from coatcheck.stores.sqlite.operations import Open
    from coatcheck.stores.sqlite.tables import Tables
    from coatcheck.stores.sqlite.tombstones import Tombstones
    from coatcheck.stores.sqlite.writer import Writer

MAX_TURN: Final = 32
"""Sessions read in one turn. The writer waits for its end before it empties the log."""

TOUCH_SECONDS: Final = 3_600.0
"""A session opened longer ago than this is marked as opened again."""


class Reader:
    """Answers `Open` operations; those for which something is to be written it hands on to the writer.

    Attributes:
        asked: where they are put; None ends the thread, and then the writer's.
    """

    def __init__(self, writer: Writer, seal: Seal, dates: Dates, tombstones: Tombstones) -> None:
        self.asked: queue.SimpleQueue[Open | None] = queue.SimpleQueue()
        self._writer = writer
        self._database = writer.database
        self._seal = seal
        self._dates = dates
        self._tombstones = tombstones
        self._ending = False
        self._touched: list[tuple[float, int, bytes]] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        """Be the thread: answer until the end of it."""
        while not self._ending:
            waiting = self._take()
            try:
                self._turn(waiting)
            except Exception as error:  # noqa: BLE001 - this thread serves everybody: one mistake must not end it
                for each in waiting:
                    each.fail(_mistake(error))
                deliver(waiting)
        self._writer.asked.put(None)

    def _take(self) -> list[Open]:
        """Return who waits, at most for a turn."""
        asked = self.asked
        waiting: list[Open] = []
        each = asked.get()
        while each is not None:
            waiting.append(each)
            # Nobody else takes from it.
            if len(waiting) >= MAX_TURN or asked.empty():
                return waiting
            each = asked.get_nowait()
        self._ending = True
        return waiting

    def _turn(self, waiting: list[Open]) -> None:
        """Read for all, then open and answer."""
        ends = self._database.ends
        found = self._read(waiting)
        answered: list[Open] = []
        touched: list[tuple[float, int, bytes]] = []
        for each, fetched in zip(waiting, found, strict=True):
            if isinstance(fetched, StoreFailed):
                each.fail(fetched)
                answered.append(each)
            elif fetched is not None and each.take(self._seal, fetched):
                answered.append(each)
                if fetched.at - fetched.opened > TOUCH_SECONDS:
                    touched.append((fetched.at, fetched.number, fetched.key.id))
            else:
                self._writer.asked.put(each)
        deliver(answered)
        if ends != self._database.ends:
            # Of a session that ended meanwhile nothing may be left; those of the others are derived again.
            for fetched in found:
                if isinstance(fetched, Fetched):
                    self._seal.forget_session(fetched.key.id)
        if touched:
            self._touch(touched)

    def _read(self, waiting: list[Open]) -> list[Fetched | StoreFailed | None]:
        """Return, for each, what is stored, None if there is nothing that can be used, or what went wrong."""
        with no_fork, self._database.turn:
            connection = self._database.reading
            if connection is None:
                # The writer opens the file again, if it can.
                return [None] * len(waiting)
            try:
                found = [self._fetch(connection, each) for each in waiting]
            except sqlite3.Error as error:
                failure = problem(error)
                if damaged(error):
                    self._writer.asked.put(Chore(lambda: self._database.replace(connection, failure)))
            else:
                return found
        return [StoreFailed(failure) for _ in waiting]

    def _fetch(self, connection: sqlite3.Connection, each: Open) -> Fetched | StoreFailed | None:
        try:
            return fetch(connection, self._seal, self._dates, self._tombstones, each.owner)
        except sqlite3.Error:
            raise
        except CoatcheckError as error:
            return StoreFailed(str(error))
        except Exception as error:  # noqa: BLE001 - one session's rows must not fail who reads beside it
            return _mistake(error)

    def _touch(self, touched: list[tuple[float, int, bytes]]) -> None:
        """Have sessions marked as opened: those opened longest ago are the first to go when there is no more room."""
        # One chore for all that come until it is done: it may take as long as a lock on the file is waited for.
        with self._lock:
            under_way = len(self._touched) > 0
            self._touched += touched
        if not under_way:
            self._writer.asked.put(Chore(self._mark))

    def _mark(self) -> None:
        """Do so, in the writer's thread."""
        with self._lock:
            touched, self._touched = self._touched, []

        def mark(tables: Tables) -> None:
            tables.connection.executemany(TOUCH_SESSION, touched)

        self._database.attempt(mark)


def _mistake(error: Exception) -> StoreFailed:
    # What it says may hold data.
    return StoreFailed(f"the reader of a store met a {type(error).__qualname__}")
