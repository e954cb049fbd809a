"""A SQLite store whose file is locked, full, read-only or damaged: every call fails clearly, and it goes on when it can."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import stat
import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.engine.store import Owner, Written
from coatcheck.errors import ForkedCache, StoreFailed
from coatcheck.stores.seal import Seal
from coatcheck.stores.sqlite import SQLiteStore, inspect
from coatcheck.stores.sqlite import file as file_module
from coatcheck.stores.sqlite import inspector as inspector_module
from coatcheck.stores.sqlite.file import StoreFile
from coatcheck.stores.sqlite.upkeep import upkeep
from coatcheck.testing.store_contract import held
from stores.sqlite_junk import COLUMNS, JUNK, UNTYPED, spoil
from stores.sqlite_rig import ANN, BOB, DAY, KEYS, PATIENCE, Rig, record, tables_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096


@contextlib.contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """Hold the lock that writers need, as another program."""
    with contextlib.closing(sqlite3.connect(rig.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def each_write_fails(store: SQLiteStore, session: bytes, message: str) -> None:
    for call in (
        store.put(ANN, session, record(), keep_for=DAY),
        store.delete(ANN, session, "zones", None),
        store.forget("ipc", "zones"),
        store.clear(ANN),
        store.clear_all("ipc"),
    ):
        with pytest.raises(StoreFailed, match=message):
            await call


async def test_locked_it_fails_and_goes_on_when_the_lock_is_gone(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("old"), keep_for=DAY)
        with locked(rig):
            with pytest.raises(StoreFailed):
                await store.open(BOB)
            # What is there can be read all the same.
            assert {("old", b"")} == set(held(await store.open(ANN)))
            await each_write_fails(store, session.id, "another program has locked")
        session = await store.open(ANN)
        assert {} == held(session)
        assert Written.APPLIED is await store.put(ANN, session.id, record("new"), keep_for=DAY)
        await store.clear(ANN)
        assert {} == held(await store.open(ANN))


@contextlib.contextmanager
def kept_from_everybody(rig: Rig) -> Iterator[None]:
    """Hold the lock that readers need, too."""
    with contextlib.closing(
        sqlite3.connect(rig.path, isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def begun(rig: Rig) -> Iterator[None]:
    store = SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    yield
    store._threads.end()


Opening = Callable[[Rig], contextlib.AbstractContextManager[object]]
OPENINGS: dict[str, Opening] = {
    "store": begun,
    "look": lambda rig: inspect(rig.path),
    "upkeep": lambda rig: upkeep(rig.path, clock=rig.clock),
}


@pytest.mark.parametrize("open_it", OPENINGS.values(), ids=OPENINGS)
async def test_a_lock_that_is_short_is_waited_for_at_the_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, open_it: Opening
) -> None:
    """As that of a backup: it goes as soon as somebody has met it."""
    await stored(rig, users=1)
    held, met = threading.Event(), threading.Event()

    def hold() -> None:
        with kept_from_everybody(rig):
            held.set()
            assert met.wait(PATIENCE)

    connect = sqlite3.connect

    def connect_and_tell(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        if "immutable" not in arguments[0]:
            met.set()
        return connection

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE)
    # Not at all, were it not for the start.
    monkeypatch.setattr(file_module, "BUSY_SECONDS", 0.0)
    monkeypatch.setattr(sqlite3, "connect", connect_and_tell)
    with open_it(rig):
        pass
    holder.join(PATIENCE)


@pytest.mark.parametrize("open_it", OPENINGS.values(), ids=OPENINGS)
async def test_one_that_stays_is_told_with_the_path(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, open_it: Opening
) -> None:
    await stored(rig, users=1)
    for module in (file_module, inspector_module):
        monkeypatch.setattr(module, "OPENING_SECONDS", 0.01)
    told = f"^another program has locked the store at {rig.path}$"
    with kept_from_everybody(rig), pytest.raises(StoreFailed, match=told), open_it(rig):
        pass


async def test_who_has_it_open_is_not_kept_waiting_as_long(rig: Rig) -> None:
    async with rig.open() as store:
        assert [100, 100] == [
            each.execute("PRAGMA busy_timeout").fetchone()[0]
            for each in store._threads.writer.database.connections()
        ]
        await store._threads.chore(store._threads.writer.database.close)
        await store.open(ANN)
        assert [100, 100] == [
            each.execute("PRAGMA busy_timeout").fetchone()[0]
            for each in store._threads.writer.database.connections()
        ]


async def test_a_reader_of_another_program_keeps_a_clear_from_being_durable(rig: Rig) -> None:
    """Until it has gone: what it reads is still in the log."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        with contextlib.closing(sqlite3.connect(rig.path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM entries").fetchall()
            with pytest.raises(StoreFailed, match="another program reads"):
                await store.clear(ANN)
            # It is cleared nevertheless, and says so when it is durable.
            assert session.id != (await store.open(ANN)).id
            other.execute("ROLLBACK")
        await store.clear(ANN)
        assert 0 == rig.path.with_name("sessions.db-wal").stat().st_size


async def test_read_only_it_fails_and_goes_on_when_it_can_be_written(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        writing = tables_of(store).connection
        writing.execute("PRAGMA query_only = ON")
        assert session.id == (await store.open(ANN)).id
        await each_write_fails(store, session.id, "cannot be written")
        writing.execute("PRAGMA query_only = OFF")
        session = await store.open(ANN)
        assert Written.APPLIED is await store.put(ANN, session.id, record(), keep_for=DAY)


async def test_on_a_small_disk_it_stays_within_what_there_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File and log together; once there is no room left not even the end of a session could be written."""
    disk = 3 * 1024 * 1024
    monkeypatch.setattr(StoreFile, "room", lambda file: max(0, disk - sum(file.sizes())))
    used = []
    async with rig.open() as store:
        for number in range(150):
            owner = Owner("ipc", f"user {number}")
            session = await store.open(owner)
            # The last one's are written over and over: that takes no pages, but room in the log.
            for put in range(6 if number < 149 else 600):
                mine = record(arguments=b"%d" % (put % 6), body=os.urandom(4_000))
                assert Written.APPLIED is await store.put(owner, session.id, mine, keep_for=DAY)
                used.append(sum(store._threads._file.sizes()))
            await rig.clock.advance(1.0)
        assert 6 == len((await store.open(owner)).records)
        assert 0 == len((await store.open(Owner("ipc", "user 0"))).records)
        await store.clear(owner)
    assert 1024 * 1024 < max(used) < disk


@pytest.mark.parametrize(("sessions", "kept"), [(1, 1), (50, 50), (1_000, 700)])
async def test_on_a_crowded_disk_it_does_not_give_up_all_it_has(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, sessions: int, kept: int
) -> None:
    """What others fill is not to be had back by ending ever more sessions."""
    async with rig.open() as store:
        for number in range(sessions):
            owner = Owner("ipc", f"user {number}")
            session = await store.open(owner)
            await store.put(owner, session.id, record(body=b"x" * 3_000), keep_for=DAY)
            await rig.clock.advance(1.0)
        monkeypatch.setattr(StoreFile, "room", lambda _file: 900_000)
        for _ in range(100):
            assert Written.APPLIED is await store.put(owner, session.id, record(body=b"y"), keep_for=DAY)
        assert kept <= (await store.size()).sessions


async def test_full_it_makes_room_by_ending_who_came_longest_ago(rig: Rig) -> None:
    async with rig.open() as store:
        ids = {}
        for number in range(20):
            owner = Owner("ipc", f"user {number}")
            ids[owner] = (await store.open(owner)).id
            await store.put(owner, ids[owner], record(body=b"x" * 20_000), keep_for=DAY)
            await rig.clock.advance(1.0)
        full(store)
        last = Owner("ipc", "user 19")
        for number in range(10):
            mine = record(arguments=b"%d" % number, body=b"x" * 20_000)
            assert Written.APPLIED is await store.put(last, ids[last], mine, keep_for=DAY)
        assert 11 == len(held(await store.open(last)))
        assert {} == held(await store.open(Owner("ipc", "user 0")))
        assert () == (await store.check()).problems


async def test_full_beyond_help_it_fails_and_goes_on_when_there_is_room(rig: Rig) -> None:
    async with rig.open() as store:
        bob = await store.open(BOB)
        await store.put(BOB, bob.id, record(body=b"x" * 50_000), keep_for=DAY)
        await rig.clock.advance(1.0)
        session = await store.open(ANN)
        full(store)
        with pytest.raises(StoreFailed, match="no room"):
            await store.put(ANN, session.id, record(body=b"x" * 5_000_000), keep_for=DAY)
        full(store, pages=1_000_000)
        assert Written.APPLIED is await store.put(
            ANN, session.id, record(body=b"x" * 5_000_000), keep_for=DAY
        )


async def test_an_entry_that_is_too_large_fails_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coatcheck.stores.envelope.MAX_BYTES", 10_000)
    async with rig.open() as store:
        session = await store.open(ANN)
        results = await asyncio.gather(
            *(
                store.put(
                    ANN,
                    session.id,
                    record(arguments=b"%d" % number, body=b"x" * number * 5_000),
                    keep_for=DAY,
                )
                for number in range(4)
            ),
            return_exceptions=True,
        )
        assert [Written.APPLIED] * 2 == results[:2]
        assert [StoreFailed] * 2 == [type(each) for each in results[2:]]
        assert 2 == len(held(await store.open(ANN)))


def full(store: SQLiteStore, pages: int = 1) -> None:
    """Let the file have no more pages than it has, or so many."""
    tables_of(store).connection.execute(f"PRAGMA max_page_count = {pages}")


# -- damage ---------------------------------------------------------------------------------------------------------


async def stored(rig: Rig, users: int = 200) -> None:
    async with rig.open() as store:
        for number in range(users):
            owner = Owner("ipc", f"user {number}")
            session = await store.open(owner)
            await store.put(owner, session.id, record(body=b"x" * 500), keep_for=DAY)
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)


def header(rig: Rig) -> None:
    rig.overwrite((0, b"not a database!!" * 8))


def first_page(rig: Rig) -> None:
    rig.overwrite((100, os.urandom(PAGE - 100)))


def every_page(rig: Rig) -> None:
    rig.overwrite(*((page * PAGE, b"\xff" * 64) for page in range(1, rig.path.stat().st_size // PAGE)))


def cut(rig: Rig) -> None:
    os.truncate(rig.path, PAGE * 2 + 100)


@pytest.mark.parametrize("damage", [header, first_page, every_page, cut])
async def test_a_damaged_file_is_moved_aside_at_the_start(
    rig: Rig, caplog: pytest.LogCaptureFixture, damage: Callable[[Rig], None]
) -> None:
    """Or when the damage is met; with one loud line, and nothing of it is served."""
    await stored(rig)
    damage(rig)
    before = rig.path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="coatcheck"):
        async with rig.open() as store:
            await until_replaced(rig, store)
            session = await store.open(ANN)
            assert {} == held(session)
            assert Written.APPLIED is await store.put(ANN, session.id, record(), keep_for=DAY)
            assert () == (await store.check()).problems
    [line] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert str(rig.path) in line.getMessage()
    # What became of the file says it once.
    assert "file is damaged" not in line.getMessage()
    assert "canary" not in caplog.text
    moved = [each for each in rig.aside() if not each.name.endswith(("-wal", "-shm"))]
    assert 1 == len(moved)
    assert before[:PAGE] == moved[0].read_bytes()[:PAGE]
    assert {0o600} == {stat.S_IMODE(each.stat().st_mode) for each in rig.aside()}
    async with rig.open() as store:
        assert {("zones", b"")} == set(held(await store.open(ANN)))


@pytest.mark.parametrize("damage", [every_page, cut])
async def test_a_file_damaged_while_it_is_open_is_moved_aside(
    rig: Rig, caplog: pytest.LogCaptureFixture, damage: Callable[[Rig], None]
) -> None:
    await stored(rig)
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("log"), keep_for=DAY)
        damage(rig)
        forget_pages(store)
        await until_replaced(rig, store)
        assert 1 == len([each for each in caplog.records if each.levelno >= logging.ERROR])
        again = await store.open(ANN)
        assert again.id != session.id
        assert {} == held(again)
        assert Written.ENDED is await store.put(ANN, session.id, record(), keep_for=DAY)
        assert Written.APPLIED is await store.put(ANN, again.id, record(), keep_for=DAY)
        # What was moved aside is complete, and still private.
        assert rig.aside()
        assert {0o600} == {stat.S_IMODE(each.stat().st_mode) for each in rig.aside()}


async def test_with_a_damaged_file_goes_what_lies_beside_it(rig: Rig) -> None:
    """Another program that reads it keeps its log from being emptied; an old log must never be beside a new file."""
    await stored(rig)
    async with rig.open() as store:
        session = await store.open(ANN)
        with contextlib.closing(sqlite3.connect(rig.path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM meta").fetchall()
            await rig.clock.advance(1.0)
            await store.put(ANN, session.id, record("log"), keep_for=DAY)
            [(sealed, _)] = rig.sql("SELECT sealed, max(started) FROM entries")
            every_page(rig)
            forget_pages(store)
            await until_replaced(rig, store)
            # The names go on with a date.
            moved = {each.name.partition("Z")[2]: each for each in rig.aside()}
            assert {"", "-wal", "-shm"} == set(moved)
            assert sealed in moved["-wal"].read_bytes()
            again = await store.open(ANN)
            assert again.id != session.id
            assert {} == held(again)
            assert Written.APPLIED is await store.put(ANN, again.id, record(), keep_for=DAY)
        assert () == (await store.check()).problems
    async with rig.open() as store:
        assert {("zones", b""): b"[1]"} == held(await store.open(ANN))


async def until_replaced(rig: Rig, store: SQLiteStore) -> None:
    """Use a store until it has met the damage and begun anew; on the way it may fail, and brings no value."""
    for number in range(400):
        if rig.aside():
            return
        owner = Owner("ipc", f"user {number % 200}")
        with contextlib.suppress(StoreFailed):
            session = await store.open(owner)
            assert all(each.body == b"x" * 500 for each in session.records)
            await store.put(owner, session.id, record("new"), keep_for=DAY)
        await replaced(store)
    raise AssertionError("the damage was never met")


async def replaced(store: SQLiteStore) -> None:
    """Return when the writer has replaced a file of which the reader has just told it that it is damaged."""
    await store._threads.chore(lambda: None)


def forget_pages(store: SQLiteStore) -> None:
    """Let both connections read the file anew."""
    for connection in store._threads.writer.database.connections():
        connection.execute("PRAGMA shrink_memory")


async def test_it_does_not_move_file_after_file(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """At most one a minute, also from start to start."""
    await stored(rig, users=1)
    header(rig)
    async with rig.open():
        pass
    assert 1 == len(rig.aside())
    header(rig)
    for _ in range(3):
        with pytest.raises(
            StoreFailed, match=f"^the store at {rig.path} is damaged again, .* check the disk"
        ):
            SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    assert 1 == len(rig.aside())
    await rig.clock.advance(61.0)
    async with rig.open() as store:
        await store.open(ANN)
    assert 2 == len(rig.aside())
    assert 2 == len([each for each in caplog.records if each.levelno >= logging.ERROR])


async def test_a_file_damaged_again_at_once_fails_every_call_until_it_may_be_moved(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    await stored(rig)
    header(rig)
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        await store.compact()
        every_page(rig)
        forget_pages(store)
        for _ in range(20):
            with pytest.raises(StoreFailed):
                await store.put(ANN, session.id, record(body=b"x" * 100_000), keep_for=DAY)
        assert 1 == len(rig.aside())
        await rig.clock.advance(61.0)
        with contextlib.suppress(StoreFailed):
            await store.put(ANN, session.id, record(), keep_for=DAY)
        session = await store.open(ANN)
        assert Written.APPLIED is await store.put(ANN, session.id, record(), keep_for=DAY)
        assert 2 == len(rig.aside())
    assert 4 >= len([each for each in caplog.records if each.levelno >= logging.ERROR])


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 20_000, b"", os.urandom(100_000)], ids=["ones", "nothing", "noise"]
)
async def test_a_log_of_garbage_is_ignored(rig: Rig, garbage: bytes) -> None:
    await stored(rig, users=1)
    rig.path.with_name("sessions.db-wal").write_bytes(garbage)
    async with rig.open() as store:
        assert {("zones", b"")} == set(held(await store.open(ANN)))
        assert () == (await store.check()).problems
    assert [] == rig.aside()


async def test_a_log_that_ends_in_garbage_brings_what_was_whole(rig: Rig) -> None:
    """As after a power cut: transactions come back whole or not at all."""
    store = SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    session = await store.open(ANN)
    await store.put(ANN, session.id, record("first"), keep_for=DAY)
    await store.put(ANN, session.id, record("second"), keep_for=DAY)
    taken = rig.copy(rig.path.parent / "copy")
    await store.aclose()
    file, log = (taken.path.with_name(f"sessions.db{suffix}") for suffix in ("", "-wal"))
    whole, before = log.read_bytes(), file.read_bytes()
    seen = set()
    for length in range(len(whole), 0, -PAGE // 2):
        file.write_bytes(before)
        log.write_bytes(whole[:length] + b"\xaa" * 100)
        async with taken.open() as store:
            found = held(await store.open(ANN))
            assert () == (await store.check()).problems
        assert all(body == b"[1]" for body in found.values())
        seen.add(tuple(sorted(resource for resource, _ in found)))
    assert {("first", "second"), ("first",), ()} == seen
    assert [] == taken.aside()


async def test_a_file_that_vanishes_or_is_emptied_harms_nobody_for_long(rig: Rig) -> None:
    await stored(rig, users=1)
    async with rig.open() as store:
        await store.open(ANN)
        os.truncate(rig.path, 0)
        forget_pages(store)
        for _ in range(5):
            with contextlib.suppress(StoreFailed):
                session = await store.open(ANN)
                await store.put(ANN, session.id, record("after"), keep_for=DAY)
            await replaced(store)
        assert {("after", b"")} == set(held(await store.open(ANN)))


async def test_looking_into_a_damaged_file_says_so(rig: Rig) -> None:
    await stored(rig)
    every_page(rig)
    with inspect(rig.path, keys=KEYS) as inspector:
        assert inspector.check().problems
    header(rig)
    with pytest.raises(StoreFailed, match="damaged"), inspect(rig.path):
        pass


# -- rows that somebody changed -------------------------------------------------------------------------------------


async def test_entries_of_two_users_exchanged_are_rejected_and_deleted(rig: Rig) -> None:
    async with rig.open() as store:
        ids = {}
        for owner in (ANN, BOB):
            ids[owner] = (await store.open(owner)).id
            await store.put(owner, ids[owner], record(body=owner.user.encode()), keep_for=DAY)
            await store.put(owner, ids[owner], record("own", body=owner.user.encode()), keep_for=DAY)
        first, second = rig.sql("SELECT session, sealed, name FROM entries GROUP BY session ORDER BY session")
        rig.sql("UPDATE entries SET sealed = ? WHERE session = ? AND name = ?", second[1], first[0], first[2])
        rig.sql(
            "UPDATE entries SET sealed = ? WHERE session = ? AND name = ?", first[1], second[0], second[2]
        )
        for owner in (ANN, BOB):
            session = await store.open(owner)
            assert 1 == session.rejected
            assert [owner.user.encode()] == [each.body for each in session.records]
            again = await store.open(owner)
            assert (0, 1) == (again.rejected, len(again.records))
        assert 2 == rig.sql("SELECT count(*) FROM entries")[0][0]


async def test_whole_sessions_exchanged_bring_nobody_another_s(rig: Rig) -> None:
    async with rig.open() as store:
        for owner in (ANN, BOB):
            session = await store.open(owner)
            await store.put(owner, session.id, record(body=owner.user.encode()), keep_for=DAY)
        (first, mine), (second, theirs) = rig.sql("SELECT session, owner FROM sessions")
        rig.sql("UPDATE sessions SET owner = zeroblob(32) WHERE session = ?", first)
        rig.sql("UPDATE sessions SET owner = ? WHERE session = ?", mine, second)
        rig.sql("UPDATE sessions SET owner = ? WHERE session = ?", theirs, first)
        for owner in (ANN, BOB):
            session = await store.open(owner)
            assert () == session.records
            assert Written.APPLIED is await store.put(owner, session.id, record(), keep_for=DAY)
            assert {("zones", b""): b"[1]"} == held(await store.open(owner))


CHANGES = {
    "a bit of the blob": "UPDATE entries SET sealed = CAST(substr(sealed, 1, 40) || x'00' || substr(sealed, 42) AS BLOB)",
    "a short blob": "UPDATE entries SET sealed = x'01'",
    "a long blob": "UPDATE entries SET sealed = CAST(sealed || x'00' AS BLOB)",
    "an unknown version": "UPDATE entries SET sealed = CAST(x'FE' || substr(sealed, 2) AS BLOB)",
    "an unknown key": "UPDATE entries SET sealed = CAST(substr(sealed, 1, 1) || x'00000000' || substr(sealed, 6) AS BLOB)",
    "its date": "UPDATE entries SET started = started - 0.001",
    "its kind": "UPDATE entries SET kind = zeroblob(32)",
    "its name": "UPDATE entries SET name = zeroblob(32)",
    "a short name": "UPDATE entries SET name = x''",
    "the salt": "UPDATE salts SET salt = zeroblob(32)",
    "the id": "UPDATE sessions SET id = zeroblob(16)",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_row_that_was_changed_is_rejected_and_deleted(rig: Rig, change: str) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        rig.sql(change)
        back = await store.open(ANN)
        assert ((), 1) == (back.records, back.rejected)
        again = await store.open(ANN)
        assert ((), 0) == (again.records, again.rejected)
        assert 0 == rig.sql("SELECT count(*) FROM entries")[0][0]
        assert Written.APPLIED is await store.put(ANN, again.id, record(), keep_for=DAY)


@pytest.mark.parametrize("column", ["name", "kind", "started", "sealed"])
async def test_a_row_changed_at_any_byte_is_rejected_and_deleted(rig: Rig, column: str) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        [(content,)] = rig.sql(f"SELECT {column} FROM entries")
        whole = struct.pack(">d", content) if column == "started" else content
        for place in range(len(whole)):
            changed = bytearray(whole)
            # Down, where it can be: what is dated far ahead is not even looked at.
            changed[place] = changed[place] - 1 if changed[place] else 1
            rig.sql(
                f"UPDATE entries SET {column} = ?",
                struct.unpack(">d", changed)[0] if column == "started" else bytes(changed),
            )
            back = await store.open(ANN)
            assert ((), 1) == (back.records, back.rejected), place
            assert [] == rig.sql("SELECT * FROM entries")
            await store.put(ANN, session.id, record(), keep_for=DAY)
            [(content,)] = rig.sql(f"SELECT {column} FROM entries")
        assert {("zones", b""): b"[1]"} == held(await store.open(ANN))


ROWS = {
    "a short salt": "UPDATE salts SET salt = x'00'",
    "no salt": "DELETE FROM salts",
    "a short id": "UPDATE sessions SET id = x'00'",
    "an unknown key": "UPDATE sessions SET key = 'ffffffff'",
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS.keys())
async def test_a_session_whose_row_is_damaged_is_begun_anew(rig: Rig, change: str) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        rig.sql(change)
        back = await store.open(ANN)
        assert back.id != session.id
        assert ((), 1) == (back.records, back.rejected)
        assert Written.APPLIED is await store.put(ANN, back.id, record(), keep_for=DAY)
        assert {("zones", b""): b"[1]"} == held(await store.open(ANN))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_child_forked_while_another_thread_asks_is_not_stuck(rig: Rig) -> None:
    async with rig.open() as store:
        with store._threads._gate:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(10)
                try:
                    asyncio.run(store.open(ANN))
                except ForkedCache:
                    os._exit(0)
                finally:
                    os._exit(1)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 - it ends at once


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("column", COLUMNS)
async def test_whatever_a_damaged_file_holds_the_store_goes_on(rig: Rig, column: str, junk: str) -> None:
    """What does not belong there is no value: at worst everything is lost, and what is written then is kept."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
    spoil(rig, column, junk)
    async with rig.open() as store:
        back = await store.open(ANN)
        assert all(each == record() for each in back.records)
        assert await store.put(ANN, back.id, record("hosts"), keep_for=DAY) is Written.APPLIED
        assert ("hosts", b"") in held(await store.open(ANN))
        await store.clear(ANN)
        assert (await store.open(ANN)).records == ()
        await store.compact()


async def test_a_session_that_is_not_dated_is_begun_anew(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
    spoil(rig, "sessions.opened", "NULL")
    async with rig.open() as store:
        back = await store.open(ANN)
        assert back.id != session.id
        assert back.id == (await store.open(ANN)).id


@pytest.mark.parametrize(
    "change", ["DELETE FROM meta", "UPDATE meta SET high_water = 'now'", "UPDATE meta SET era = NULL"]
)
async def test_a_file_that_does_not_tell_the_date_is_moved_aside(rig: Rig, change: str) -> None:
    async with rig.open() as store:
        await store.open(ANN)
    rig.script(UNTYPED)
    rig.sql(change)
    async with rig.open() as store:
        assert 0 == (await store.size()).sessions
        await store.open(ANN)


async def test_a_text_that_is_none_is_its_owners_trouble_alone(rig: Rig) -> None:
    """A type does not say that a text can be read as one; who reads beside it must not fail for that."""
    async with rig.open() as store:
        for owner in (ANN, BOB):
            session = await store.open(owner)
            await store.put(owner, session.id, record(), keep_for=DAY)
    number = rig.sql("SELECT min(session) FROM sessions")[0][0]
    rig.sql("UPDATE sessions SET key = CAST(x'ff' AS TEXT) WHERE session = ?", number)
    async with rig.open() as store:
        found = await asyncio.gather(store.open(ANN), store.open(BOB))
        assert sorted((len(each.records), each.rejected) for each in found) == [(0, 1), (1, 0)]


async def test_a_chore_that_ends_in_whatever_is_answered_and_so_is_what_waits_behind_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)

        def restart() -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(store._threads.writer._sweep, "restart", restart)
            compacted, written = await asyncio.gather(
                store.compact(), store.put(ANN, session.id, record(), keep_for=DAY), return_exceptions=True
            )
        assert isinstance(compacted, StoreFailed)
        assert "MemoryError" in str(compacted)
        assert written is Written.APPLIED
        assert "MemoryError" in caplog.text
        await store.compact()


async def test_a_reader_that_meets_whatever_fails_who_waits_and_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig.open() as store:
        for owner in (ANN, BOB):
            session = await store.open(owner)
            await store.put(owner, session.id, record(), keep_for=DAY)

        def opener(*_: object) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(Seal, "opener", opener)
            for each in await asyncio.gather(store.open(ANN), store.open(BOB), return_exceptions=True):
                assert isinstance(each, StoreFailed)
                assert "MemoryError" in str(each)
        assert (await store.open(ANN)).records == (await store.open(BOB)).records == (record(),)


async def test_rejected_entries_are_deleted_as_soon_as_they_can_be(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        await store.put(ANN, session.id, record("good"), keep_for=DAY)
        rig.sql("UPDATE entries SET sealed = zeroblob(100) WHERE name = (SELECT min(name) FROM entries)")
        for lock, rejected in ((locked(rig), 1), (contextlib.nullcontext(), 1), (locked(rig), 0)):
            with lock:
                back = await store.open(ANN)
                assert (rejected, 1) == (back.rejected, len(back.records))
