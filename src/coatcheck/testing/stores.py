"""Stores for tests: one that keeps everything in memory, and one that fails, hangs or dawdles when told to."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

from coatcheck.clock import SystemClock
from coatcheck.engine.store import Record, StoredSession, StoreSize, Written
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coatcheck.clock import Clock
    from coatcheck.engine.store import Owner, Store

T = TypeVar("T")

OPERATIONS: Final = ("open", "put", "delete", "forget", "clear", "clear_all", "aclose")

# Dates closer than this count as equal.
TOLERANCE: Final = 1e-5


class _Kept:
    """One entry of a `MemoryStore`."""

    __slots__ = ("body", "expires", "started")

    def __init__(self, body: bytes, started: float, expires: float) -> None:
        self.body = body
        self.started = started
        self.expires = expires


class _Session:
    """One session of a `MemoryStore`. A floor under None is that of all keys of its resource."""

    __slots__ = ("entries", "floors", "id")

    def __init__(self) -> None:
        self.id = os.urandom(16)
        self.entries: dict[tuple[str, bytes], _Kept] = {}
        self.floors: dict[tuple[str, bytes | None], float] = {}


class MemoryStore:
    """A store that keeps everything in memory, plain, for as long as the object lives.

    It obeys the contract to the letter and is shared by as many caches as a test makes of it; what a real store does
    for safety and in bulk, it does not.

    Args:
        clock: what dates its entries.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._sessions: dict[Owner, _Session] = {}
        # What was forgotten of every owner of a catalog.
        self._floors: dict[tuple[str, str], float] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self._sessions)} sessions>"

    async def open(self, owner: Owner) -> StoredSession:
        """Return the owner's session."""
        now = self._now()
        session = self._sessions.setdefault(owner, _Session())
        return StoredSession(
            session.id,
            tuple(
                Record(resource, arguments, kept.body, max(0.0, now - kept.started))
                for (resource, arguments), kept in session.entries.items()
                if kept.expires > now
            ),
        )

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        """Store one entry."""
        now = self._now()
        held = self._sessions.get(owner)
        if held is None or held.id != session:
            return Written.ENDED
        started = now - max(0.0, record.age)
        key = (record.resource, record.arguments)
        there = held.entries.get(key)
        floors = (
            there.started if there is not None else None,
            held.floors.get(key),
            held.floors.get((record.resource, None)),
        )
        if any(floor is not None and started < floor - TOLERANCE for floor in floors):
            return Written.OVERTAKEN
        forgotten = self._floors.get((owner.catalog, record.resource))
        if forgotten is not None and started <= forgotten + TOLERANCE:
            return Written.OVERTAKEN
        held.entries[key] = _Kept(record.body, started, now + keep_for)
        return Written.APPLIED

    async def delete(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, *, age: float = 0.0
    ) -> Written:
        """Remove an entry, or all of a resource."""
        floor = self._now() - max(0.0, age)
        held = self._sessions.get(owner)
        if held is None or held.id != session:
            return Written.ENDED
        key = (resource, arguments)
        held.floors[key] = max(floor, held.floors.get(key, floor))
        _drop(held, resource, arguments, floor)
        return Written.APPLIED

    async def forget(self, catalog: str, resource: str, *, age: float = 0.0) -> None:
        """Remove a resource's entries of every owner."""
        floor = self._now() - max(0.0, age)
        key = (catalog, resource)
        self._floors[key] = max(floor, self._floors.get(key, floor))
        for owner, held in self._sessions.items():
            if owner.catalog == catalog:
                _drop(held, resource, None, floor)

    async def clear(self, owner: Owner) -> None:
        """End the owner's session."""
        self._now()
        self._sessions.pop(owner, None)

    async def clear_all(self, catalog: str) -> None:
        """End all sessions of a catalog."""
        self._now()
        for owner in [owner for owner in self._sessions if owner.catalog == catalog]:
            del self._sessions[owner]

    async def aclose(self) -> None:
        """Refuse what comes after."""
        self._closed = True

    async def size(self) -> StoreSize:
        """Return how much is held."""
        self._now()
        kept = [kept for session in self._sessions.values() for kept in session.entries.values()]
        return StoreSize(
            sessions=len(self._sessions), entries=len(kept), bytes=sum(len(each.body) for each in kept)
        )

    def _now(self) -> float:
        if self._closed:
            raise StoreFailed("the store is closed")
        return self._clock.monotonic()


def _drop(session: _Session, resource: str, arguments: bytes | None, floor: float) -> None:
    """Remove the entries of a resource, or the one under *arguments*, whose loads began by *floor*."""
    for key, kept in list(session.entries.items()):
        meant = key[0] == resource and (arguments is None or key[1] == arguments)
        if meant and kept.started <= floor + TOLERANCE:
            del session.entries[key]


class Fault(Enum):
    """What a `FaultyStore` does instead of answering."""

    FAILS = "fails"
    """Raises `StoreFailed` and does nothing."""
    APPLIES_THEN_FAILS = "applies_then_fails"
    """Does what was asked and raises `StoreFailed` all the same."""
    HANGS = "hangs"
    """Waits for `release()`, then does what was asked."""
    APPLIES_THEN_HANGS = "applies_then_hangs"
    """Does what was asked and waits for `release()` before it says so."""


class FaultyStore:
    """A store around another that misbehaves when told to, operation by operation.

    ::

        store = FaultyStore(MemoryStore(clock=clock), clock=clock)
        store.fault(Fault.FAILS, "put")
        store.slow(0.3, "open")
        store.heal()

    Args:
        store: what answers as long as nothing is wrong.
        clock: what `slow()` sleeps by.

    Attributes:
        calls: how often each operation was asked for.
        hanging: how many wait for `release()` now.
    """

    def __init__(self, store: Store, *, clock: Clock | None = None) -> None:
        self._store = store
        self._clock: Clock = SystemClock() if clock is None else clock
        self._faults: dict[str, Fault] = {}
        self._delays: dict[str, float] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self.calls: Counter[str] = Counter()

    def __repr__(self) -> str:
        faults = ", ".join(f"{operation} {fault.value}" for operation, fault in self._faults.items())
        return f"<FaultyStore: {faults or 'no fault'}>"

    @property
    def hanging(self) -> int:
        """How many operations wait to be released."""
        return len(self._waiting)

    def fault(self, fault: Fault, *operations: str) -> None:
        """Let *operations* misbehave from now on; all but `aclose` when none is named."""
        for operation in self._named(operations):
            self._faults[operation] = fault

    def slow(self, seconds: float, *operations: str) -> None:
        """Let *operations* sleep for so long before they begin; all but `aclose` when none is named."""
        for operation in self._named(operations):
            self._delays[operation] = seconds

    def heal(self, *operations: str) -> None:
        """End the faults and delays of *operations*, of all when none is named. What hangs goes on hanging."""
        for operation in operations or OPERATIONS:
            self._faults.pop(operation, None)
            self._delays.pop(operation, None)

    def release(self) -> None:
        """Let everything go on that hangs now. To be called on the loop it hangs on."""
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(None)

    async def open(self, owner: Owner) -> StoredSession:
        """Return the owner's session, or misbehave."""
        return await self._run("open", lambda: self._store.open(owner))

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        """Store one entry, or misbehave."""
        return await self._run("put", lambda: self._store.put(owner, session, record, keep_for=keep_for))

    async def delete(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, *, age: float = 0.0
    ) -> Written:
        """Remove an entry, or all of a resource, or misbehave."""
        return await self._run(
            "delete", lambda: self._store.delete(owner, session, resource, arguments, age=age)
        )

    async def forget(self, catalog: str, resource: str, *, age: float = 0.0) -> None:
        """Remove a resource's entries of every owner, or misbehave."""
        await self._run("forget", lambda: self._store.forget(catalog, resource, age=age))

    async def clear(self, owner: Owner) -> None:
        """End the owner's session, or misbehave."""
        await self._run("clear", lambda: self._store.clear(owner))

    async def clear_all(self, catalog: str) -> None:
        """End all sessions of a catalog, or misbehave."""
        await self._run("clear_all", lambda: self._store.clear_all(catalog))

    async def aclose(self) -> None:
        """Close the store within, or misbehave."""
        await self._run("aclose", self._store.aclose)

    def _named(self, operations: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(operations).difference(OPERATIONS)
        if unknown:
            raise ValueError(f"a store has no operation {', '.join(sorted(unknown))}")
        return operations or OPERATIONS[:-1]

    async def _run(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        self.calls[operation] += 1
        delay, fault = self._delays.get(operation), self._faults.get(operation)
        if delay is not None:
            await self._clock.sleep(delay)
        if fault is Fault.FAILS:
            raise StoreFailed("this store was told to fail")
        if fault is Fault.HANGS:
            await self._hang()
        answer = await work()
        if fault is Fault.APPLIES_THEN_HANGS:
            await self._hang()
        if fault is Fault.APPLIES_THEN_FAILS:
            raise StoreFailed("this store was told to fail")
        return answer

    async def _hang(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)
