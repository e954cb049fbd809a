"""The one thread that writes a SQLite store: takes what waits, commits it as a group, and tidies up between."""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
from itertools import groupby
from typing import TYPE_CHECKING, Final

from coatcheck.errors import CoatcheckError, StoreFailed
from coatcheck.stores.sqlite.calls import deliver
from coatcheck.stores.sqlite.database import Database
from coatcheck.stores.sqlite.file import problem, translated
from coatcheck.stores.sqlite.operations import (
    Chore,
    ClearAll,
    Forget,
    Open,
    Operation,
    Put,
    end_buried,
    run_puts,
)
from coatcheck.stores.sqlite.process import no_fork
from coatcheck.stores.sqlite.sweep import ROOM, Sweep, free_bytes, used_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from coatcheck.stores.seal import Seal
    from coatcheck.stores.sqlite.dates import Dates
    from coatcheck.stores.sqlite.file import StoreFile
    from coatcheck.stores.sqlite.tables import Tables
    from coatcheck.stores.sqlite.tombstones import Stone

MAX_GROUP: Final = 256
"""Operations in one transaction."""

MAX_GROUP_BYTES: Final = 8 * 1024 * 1024
"""Bodies in one transaction, about."""

IDLE_SECONDS: Final = 5.0
"""How often a writer that nobody asks for anything looks whether something is to be tidied."""

REST_SECONDS: Final = 0.05
"""After so long without being asked it empties the log, if there is much in it or something that must go."""

UNTIDY_GROUPS: Final = 50
"""After so many groups without an idle moment a slice is tidied all the same."""

RESERVE_BYTES: Final = 1024 * 1024
"""With less than this left on the disk sessions are ended while that can still be done: it takes room in the log."""

logger = logging.getLogger("coatcheck.stores")


class Writer:
    """Answers operations, and does chores, in the order in which they are asked for.

    Args:
        file: the file, locked.
        seal: what seals its entries.
        dates: what dates them.
        max_bytes: the bound of the store.

    Attributes:
        asked: where operations and chores are put; None ends the thread when what is before it is done.
        database: the file as this thread has it.
    """

    def __init__(self, file: StoreFile, seal: Seal, dates: Dates, max_bytes: int) -> None:
        self.asked: queue.SimpleQueue[Operation[Any] | Chore | None] = queue.SimpleQueue()
        self.database = Database(file, seal, dates, opened=self._opened, make_room=self._make_room)
        self._file = file
        self._seal = seal
        self._dates = dates
        self._tombstones = file.tombstones
        self._sweep = Sweep(max_bytes)
        # After so many bytes written the size is looked at again.
        self._growth = max_bytes // 64
        self._unmeasured = self._growth
        self._foreign = True
        self._outgrown = True
        self._ending = False

    def _opened(self) -> None:
        # Nothing is known of a file that has just been opened.
        self._foreign = self._outgrown = True

    # -- the thread -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Be the thread: do what is asked until the end of it."""
        wait, groups = 0.0, 0
        while not self._ending:
            group = self._take(wait)
            with no_fork:
                if group:
                    self._safely(lambda: self._do(group))  # noqa: B023 - called at once
                    groups += 1
                    rested, wait = False, 0.0
                else:
                    rested = wait > 0
                if not group or groups >= UNTIDY_GROUPS:
                    groups = 0
                    wait = 0.0 if self._safely(self._tidy) else IDLE_SECONDS
                if wait > 0 and self.database.log_to_empty():
                    # Who was just answered may ask for more at once: that comes first.
                    wait = (
                        IDLE_SECONDS if rested and not self._safely(self.database.empty_log) else REST_SECONDS
                    )
        with no_fork:
            self._safely(self._finish)
            with self.database.turn:
                self.database.close()

    def _take(self, wait: float) -> list[Operation[Any] | Chore]:
        """Return what waits, at most a group."""
        group: list[Operation[Any] | Chore] = []
        size = 0
        asked = self.asked
        try:
            call = asked.get(timeout=wait) if wait > 0 else asked.get_nowait()
            while call is not None:
                group.append(call)
                if isinstance(call, Put):
                    size += len(call.record.body)
                if len(group) >= MAX_GROUP or size >= MAX_GROUP_BYTES:
                    return group
                call = asked.get_nowait()
        except queue.Empty:
            return group
        self._ending = True
        return group

    def _do(self, group: list[Operation[Any] | Chore]) -> None:
        """Do a group in the order in which it was asked for, chores between transactions."""
        operations: list[Operation[Any]] = []
        for each in group:
            if not isinstance(each, Chore):
                operations.append(each)
                continue
            self._commit(operations)
            operations = []
            self._do_chore(each)
        self._commit(operations)

    def _do_chore(self, chore: Chore) -> None:
        failure: str | None = None
        result = None
        try:
            result = chore.work()
        except StoreFailed as error:
            failure = str(error)
        except sqlite3.Error as error:
            failure = problem(error)
            self.database.met(error)
        except Exception as error:  # noqa: BLE001 - want of memory, say: who waits for it, or behind it, must not wait for ever
            failure = f"the writer of a store met a {type(error).__qualname__}"
            self.database.complain(failure)
        if chore.call is not None:
            if failure is None:
                chore.call.succeed(result)
            else:
                chore.call.fail(StoreFailed(failure))
            deliver([chore.call])

    def _safely(self, work: Callable[[], bool | None]) -> bool:
        """Do something that nobody waits for; tell whether it says that there is more to do."""
        try:
            return work() or False
        except sqlite3.Error as error:
            self.database.met(error)
        except Exception as error:  # noqa: BLE001 - this thread serves everybody: one mistake must not end it
            # What it says may hold data.
            self.database.complain(f"the writer of a store met a {type(error).__qualname__}")
        return False

    # -- groups -----------------------------------------------------------------------------------------------------

    def _commit(self, group: list[Operation[Any]]) -> None:
        """Do a group in one transaction and answer it."""
        if not group:
            return
        kinds = {type(operation) for operation in group}
        # A session that is begun before what it follows has ended would end with it: so both in one.
        stones = self._tombstones.pending() if Open in kinds else ()

        def work(tables: Tables) -> None:
            end_buried(tables, stones)
            self._apply(tables, group, kinds)

        failure = self.database.attempt(work, synced=len(stones) > 0 or any(kind.synced for kind in kinds))
        if failure is not None:
            self._note(group)
            _fail(group, failure)
            return
        self._tombstones.take_down(stones)
        if Forget in kinds or ClearAll in kinds or stones:
            self._sweep.want()
        self._answer(group)
        if self.database.log_is_too_long():
            self._safely(self.database.write_back)
        if self._file.room() < RESERVE_BYTES:
            self._safely(self._reuse)

    def _answer(self, group: list[Operation[Any]]) -> None:
        """Answer a group that is committed; what erases, when it has."""
        erasing = [each for each in group if each.erases]
        if not erasing:
            deliver(group)
            return
        for each in erasing:
            # Under the lock: a note that comes too late would end a session begun since.
            with self._tombstones.lock:
                each.applied = True
        deliver([each for each in group if not each.erases])
        failure = self.database.erase()
        if failure is None:
            deliver(erasing)
        else:
            _fail(erasing, failure)

    def _apply(self, tables: Tables, group: list[Operation[Any]], kinds: set[type[Operation[Any]]]) -> None:
        if Put not in kinds:
            for operation in group:
                operation.run(tables)
        else:
            # In order, but as many puts in one statement as follow one another.
            for kind, operations in groupby(group, key=type):
                if kind is Put:
                    self._unmeasured -= run_puts(tables, list(operations))  # type: ignore[arg-type]
                else:
                    for operation in operations:
                        operation.run(tables)
        if self._unmeasured <= 0:
            self._unmeasured = self._growth
            self._outgrown = self._sweep.outgrown(tables)

    def _make_room(self) -> bool:
        """Do what can be done about a disk that is full; tell whether it is worth another attempt."""
        try:
            tables = self.database.tables
            assert tables is not None
            self.database.checkpoint("TRUNCATE")
            goal = used_bytes(tables) * ROOM
        except sqlite3.Error:
            return False
        more = True
        while more:
            ended = False

            def end(tables: Tables) -> None:
                nonlocal ended
                ended = self._sweep.make_room(tables, goal)

            if self.database.transact(end, synced=False) is not None:
                return False
            more = ended
        return True

    def _reuse(self) -> None:
        """See to it that the file has pages to use again: it should not have to grow any more."""
        tables = self.database.tables
        if tables is None:
            return
        used = used_bytes(tables)
        # What little a small file could give would not help; and what is made at once is a tenth of it.
        if used > RESERVE_BYTES and free_bytes(tables) < min(RESERVE_BYTES // 4, used // 10):
            self._make_room()

    # -- tidying ----------------------------------------------------------------------------------------------------

    def _tidy(self) -> bool:
        """Do a slice of what is to be removed; tell whether there is more to do at once."""
        tables = self.database.tables
        if tables is None:
            return False
        if self._tombstones.pending():
            return self._bury()
        if self._foreign:
            return self._slice(self._drop_foreign)
        if self._sweep.due(self._dates.now()):
            return self._slice(self._sweep.step) or self._outgrown
        if self._outgrown:
            return self._slice(self._shrink)
        if not self.database.is_dated():
            self.database.date()
        return False

    def _slice(self, work: Callable[[Tables], bool]) -> bool:
        """Do a slice in a transaction; tell whether it was done, so that what is next can be."""
        return self.database.attempt(work) is None

    def _drop_foreign(self, tables: Tables) -> bool:
        self._foreign = self._sweep.drop_foreign(tables)
        return self._foreign

    def _shrink(self, tables: Tables) -> bool:
        self._outgrown = self._sweep.make_room(tables)
        return self._outgrown

    def compact(self) -> tuple[int, int]:
        """Remove all that can be, give back the room, and return the bytes of the file before and after.

        Raises:
            StoreFailed: it cannot be done now.
        """
        before = sum(self._file.sizes())
        self._sweep.restart()
        while self._sweep.due(self._dates.now()):
            failure = self.database.attempt(self._sweep.step)
            if failure is not None:
                raise StoreFailed(failure)
        tables = self.database.tables
        if tables is not None:
            tables.connection.execute("VACUUM")
            tables.unclean = True
        failure = self.database.erase()
        if failure is not None:
            raise StoreFailed(failure)
        return before, sum(self._file.sizes())

    def purge(self) -> None:
        """End what no key of the ring opens, before anybody is answered."""
        tables = self.database.tables
        assert tables is not None
        self._foreign = not translated(lambda: self._sweep.knows_ring(tables))
        lost = translated(lambda: self._sweep.foreign(tables)) if self._foreign else 0
        if lost:
            # After a rotation that is as it should be; with the wrong file of keys it is not.
            logger.warning(
                "%s in the store at %s %s begun under keys that are not there any more: removed",
                *(
                    ("1 session", self._file.path, "was")
                    if lost == 1
                    else (f"{lost} sessions", self._file.path, "were")
                ),
            )
        while self._foreign:
            failure = self.database.attempt(self._drop_foreign)
            if failure is not None:
                raise StoreFailed(failure)

    def _note(self, failed: list[Operation[Any]]) -> None:
        """Note the clears among operations that failed, so that what they were to end is not served again."""
        stones: list[Stone] = []
        for each in failed:
            with contextlib.suppress(CoatcheckError):  # there is no such owner
                stones += each.stones(self._seal)
        if stones:
            self._tombstones.put_up(stones)

    def abandon(self, call: Operation[Any]) -> None:
        """Note, on an event loop, a clear that nobody waits for any more and that is not applied yet.

        Who gave it up is told that it is not durable: it must not be lost with the process. Should it be applied later all
        the same, it ends what it was to end, and the note nothing more.
        """
        with self._tombstones.lock:
            if not call.applied:
                # Not synced: a disk that is stuck must not keep the loop.
                with contextlib.suppress(CoatcheckError):
                    self._tombstones.put_up(call.stones(self._seal), synced=False)

    def _bury(self) -> bool:
        """Apply the clears that could not be applied before, by this process or an earlier one; tell whether it is done."""
        stones = self._tombstones.pending()
        if stones and self.database.attempt(lambda tables: end_buried(tables, stones), synced=True) is None:
            self._tombstones.take_down(stones)
            self._sweep.want()
        return not self._tombstones.pending()

    def _finish(self) -> None:
        """Leave the file complete, dated, and no log beside it."""
        self.database.date()
        self._tombstones.tell()
        self.database.checkpoint("TRUNCATE")


def _fail(operations: list[Operation[Any]], failure: str) -> None:
    for operation in operations:
        if isinstance(operation, Open) and operation.session is not None:
            # What opened is as good as ever; what did not is met again.
            operation.succeed(operation.session)
            continue
        # Each its own: an exception that is raised in many places grows in each.
        operation.fail(StoreFailed(failure))
    deliver(operations)
