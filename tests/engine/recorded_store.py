"""A store beneath a recorded world: what lies on the disk, and the line to it, on which operations go astray."""

from __future__ import annotations

import asyncio
import shutil
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

from coatcheck.engine.store import Record, Written
from coatcheck.errors import StoreFailed
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.testing.stores import MemoryStore
from engine.blocking_store import Blocking, LoopThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from coatcheck.engine.store import Owner, Store, StoredSession
    from coatcheck.stores.key_ring import KeyRing
    from engine.hand_clock import HandClock

T = TypeVar("T")

OPERATIONS = ("open", "put", "delete", "forget", "clear", "clear_all")


class Disk(Protocol):
    """What is left of a node when it has ended.

    Attributes:
        keeps_dates: it notices a wall clock that was set back.
    """

    keeps_dates: bool

    def start(self) -> Store:
        """Return the store that a node finds."""
        ...

    def end(self, *, crash: bool) -> None:
        """Let a node end: in order, or in the middle of whatever it does."""
        ...

    def wipe(self) -> None:
        """Remove it."""
        ...


class WallOnly:
    """A clock for a store that dates by the only clock it has, and is to live on when the machine has started anew."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock.wall()

    def wall(self) -> float:
        return self._clock.wall()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class MemoryDisk:
    """A disk in memory: quick, and the same in every run."""

    keeps_dates = False

    def __init__(self, clock: HandClock) -> None:
        self._store = MemoryStore(clock=WallOnly(clock))

    def start(self) -> Store:
        return self._store

    def end(self, *, crash: bool) -> None:
        pass

    def wipe(self) -> None:
        pass


class FileDisk:
    """A SQLite file, copied as it lies there when the process that has it open is killed.

    Args:
        clock: dates its entries.
        folder: where it may make one.
        ring: seals them.
        thread: where the store's answers arrive.
    """

    keeps_dates = True

    def __init__(self, clock: HandClock, *, folder: Path, ring: KeyRing, thread: LoopThread) -> None:
        self._clock = clock
        self._folder = folder
        self._ring = ring
        self._thread = thread
        self._copies = 0
        self._store: SQLiteStore | None = None

    def start(self) -> Store:
        self._store = SQLiteStore(self._path(), keys=self._ring, clock=self._clock)
        return Blocking(self._store, self._thread)

    def end(self, *, crash: bool) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        former = self._path()
        if crash:
            self._copies += 1
            for suffix in ("", "-wal"):
                found = former.with_name(former.name + suffix)
                if found.exists():
                    shutil.copyfile(found, self._path().with_name(self._path().name + suffix))
        self._thread.run(store.aclose())

    def wipe(self) -> None:
        self.end(crash=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self) -> Path:
        return self._folder / f"copy-{self._copies}.db"


class Astray(Enum):
    """What may become of an operation."""

    FAILS = "fails"
    """It is not done, and says so."""
    APPLIED_AND_FAILS = "applied and fails"
    """It is done, and says that it was not."""
    HANGS = "hangs"
    """It is done when it is let go on, unless nobody waits for it any more."""
    APPLIED_AND_HANGS = "applied and hangs"
    """It is done, and says so when it is let go on."""
    LATE = "late"
    """As HANGS, but it may arrive also when nobody waits for it any more."""


class Line:
    """One node's way to its disk.

    Args:
        store: what lies there.
        clock: tells how late something arrives.
        read_for: how long earlier nodes have read.
        ended: called with a user and a session that a write was told is not theirs any more.

    Attributes:
        hanging: how many operations wait to be let go on.
        calls: what was asked for, in order.
        arrived: how many of those have, or came from elsewhere.
        read_for: how long all readings took, by earlier nodes, too.
        late: operations that nobody waits for any more and that may still arrive.
    """

    def __init__(
        self,
        store: Store,
        clock: HandClock,
        *,
        read_for: float = 0.0,
        ended: Callable[[str, bytes], None] = lambda _user, _session: None,
    ) -> None:
        self._store = store
        self._note_end = ended
        self._clock = clock
        self._faults: dict[str, Astray] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._cut = False
        self.calls: list[str] = []
        self.arrived = 0
        self.read_for = read_for
        self.late: list[Callable[[], Awaitable[object]]] = []

    @property
    def hanging(self) -> int:
        return len(self._waiting)

    @property
    def well(self) -> bool:
        """Whether all that is asked for now is done and answered."""
        return not self._faults and not self._waiting

    def fault(self, how: Astray, *operations: str) -> None:
        for operation in operations or OPERATIONS:
            self._faults[operation] = how

    def heal(self) -> None:
        """Let nothing more go astray, and go on what hangs."""
        self._faults.clear()
        self.release()

    def release(self) -> None:
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(None)

    def cut(self) -> None:
        """Let nothing more through: the node is dead."""
        self._cut = True
        self.late.clear()
        self.release()

    def arrival(self, index: int) -> Callable[[], Awaitable[object]]:
        """Return what lets something arrive late."""
        self.arrived += 1
        return self.late.pop(index % len(self.late))

    async def open(self, owner: Owner) -> StoredSession:
        asked = self._clock.now
        stored = await self._run("open", lambda _: self._store.open(owner))
        self.read_for += self._clock.now - asked
        return stored

    async def put(self, owner: Owner, session: bytes, record: Record, *, keep_for: float) -> Written:
        # An age is that of the moment when it was asked for, however late it arrives.
        written = await self._run(
            "put",
            lambda since: self._store.put(
                owner,
                session,
                Record(record.resource, record.arguments, record.body, record.age + since),
                keep_for=keep_for - since,
            ),
        )
        return self._noted(owner, session, written)

    async def delete(
        self, owner: Owner, session: bytes, resource: str, arguments: bytes | None, *, age: float = 0.0
    ) -> Written:
        written = await self._run(
            "delete",
            lambda since: self._store.delete(owner, session, resource, arguments, age=age + since),
        )
        return self._noted(owner, session, written)

    async def forget(self, catalog: str, resource: str, *, age: float = 0.0) -> None:
        await self._run("forget", lambda since: self._store.forget(catalog, resource, age=age + since))

    async def clear(self, owner: Owner) -> None:
        await self._run("clear", lambda _: self._store.clear(owner))

    async def clear_all(self, catalog: str) -> None:
        await self._run("clear_all", lambda _: self._store.clear_all(catalog))

    async def aclose(self) -> None:
        pass

    async def clear_elsewhere(self, owner: Owner) -> None:
        """End a session in the store, as somebody else may."""
        self.arrived += 1
        await self._store.clear(owner)

    def _noted(self, owner: Owner, session: bytes, written: Written) -> Written:
        if written is Written.ENDED:
            self._note_end(owner.user, session)
        return written

    async def _run(self, operation: str, work: Callable[[float], Awaitable[T]]) -> T:
        self.calls.append(operation)
        asked = self._clock.now
        how = self._faults.get(operation)
        if self._cut or how is Astray.FAILS:
            raise StoreFailed("it went astray")
        if how in {Astray.HANGS, Astray.LATE}:
            try:
                await self._hang()
            except asyncio.CancelledError:
                if how is Astray.LATE and not self._cut:
                    self.late.append(lambda: work(self._clock.now - asked))
                raise
        answer = await work(self._clock.now - asked)
        if how is Astray.APPLIED_AND_HANGS:
            await self._hang()
        if how is Astray.APPLIED_AND_FAILS:
            raise StoreFailed("it went astray")
        return answer

    async def _hang(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
            if self._cut:
                raise StoreFailed("the node is dead")
        finally:
            self._waiting.remove(waiting)
