"""What does the SQLite store add to SQLite itself: sealing, session ids, floors, and answers to an event loop?

Both are opened anew before users come back, each once, as after a restart: nothing is known of anybody yet, and the keys of
each session are derived. Reads wait for no disk: they are measured in processor time, of all threads, so that what else the
machine does is not counted; and on one processor, because whether two threads that take turns share one decides half of
what that costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import random
import sqlite3
import sys
import tempfile
import threading
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

from benchmarks.report import Goal, Report, answer
from coatcheck.engine.store import Owner, Record
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

RESOURCES = tuple(f"resource_{number}" for number in range(6))
BODY = random.Random(1).randbytes(500)
# What sealing adds: version, key, nonce, tag, and the envelope's head and names.
SEALED_BYTES = len(BODY) + 70
KEEP = 7 * 86_400.0
GROUP = 256
READ = Goal(1.5)
WRITE = Goal(0.6, least=True)
START = Goal(1.5)
LAG = Goal(5.0, on_value=True)


class Raw:
    """SQLite as one would use it by hand: a thread that reads, a thread that commits what waits as a group."""

    def __init__(self, path: Path) -> None:
        self._writing = self._connect(path)
        self._writing.execute(
            "CREATE TABLE IF NOT EXISTS entries (session INTEGER, name BLOB, started REAL, body BLOB, PRIMARY KEY (session, name))"
            " WITHOUT ROWID"
        )
        self._reading = self._connect(path)
        self._reads: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._writes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._write)]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "cache_size = -8000",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    async def select(self, session: int) -> list[Any]:
        """Return a session's rows."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        self._reads.put((loop, future, session))
        return await future

    async def put(self, row: tuple[Any, ...]) -> None:
        """Write a row."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._writes.put((loop, future, row))
        await future

    def close(self) -> None:
        """End both threads."""
        self._reads.put(None)
        self._writes.put(None)
        for thread in self._threads:
            thread.join()
        self._reading.close()
        self._writing.close()

    def _read(self) -> None:
        while (asked := self._reads.get()) is not None:
            loop, future, session = asked
            rows = self._reading.execute(
                "SELECT name, started, body FROM entries WHERE session = ?", (session,)
            ).fetchall()
            loop.call_soon_threadsafe(answer_all, [(future, rows)])

    def _write(self) -> None:
        execute = self._writing.execute
        asked = self._writes.get()
        while asked is not None:
            group = [asked]
            asked = None
            with contextlib.suppress(queue.Empty):
                while len(group) < GROUP and (asked := self._writes.get_nowait()) is not None:
                    group.append(asked)
                    asked = None
            execute("BEGIN IMMEDIATE")
            self._writing.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", [row for _, _, row in group]
            )
            execute("COMMIT")
            group[0][0].call_soon_threadsafe(answer_all, [(future, None) for _, future, _ in group])
            asked = self._writes.get()


def answer_all(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    """Answer who waits, on their loop."""
    for future, result in answers:
        if not future.done():
            future.set_result(result)


async def measure(quick: bool) -> Report:
    """Users come back one after the other; 100 tasks write; a store of many sessions is opened."""
    report = Report(
        "sqlite: what does the SQLite store add to SQLite itself?",
        "the same rows, plain, by one thread that reads and one that commits what waits as a group",
    )
    users, stored = (20, 200) if quick else (2_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        keys = KeyRing.drawn()

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[tuple[Raw, SQLiteStore]]:
            raw, store = Raw(Path(folder) / "raw.db"), SQLiteStore(Path(folder) / "store.db", keys=keys)
            try:
                yield raw, store
            finally:
                raw.close()
                await store.aclose()

        async with opened() as (raw, store):
            ids, names = await filled(raw, store, users)
        async with opened() as (raw, store):
            sides = RawSide(raw, names), StoreSide(store, ids)
            with on_one_processor():
                await reads(report, *sides, users, quick)
            await writes(report, *sides, users, quick)
        await starts(report, Path(folder), stored, quick)
    return report


class RawSide:
    """The floor."""

    def __init__(self, raw: Raw, names: list[bytes]) -> None:
        self._raw = raw
        self._names = names
        self._body = os.urandom(SEALED_BYTES)

    async def bring(self, user: int) -> None:
        """Bring a session back."""
        assert len(await self._raw.select(user)) == len(RESOURCES)

    async def put(self, user: int, number: int) -> None:
        """Write one entry."""
        await self._raw.put((user, self._names[number], perf_counter(), self._body))


class StoreSide:
    """The store."""

    def __init__(self, store: SQLiteStore, ids: dict[int, bytes]) -> None:
        self._store = store
        self._ids = ids

    async def bring(self, user: int) -> None:
        """Bring a session back."""
        assert len((await self._store.open(owner(user))).records) == len(RESOURCES)

    async def come_and_go(self, task: int, number: int, users: int) -> None:
        """Be somebody who brings sessions back, and a user who logs out time and again."""
        draw = random.Random(task)
        for _ in range(number):
            await self.bring(draw.randrange(users))
            leaving = Owner("ipc", f"leaving-{task}")
            session = await self._store.open(leaving)
            await self._store.put(leaving, session.id, Record(RESOURCES[0], b"", BODY, 0.0), keep_for=KEEP)
            await self._store.clear(leaving)

    async def put(self, user: int, number: int) -> None:
        """Write one entry."""
        await self._store.put(
            owner(user), self._ids[user], Record(RESOURCES[number], b"", BODY, 0.0), keep_for=KEEP
        )


def owner(user: int) -> Owner:
    return Owner("ipc", f"user-{user}@example.com")


async def filled(raw: Raw, store: SQLiteStore, users: int) -> tuple[dict[int, bytes], list[bytes]]:
    """Write all entries of all users on both sides; return the sessions' ids and the entries' names there."""
    ids: dict[int, bytes] = {}
    for first in range(0, users, 500):
        some = range(first, min(users, first + 500))
        sessions = await asyncio.gather(*(store.open(owner(user)) for user in some))
        ids.update(zip(some, (session.id for session in sessions), strict=True))
    names = [os.urandom(32) for _ in RESOURCES]
    for side in (RawSide(raw, names), StoreSide(store, ids)):
        for number in range(len(RESOURCES)):
            await asyncio.gather(*(side.put(user, number) for user in range(users)))
    return ids, names


async def reads(report: Report, raw: RawSide, store: StoreSide, users: int, quick: bool) -> None:
    """Users come back, each once."""
    number, rounds = (2, 3) if quick else (40, 23)
    shuffled = random.Random(2).sample(range(users), users)
    left = {side: iter(shuffled) for side in (raw, store)}

    async def batch(side: RawSide | StoreSide) -> float:
        order = list(islice(left[side], number))
        began = process_time()
        for user in order:
            await side.bring(user)
        return (process_time() - began) / number * 1e6

    async def crowd(side: RawSide | StoreSide) -> float:
        order = list(islice(left[side], number))
        began = process_time()
        await asyncio.gather(*(side.bring(user) for user in order))
        return (process_time() - began) / number * 1e6

    for name, work in (("one after the other", batch), ("many at once", crowd)):
        floors, ours = await turns(lambda work=work: work(raw), lambda work=work: work(store), rounds)  # type: ignore[misc]
        report.add(f"floor, {name}", median(floors), "us", floor=median(floors))
        report.add(
            f"coatcheck session of {len(RESOURCES)} entries, {name}", median(ours), "us", floor=median(floors),
            ratio=median(mine / floor for mine, floor in zip(ours, floors, strict=True)), goal=READ,
        )  # fmt: skip


@contextlib.contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep all threads of this process on one processor, where the system can be told so."""
    if sys.platform != "linux":
        yield
        return
    allowed = os.sched_getaffinity(0)
    threads = [thread.native_id for thread in threading.enumerate() if thread.native_id is not None]
    for thread in threads:
        os.sched_setaffinity(thread, {min(allowed)})
    try:
        yield
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, allowed)


async def writes(report: Report, raw: RawSide, store: StoreSide, users: int, quick: bool) -> None:
    """100 tasks write, each its next when the last is done; beside them somebody watches the loop.

    And once more while users come back and others are cleared.
    """
    tasks, each, rounds = (10, 5, 3) if quick else (100, 20, 31)
    lags: dict[str, list[float]] = {"raw": [], "store": []}

    async def batch(side: RawSide | StoreSide, lag: list[float]) -> float:
        watching = asyncio.create_task(watch(lag))
        began = perf_counter()
        await asyncio.gather(*(writer(side, task, each, users) for task in range(tasks)))
        took = perf_counter() - began
        # The last sample is one, too: it may be the latest.
        await asyncio.sleep(0.002)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        return tasks * each / took

    floors, ours = await turns(lambda: batch(raw, lags["raw"]), lambda: batch(store, lags["store"]), rounds)
    report.add(f"floor, puts of {tasks} tasks", median(floors), "puts/s", floor=median(floors))
    report.add(
        f"coatcheck puts of {tasks} tasks", median(ours), "puts/s", floor=median(floors),
        ratio=median(mine / floor for mine, floor in zip(ours, floors, strict=True)), goal=WRITE,
    )  # fmt: skip
    floor, mine = percentile(lags["raw"]), percentile(lags["store"])
    report.add("floor, lag of the loop meanwhile, 99 %", floor, "ms", floor=floor)
    report.add("coatcheck lag of the loop meanwhile, 99 %", mine, "ms", floor=floor, goal=LAG)
    mixed: list[float] = []
    for _ in range(rounds):
        others = [asyncio.create_task(store.come_and_go(task, each, users)) for task in range(tasks // 10)]
        await batch(store, mixed)
        await asyncio.gather(*others)
    report.add(
        "coatcheck lag with sessions opened and cleared beside it, 99 %",
        percentile(mixed), "ms", floor=floor, goal=LAG,
    )  # fmt: skip


async def writer(side: RawSide | StoreSide, task: int, number: int, users: int) -> None:
    """Be one of the tasks."""
    draw = random.Random(task)
    for _ in range(number):
        await side.put(draw.randrange(users), draw.randrange(len(RESOURCES)))


async def watch(lag: list[float]) -> None:
    """Note by how much the loop is late, in milliseconds."""
    while True:
        due = perf_counter() + 0.002
        await asyncio.sleep(0.002)
        lag.append((perf_counter() - due) * 1e3)


async def starts(report: Report, folder: Path, stored: int, quick: bool) -> None:
    """A store is opened and brings one user back: one that holds many, and one that holds nobody else."""
    keys = KeyRing.drawn()
    for name, number in (("few.db", 1), ("many.db", stored)):
        store = SQLiteStore(folder / name, keys=keys)
        for first in range(0, number, 500):
            some = [owner(user) for user in range(first, min(number, first + 500))]
            sessions = await asyncio.gather(*(store.open(each) for each in some))
            await asyncio.gather(
                *(
                    store.put(each, session.id, Record(RESOURCES[0], b"", BODY, 0.0), keep_for=KEEP)
                    for each, session in zip(some, sessions, strict=True)
                )
            )
        await store.aclose()

    async def start(name: str) -> float:
        began = perf_counter()
        store = SQLiteStore(folder / name, keys=keys)
        assert len((await store.open(owner(0))).records) == 1
        took = perf_counter() - began
        await store.aclose()
        return took * 1e3

    few, many = await turns(lambda: start("few.db"), lambda: start("many.db"), 3 if quick else 25)
    report.add("floor, start of a store of one session", median(few), "ms", floor=median(few))
    report.add(
        f"coatcheck start of a store of {stored:,} sessions",
        median(many),
        "ms",
        floor=median(few),
        goal=START,
    )


async def turns(
    floor: Callable[[], Awaitable[float]], ours: Callable[[], Awaitable[float]], rounds: int
) -> tuple[list[float], list[float]]:
    """Let both take turns; return what each measured, round by round."""
    floors, mine = [], []
    await floor()
    await ours()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            floors.append(await floor())
            mine.append(await ours())
    finally:
        gc.enable()
    return floors, mine


def percentile(values: list[float]) -> float:
    """Return the value that one in a hundred is above; a run that is too short to tell has the least there is."""
    return max(0.001, sorted(values)[int(len(values) * 0.99)]) if values else 0.001


if __name__ == "__main__":
    answer(measure)
