"""Forks beside a store that is at work: SQLite has locks for the whole process, which a child must not inherit held."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from engine.threads import in_child, meet, result, spawn, spawn_loop

from coatcheck.errors import ForkedCache
from coatcheck.stores.sqlite import SQLiteStore, process
from coatcheck.stores.sqlite.file import StoreFile
from coatcheck.stores.sqlite.inspector import inspect
from coatcheck.stores.sqlite.process import NoFork, no_fork
from stores.sqlite_rig import ANN, DAY, eventually, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from coatcheck.stores.key_ring import KeyRing
    from stores.sqlite_rig import Rig

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

FORKS = 150


def use_sqlite() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")


def test_children_forked_while_the_store_is_at_work_may_use_sqlite(rig: Rig) -> None:
    """Without waiting for the store's threads about one child in thirty is stuck."""
    over = threading.Event()

    async def write() -> None:
        async with rig.open() as store:
            session = await store.open(ANN)
            while not over.is_set():
                await asyncio.gather(
                    *(store.put(ANN, session.id, record(f"r{n}"), keep_for=DAY) for n in range(200)),
                    store.open(ANN),
                )

    writing = spawn_loop(write)
    try:
        for _ in range(FORKS):
            assert 0 == in_child(use_sqlite)
    finally:
        over.set()
        result(writing)


def test_nothing_uses_sqlite_while_the_process_is_forked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who opens a store, nor who looks into one from whatever thread."""
    uses: list[bool] = []

    class Seen(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            uses.append(no_fork._inside > 0)
            return super().execute(*args)

        def close(self) -> None:
            uses.append(no_fork._inside > 0)
            super().close()

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        uses.append(no_fork._inside > 0)
        return connects(*args, factory=Seen, **options)

    async def use() -> None:
        async with rig.open() as store:
            session = await store.open(ANN)
            await store.put(ANN, session.id, record("plan"), keep_for=DAY)
            await store.clear(ANN)
            await store.compact()

    asyncio.run(use())
    connects = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    asyncio.run(use())
    with inspect(rig.path, keys=rig.keys) as inspector:
        inspector.check()
        assert list(inspector.sessions()) == []
        inspector.size()
    assert len(uses) > 0
    assert all(uses)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> NoFork:
    monkeypatch.setattr(process, "FORK_SECONDS", 60.0)
    return NoFork()


def test_a_fork_waits_for_who_is_in(gate: NoFork) -> None:
    inside, leave, left = threading.Event(), threading.Event(), []

    def work() -> None:
        with gate:
            inside.set()
            meet(leave)
            left.append(1)

    def fork() -> list[int]:
        gate.before()
        seen = list(left)
        gate.in_parent()
        return seen

    working = spawn(work)
    meet(inside)
    forking = spawn(fork)
    eventually(lambda: gate._forks == 1)
    leave.set()
    assert [1] == result(forking)
    result(working)


def test_nobody_enters_while_a_fork_waits(gate: NoFork) -> None:
    """Or threads that take turns would keep it from ever being alone."""
    inside, leave, entered = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with gate:
            inside.set()
            meet(leave)

    def enter() -> None:
        with gate:
            entered.set()

    def fork() -> bool:
        gate.before()
        seen = entered.is_set()
        gate.in_parent()
        return seen

    working = spawn(work)
    meet(inside)
    forking = spawn(fork)
    eventually(lambda: gate._forks == 1)
    entering = spawn(enter)
    leave.set()
    assert not result(forking)
    for each in (working, entering):
        result(each)
    assert entered.is_set()


def test_a_fork_does_not_wait_for_ever_and_its_child_is_let_in(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is stuck keeps who is in it from leaving."""
    monkeypatch.setattr(process, "FORK_SECONDS", 0.0)
    leave, inside = threading.Event(), threading.Event()

    def work() -> None:
        with no_fork:
            inside.set()
            meet(leave)

    def child() -> None:
        with no_fork:
            use_sqlite()

    async def use() -> None:
        async with rig.open() as store:
            working = spawn(work)
            meet(inside)
            assert 0 == in_child(child)
            leave.set()
            result(working)
            await store.open(ANN)

    asyncio.run(use())


def test_a_signal_that_interrupts_a_fork_keeps_nobody_out(gate: NoFork) -> None:
    """A handler may raise while a fork waits: Python goes on with the fork all the same."""
    held, leave = threading.Event(), threading.Event()
    main = threading.get_ident()

    def hold() -> None:
        with gate._changed:
            held.set()
            meet(leave)

    def raises(*_: object) -> None:
        leave.set()
        raise InterruptedError

    holding = spawn(hold)
    meet(held)
    with handled(raises):
        signal_soon(lambda: sys._current_frames()[main].f_code is NoFork.before.__code__)
        with pytest.raises(InterruptedError):
            gate.before()
    result(holding)
    gate.in_parent()

    def enter() -> bool:
        with gate:
            return True

    assert result(spawn(enter))


def test_a_child_that_a_signal_forked_while_a_fork_waited_goes_on(gate: NoFork) -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gate:
            inside.set()
            meet(leave)

    def forks(*_: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process, "FORK_SECONDS", 0.0)
            gate.before()
        gate.in_child()

    working = spawn(work)
    meet(inside)
    with handled(forks):
        signal_soon(lambda: gate._forks == 1 and released(gate))
        gate.before()
    gate.in_parent()
    with gate:
        assert gate._inside == 1
    leave.set()
    result(working)


def test_a_child_of_who_is_in_counts_nobody(gate: NoFork) -> None:
    with gate:
        gate.in_child()
    with gate:
        assert gate._inside == 1
    assert gate._inside == 0


def test_a_child_of_who_brings_the_keys_neither_opens_nor_keeps_the_file(rig: Rig) -> None:
    end, over = os.pipe()
    children: list[int] = []

    def keys() -> KeyRing:
        children.append(os.fork())
        if 0 in children:
            # It must not wait longer than its parent does.
            os.close(over)
        return rig.keys

    try:
        store = SQLiteStore(rig.path, keys=keys, clock=rig.clock)
    except ForkedCache:
        # Lives on until the parent has opened the file once more.
        os.read(end, 1)
        os._exit(0)
    finally:
        if 0 in children:
            os._exit(1)
    try:
        asyncio.run(store.aclose())
        asyncio.run(use_once(rig))
    finally:
        for each in (end, over):
            os.close(each)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])


def test_a_file_that_was_closed_can_be_opened_whoever_was_forked_meanwhile(rig: Rig) -> None:
    """A child has what its parent had open until it has begun."""
    kept: list[int] = []

    async def use() -> None:
        async with rig.open():
            # As a child has it that has not begun yet.
            [file] = [each for each in process._open if isinstance(each, StoreFile) and not each.released]
            assert file._lock is not None
            kept.append(os.dup(file._lock))

    asyncio.run(use())
    asyncio.run(use_once(rig))
    os.close(kept[0])


async def use_once(rig: Rig) -> None:
    async with rig.open():
        pass


@contextlib.contextmanager
def handled(handler: Callable[..., None]) -> Iterator[None]:
    former = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, former)


def released(gate: NoFork) -> bool:
    """Tell whether its lock can be had."""
    if not gate._changed.acquire(blocking=False):
        return False
    gate._changed.release()
    return True


def signal_soon(check: Callable[[], bool]) -> None:
    """Send a signal to this thread, from another one, once something holds."""
    main = threading.get_ident()

    def send() -> None:
        eventually(check)
        signal.pthread_kill(main, signal.SIGUSR1)

    spawn(send)


def test_who_is_in_may_fork_and_enter_again(gate: NoFork) -> None:
    """Its own fork is not waited for, and its second entry waits for nobody's."""

    def fork() -> None:
        gate.before()
        gate.in_parent()

    with gate:
        gate.before()
        gate.in_parent()
        forking = spawn(fork)
        eventually(lambda: gate._forks == 1)
        with gate:
            pass
        assert not forking.done()
    result(forking)
