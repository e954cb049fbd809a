"""Stores beneath the caches of tests: a real one that takes no time as far as the loop can tell, and lasting ones."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from coatcheck.testing.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from coatcheck.engine.store import Owner, Record, Store, StoredSession, Written

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a store that does not answer fails the test instead of hanging it."""


class LoopThread:
    """An event loop in a thread of its own, for whatever must not run on the loop of a test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="stores beneath tests", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* there and return its result, blocking whoever calls."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def end(self) -> None:
        """Stop the loop, and wait for it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


class Blocking:
    """A store whose every operation ends within the turn of the loop in which it was begun.

    The engine's tests count turns and move time by hand: to them a store with threads of its own is one that hangs for
    a random while. Blocked meanwhile, they see what it does, and not how long it takes.

    Args:
        store: what does it.
        thread: where.

    Attributes:
        shared: False, as of a file: a session that it has swept, when its time was over, stays in memory.
    """

    shared = False

    def __init__(self, store: Store, thread: LoopThread) -> None:
        self._store = store
        self._thread = thread

    def __repr__(self) -> str:
        return f"<Blocking: {self._store!r}>"

    async def open(self, owner: Owner) -> StoredSession:
        return self._thread.run(self._store.open(owner))

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        return self._thread.run(self._store.put(owner, session, record, keep_for=keep_for))

    async def delete(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, *, age: float = 0.0
    ) -> Written:
        return self._thread.run(self._store.delete(owner, session, resource, arguments, age=age))

    async def forget(self, catalog: str, resource: str, *, age: float = 0.0) -> None:
        self._thread.run(self._store.forget(catalog, resource, age=age))

    async def clear(self, owner: Owner) -> None:
        self._thread.run(self._store.clear(owner))

    async def clear_all(self, catalog: str) -> None:
        self._thread.run(self._store.clear_all(catalog))

    async def aclose(self) -> None:
        self._thread.run(self._store.aclose())


class Disk(MemoryStore):
    """A store in memory that outlives the caches on it."""

    async def aclose(self) -> None:
        pass


class DiskFile(Blocking):
    """A store in a file that outlives the caches on it. Several stand for nodes: one may clear what another holds."""

    shared = True

    async def aclose(self) -> None:
        pass

    def end(self) -> None:
        """Close it."""
        self._thread.run(self._store.aclose())
