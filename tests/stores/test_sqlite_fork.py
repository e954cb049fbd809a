"""Forks beside a store that is at work: SQLite has locks for the whole process, which a child must not inherit held."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest
from engine.threads import in_child, meet, result, spawn, spawn_loop

from coatcheck.stores.sqlite import process
from coatcheck.stores.sqlite.process import NoFork, no_fork
from stores.sqlite_rig import ANN, DAY, eventually, record

if TYPE_CHECKING:
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
