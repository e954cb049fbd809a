"""`SQLiteStore`, as a cache holds it, with its two threads and what leads to them.

What a clear promises, it does before it returns: the session's row is gone and the salt of its key overwritten, on the
disk, and the write-ahead log is emptied. Puts are as safe as the operating system is; a power cut may take the last.
Deletes are on the disk when they return.

Beside the file ``<path>`` lie ``<path>-wal`` and ``<path>-shm`` while it is open, ``<path>.lock`` and ``<path>.clears``,
which stay, and the file of keys. It must be on a local disk.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

from coatcheck.clock import SystemClock
from coatcheck.errors import ForkedCache, StoreFailed, StoreInUse
from coatcheck.stores.key_provider import KeyProvider, ring_of
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.seal import Seal
from coatcheck.stores.sqlite.calls import Call, deliver
from coatcheck.stores.sqlite.dates import Dates
from coatcheck.stores.sqlite.file import StoreFile
from coatcheck.stores.sqlite.inspector import Checked, Inspector, SessionInfo, inspect
from coatcheck.stores.sqlite.operations import Chore, Clear, ClearAll, Delete, Forget, Open, Put
from coatcheck.stores.sqlite.place import real_path
from coatcheck.stores.sqlite.process import no_fork, watch
from coatcheck.stores.sqlite.reader import Reader
from coatcheck.stores.sqlite.writer import Writer

if TYPE_CHECKING:
    import queue
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from coatcheck.clock import Clock
    from coatcheck.engine.store import Owner, Record, StoredSession, StoreSize, Written
    from coatcheck.stores.sqlite.operations import Operation

T = TypeVar("T")

MAX_BYTES: Final = 1024 * 1024 * 1024

END_SECONDS: Final = 5.0
"""How long the end of the process waits for a store that was not closed."""


class SQLiteStore:
    """A `coatcheck.engine.store.Store` in one file, for one process.

    Opened when it is made; to be closed with `aclose()`. A store that is not closed is closed at the end of the process.

    Args:
        path: the file. It and its folder are made, for this user alone, if they are not there.
        keys: what it is sealed with, or a function without parameters that returns it, called once, here; by default
            the keys in the file of the same name that ends in ``.keys``, which is made if it is not there.
        clock: what dates its entries.
        max_bytes: beyond this the sessions opened longest ago are ended.

    Raises:
        StoreInUse: another program, or another store of this one, has the file open.
        StoreFailed: there can be no store there, or it is of a newer version of coatcheck.
        KeysUnusable: the file of keys cannot be used, or a provider brought no keys.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        keys: KeyRing | KeyProvider | None = None,
        clock: Clock | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        self.path = real_path(path)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._dates = Dates(self._clock)
        self._claimed = False
        file = StoreFile(self.path, self._clock)
        try:
            self._ring = KeyRing.at(self.path.with_suffix(".keys")) if keys is None else ring_of(keys)
            if file.released:
                raise ForkedCache(
                    "the process was forked while its keys were asked for; open another store in the child"
                )
            self._threads = _Threads(file, Seal(self._ring), self._dates, max_bytes)
        except BaseException:
            file.release()
            raise
        # A store that is let go of is closed, too; nobody waits for it.
        weakref.finalize(self, self._threads.close).atexit = False

    @property
    def shared(self) -> bool:
        """False: the file is one process's, so what has ended here was ended for want of room or for its age."""
        return False

    def __repr__(self) -> str:
        return f"<SQLiteStore at {self.path}>"

    def claim(self) -> None:
        """Take the store for oneself, as a cache does when it is made: a clear of one cache would not reach another.

        Raises:
            StoreInUse: a cache has it.
        """
        if self._claimed:
            raise StoreInUse(
                "another cache has this store: one store serves one cache; give each a file of its own"
            )
        self._claimed = True

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._threads.closed

    async def open(self, owner: Owner) -> StoredSession:
        """Return the owner's session with all its entries, a new and empty one if there is none."""
        return await self._threads.read(Open(owner))

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        """Store one entry under its resource and arguments, in place of an older one."""
        now = self._dates.now()
        started = now - max(0.0, record.age)
        return await self._threads.write(Put(owner, session, record, started, now + keep_for))

    async def delete(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, *, age: float = 0.0
    ) -> Written:
        """Remove a resource's entry under *arguments*, or all its entries under None."""
        floor = self._dates.now() - max(0.0, age)
        return await self._threads.write(Delete(owner, session, resource, arguments, floor))

    async def forget(self, catalog: str, resource: str, *, age: float = 0.0) -> None:
        """Do for every owner of *catalog* what `delete()` does for all entries of one."""
        floor = self._dates.now() - max(0.0, age)
        await self._threads.write(Forget(catalog, resource, floor))

    async def clear(self, owner: Owner) -> None:
        """End the owner's session. When this returns it is gone from the file and its log."""
        await self._threads.clear(Clear(owner))

    async def clear_all(self, catalog: str) -> None:
        """End every session of a catalog.

        When this returns their rows and salts are gone from the file and its log. What is left of their entries can be
        opened by nobody, and is removed soon.
        """
        await self._threads.clear(ClearAll(catalog))

    async def aclose(self) -> None:
        """Write what is under way, leave the file complete with no log beside it, and release it."""
        await self._threads.aclose()

    async def size(self) -> StoreSize:
        """Return how much is stored; the entries are counted, which takes a moment when there are many."""
        return await self._inspected(Inspector.size)

    async def sessions(self) -> tuple[SessionInfo, ...]:
        """Return every session under a pseudonym, the oldest first."""
        return await self._inspected(lambda inspector: tuple(inspector.sessions()))

    async def check(self) -> Checked:
        """Return whether the file is sound and how many of its entries open.

        While it runs, for as long as it takes to read the whole file once, clears fail, and are repeated by the cache.
        """
        return await self._inspected(Inspector.check)

    async def compact(self) -> tuple[int, int]:
        """Remove what has expired, and give back the room; return the bytes of the file before and after.

        It rewrites the whole file, in memory first. Writes wait meanwhile.
        """
        return await self._threads.chore(self._threads.writer.compact)

    async def _inspected(self, look: Callable[[Inspector], T]) -> T:
        """Return what *look* finds, in a thread and with a connection of its own, so that nobody waits for it."""
        self._threads.check_open()

        def work() -> T:
            with inspect(self.path, keys=self._ring, clock=self._clock) as inspector:
                return look(inspector)

        return await asyncio.to_thread(work)


class _Threads:
    """The two threads of a store, and what leads to them. Outlives the store itself by as long as they need to end."""

    def __init__(self, file: StoreFile, seal: Seal, dates: Dates, max_bytes: int) -> None:
        self.writer = Writer(file, seal, dates, max_bytes)
        self._file = file
        self._reader = Reader(self.writer, seal, dates, file.tombstones)
        # Held while something is put into a queue, so that nothing is put there behind the end.
        self._gate = threading.Lock()
        self._closed = False
        self._forked = False
        self._ended = False
        self._closing: list[Call[None]] = []
        self._reading = threading.Thread(target=self._reader.run, name="coatcheck-store-reader", daemon=True)
        self._writing = threading.Thread(target=self._write, name="coatcheck-store-writer", daemon=True)
        watch(self)
        with no_fork:
            self.writer.database.open()
            self.writer.purge()
            file.opened(self.writer.database.connections())
        self._reading.start()
        self._writing.start()

    def read(self, call: Open) -> asyncio.Future[StoredSession]:
        """Have the reader do something; return its answer to come."""
        self._ask(self._reader.asked, call)
        return call.future

    def write(self, call: Operation[T]) -> asyncio.Future[T]:
        """Have the writer do something; return its answer to come."""
        self._ask(self.writer.asked, call)
        return call.future

    async def clear(self, call: Operation[None]) -> None:
        """Have the writer do something that must not be lost, also if nobody waits for its end."""
        try:
            await self.write(call)
        except asyncio.CancelledError:
            self.writer.abandon(call)
            raise

    def chore(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have the writer do something between its transactions; return its answer to come."""
        call: Call[T] = Call()
        self._ask(self.writer.asked, Chore(work, call))
        return call.future

    @property
    def closed(self) -> bool:
        """Whether calls are refused for good."""
        return self._closed

    def check_open(self) -> None:
        """Return if calls are answered.

        Raises:
            ForkedCache: this is a forked child.
            StoreFailed: the store is closed.
        """
        if self._forked:
            raise ForkedCache("the store was opened before this process was forked; open one in the child")
        if self._closed:
            raise StoreFailed("the store is closed")

    def _ask(self, asked: queue.SimpleQueue[Any], what: object) -> None:
        with self._gate:
            self.check_open()
            asked.put(what)

    async def aclose(self) -> None:
        """Do what was asked, and end."""
        if self._forked:
            return
        call: Call[None] = Call()
        with self._gate:
            if self._ended:
                return
            self._closing.append(call)
        self.close()
        await call.future

    def close(self) -> None:
        """Begin to end; return at once."""
        if self._forked:
            return
        with self._gate:
            if self._closed:
                return
            self._closed = True
            # When the reader has ended it ends the writer: what cannot be answered by one is by the other.
            self._reader.asked.put(None)

    def end(self) -> None:
        """End, and wait for it, but not forever."""
        self.close()
        if not self._forked and self._writing.ident is not None:
            self._writing.join(END_SECONDS)

    def inherited(self) -> list[sqlite3.Connection]:
        """Refuse every call in a forked child."""
        self._forked = True
        # Whoever held it does not exist here.
        self._gate = threading.Lock()
        return self.writer.database.connections()

    def _write(self) -> None:
        try:
            self.writer.run()
        finally:
            self._file.release()
            with self._gate:
                self._ended = True
                waiting, self._closing = self._closing, []
            for call in waiting:
                call.succeed(None)
            deliver(waiting)
