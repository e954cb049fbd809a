"""The SQLite store: the contract, and what a file adds to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coatcheck.clock import SystemClock
from coatcheck.engine.store import Owner, Written
from coatcheck.errors import ForkedCache, KeysUnusable, StoreFailed, StoreInUse
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore, inspect
from coatcheck.stores.sqlite.schema import STEPS
from coatcheck.testing import FakeClock
from coatcheck.testing.store_contract import DurableStoreContract, held
from stores.sqlite_rig import ANN, BOB, DAY, HOUR, KEYS, Rig, eventually, record

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.engine.store import Store


class TestSQLiteStore(DurableStoreContract):
    @pytest.fixture
    def open_store(self, clock: FakeClock, tmp_path: Path) -> Callable[[], Store]:
        return lambda: SQLiteStore(tmp_path / "sessions.db", keys=KEYS, clock=clock)


# -- the file -------------------------------------------------------------------------------------------------------


async def test_nobody_else_may_read_what_it_makes(tmp_path: Path, fake_clock: FakeClock) -> None:
    old = os.umask(0)
    try:
        store = SQLiteStore(tmp_path / "one" / "two" / "sessions.db", clock=fake_clock)
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=HOUR)
        found = {each.name: mode(each) for each in (tmp_path / "one" / "two").iterdir()}
        await store.aclose()
    finally:
        os.umask(old)

    beside = (".db", ".db-wal", ".db-shm", ".db.lock", ".db.clears", ".keys")
    names = {f"sessions{suffix}" for suffix in beside}
    assert dict.fromkeys(names, 0o600) == found
    assert (0o700, 0o700) == (mode(tmp_path / "one"), mode(tmp_path / "one" / "two"))


async def test_a_file_that_others_may_read_is_made_private(rig: Rig) -> None:
    async with rig.open():
        pass
    rig.path.chmod(0o644)
    async with rig.open() as store:
        await store.open(ANN)
        assert [0o600] * 3 == [mode(Path(f"{rig.path}{suffix}")) for suffix in ("", "-wal", "-shm")]


async def test_closed_it_leaves_one_file_its_lock_and_its_list_of_clears(rig: Rig) -> None:
    async with rig.open() as store:
        await store.open(ANN)
    left = {each.name for each in rig.path.parent.iterdir()}
    assert {"sessions.db", "sessions.db.lock", "sessions.db.clears"} == left


async def test_without_keys_it_makes_a_file_of_keys_and_says_where(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        store = SQLiteStore(tmp_path / "sessions.db")
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(body=b"kept"), keep_for=HOUR)
        await store.aclose()

    keys = tmp_path / "sessions.keys"
    assert 0o600 == mode(keys)
    assert [str(keys)] == [each.args[0].__str__() for each in caplog.records if each.args]  # type: ignore[index]
    async with Rig(tmp_path, FakeClock()).open(keys=KeyRing.read(keys), clock=SystemClock()) as store:
        assert session.id == (await store.open(ANN)).id


def test_keys_that_cannot_be_used_leave_the_file_free(tmp_path: Path) -> None:
    (tmp_path / "sessions.keys").write_text("no key")
    (tmp_path / "sessions.keys").chmod(0o600)
    for _ in range(2):
        with pytest.raises(KeysUnusable):
            SQLiteStore(tmp_path / "sessions.db")


@pytest.mark.parametrize("path", ["file/sessions.db", "folder", "\0"])
def test_a_path_where_no_file_can_be_fails_clearly(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises((StoreFailed, ValueError)):
        SQLiteStore(tmp_path / path, keys=KEYS)


async def test_another_program_s_database_is_left_alone(rig: Rig) -> None:
    rig.sql("CREATE TABLE theirs (x)")
    before = rig.path.read_bytes()
    with pytest.raises(StoreFailed, match="another program"):
        SQLiteStore(rig.path, keys=KEYS)
    assert before == rig.path.read_bytes()
    assert [] == rig.aside()


async def test_a_newer_version_is_refused_by_name(rig: Rig) -> None:
    async with rig.open() as store:
        await store.open(ANN)
    rig.sql(f"PRAGMA user_version = {len(STEPS) + 7}")
    told = f"^the store at {rig.path} was written .* version {len(STEPS) + 7}, .* known here is {len(STEPS)};"
    with pytest.raises(StoreFailed, match=told):
        SQLiteStore(rig.path, keys=KEYS)
    assert [] == rig.aside()
    rig.sql(f"PRAGMA user_version = {len(STEPS)}")
    async with rig.open() as store:
        await store.open(ANN)


# -- one process ----------------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused_and_told_what_to_use(rig: Rig) -> None:
    program = (
        "import sys; from coatcheck.stores.sqlite import SQLiteStore; from coatcheck.stores.key_ring import KeyRing\n"
        "try: SQLiteStore(sys.argv[1], keys=KeyRing.drawn())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "else: print('opened')"
    )

    def attempt() -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, str(rig.path)], capture_output=True, text=True, check=True
        )
        # Its keys are others: what it opens in the end, it empties.
        assert "Traceback" not in done.stderr
        return done.stdout.strip()

    async with rig.open() as store:
        session = await store.open(ANN)
        refused = attempt()
        assert session.id == (await store.open(ANN)).id
    assert refused.startswith("StoreInUse ")
    # Nothing of settings: who makes a store has none.
    assert refused == (
        f"StoreInUse the store at {rig.path} is open in another program, or in another store of this one; one file serves"
        " one process: give each a file of its own. To share sessions between processes takes Redis/Valkey, which this"
        " version cannot use yet"
    )
    # Not closed there: the end of the process does it.
    assert "opened" == attempt()
    assert "opened" == attempt()


async def test_a_second_store_of_the_same_process_is_refused_also_by_another_name(rig: Rig) -> None:
    (rig.path.parent / "link.db").symlink_to(rig.path)
    async with rig.open():
        for path in (rig.path, rig.path.parent / "link.db"):
            with pytest.raises(StoreInUse):
                SQLiteStore(path, keys=KEYS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_is_refused_and_holds_nothing(rig: Rig) -> None:
    store = SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    session = await store.open(ANN)
    said, say = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            code = child_is_refused(store, session.id)
            os.write(say, b"x")
            os.read(told, 1)
        finally:
            os._exit(code)
    os.read(said, 1)
    # The child is still there. The parent goes on, and when it has closed, the lock is free.
    assert Written.APPLIED is await store.put(ANN, session.id, record(), keep_for=HOUR)
    await store.aclose()
    async with rig.open() as again:
        assert {("zones", b""): b"[1]"} == held(await again.open(ANN))
    os.write(tell, b"x")
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 - it ends at once
    for each in (said, say, told, tell):
        os.close(each)


def child_is_refused(store: SQLiteStore, session: bytes) -> int:
    loop = asyncio.new_event_loop()
    asyncio.events._set_running_loop(loop)
    refused = 0
    calls = (
        lambda: store.open(ANN),
        lambda: store.put(ANN, session, record(), keep_for=HOUR),
        lambda: store.delete(ANN, session, "zones", None),
        lambda: store.forget("ipc", "zones"),
        lambda: store.clear(ANN),
        lambda: store.clear_all("ipc"),
        store.size,
        store.sessions,
        store.compact,
    )
    for call in calls:
        try:
            call().send(None)
        except ForkedCache:
            refused += 1
    try:
        store.aclose().send(None)
    except StopIteration:
        refused += 1
    loop.close()
    gc.collect()
    return 0 if refused == len(calls) + 1 else 2


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "raise RuntimeError", "del store; import gc; gc.collect()"]
)
def test_a_store_that_is_not_closed_keeps_no_process_alive(tmp_path: Path, end: str) -> None:
    program = (
        "import asyncio, sys; from coatcheck.stores.sqlite import SQLiteStore\n"
        "from coatcheck.stores.key_ring import KeyRing; from coatcheck.engine.store import Owner, Record\n"
        "store = SQLiteStore(sys.argv[1])\n"
        "async def use():\n"
        "    session = await store.open(Owner('ipc', 'ann'))\n"
        "    for n in range(50):\n"
        "        task = asyncio.ensure_future(store.put(Owner('ipc', 'ann'), session.id, Record('zones', b'%d' % n, b'1', 0.0), keep_for=60))\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(use())\n" + end
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", program, str(tmp_path / "sessions.db")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    expected = {"": 0, "sys.exit(3)": 3, "raise RuntimeError": 1}.get(end, 0)
    assert expected == done.returncode, done.stderr
    stderr = "\n".join(line for line in done.stderr.splitlines() if "made new keys" not in line)
    assert stderr == "" or end == "raise RuntimeError"
    with inspect(tmp_path / "sessions.db") as inspector:
        assert 50 >= inspector.size().entries > 0


async def test_a_store_that_is_let_go_of_closes_itself(rig: Rig) -> None:
    store = SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    await store.open(ANN)
    before = threading.active_count()
    del store
    gc.collect()
    eventually(lambda: threading.active_count() <= before - 2)
    async with rig.open():
        pass


# -- callers --------------------------------------------------------------------------------------------------------


async def test_it_serves_any_loop_and_survives_loops_that_end(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)

        def elsewhere(number: int) -> Written:
            async def work() -> Written:
                assert session.id == (await store.open(ANN)).id
                # Nobody waits for these, and their loop ends.
                leaving = [asyncio.ensure_future(store.open(BOB)) for _ in range(20)]
                mine = record(arguments=b"%d" % number)
                written = await store.put(ANN, session.id, mine, keep_for=HOUR)
                for each in leaving:
                    each.cancel()
                return written

            return asyncio.run(work())

        written = await asyncio.gather(*(asyncio.to_thread(elsewhere, number) for number in range(8)))
        assert [Written.APPLIED] * 8 == written
        assert 8 == len(held(await store.open(ANN)))


async def test_sessions_are_the_same_under_a_new_first_key(rig: Rig) -> None:
    old = KeyRing.drawn()
    async with rig.open(keys=old) as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("old", body=b"old"), keep_for=DAY)
        await store.put(ANN, session.id, record("gone", body=b"old"), keep_for=DAY)
    new = old.rotated()
    async with rig.open(keys=new) as store:
        back = await store.open(ANN)
        assert session.id == back.id
        assert Written.APPLIED is await store.put(ANN, session.id, record("new", body=b"new"), keep_for=DAY)
        await rig.clock.advance(1.0)
        assert Written.APPLIED is await store.delete(ANN, session.id, "gone", b"")
        await store.open(BOB)
        assert {("old", b""): b"old", ("new", b""): b"new"} == held(await store.open(ANN))
        await store.forget("ipc", "old")
        assert {("new", b""): b"new"} == held(await store.open(ANN))
    async with rig.open(keys=new) as store:
        assert {("new", b""): b"new"} == held(await store.open(ANN))
        await store.clear_all("ipc")
        assert 0 == (await store.size()).sessions


async def test_what_other_keys_remove_is_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It may be the wrong file of keys."""
    async with rig.open() as store:
        await store.open(ANN)
        await store.open(BOB)
    async with rig.open(keys=KeyRing.drawn()) as store:
        assert (await store.size()).sessions == 0
    assert f"2 sessions in the store at {rig.path} were begun under keys" in caplog.text
    caplog.clear()
    async with rig.open() as store:
        await store.open(ANN)
    assert "begun" not in caplog.text
    async with rig.open(keys=KeyRing.drawn()):
        pass
    assert f"1 session in the store at {rig.path} was begun under keys" in caplog.text


async def test_what_no_key_opens_any_more_is_gone_for_good(rig: Rig) -> None:
    """No clear could reach it; so it must not come back with its key."""
    old, new = KeyRing.drawn(), KeyRing.drawn()
    async with rig.open(keys=old) as store:
        for number in range(600):
            session = await store.open(Owner("ipc", f"user {number}"))
        await store.put(Owner("ipc", "user 599"), session.id, record(), keep_for=DAY)
    async with rig.open(keys=new) as store:
        assert 0 == (await store.size()).sessions
        await store.clear(Owner("ipc", "user 599"))
    async with rig.open(keys=old) as store:
        assert {} == held(await store.open(Owner("ipc", "user 599")))


# -- tidying --------------------------------------------------------------------------------------------------------


async def test_what_has_had_its_time_is_removed(rig: Rig) -> None:
    async with rig.open() as store:
        ann, bob = await store.open(ANN), await store.open(BOB)
        await store.put(ANN, ann.id, record("short"), keep_for=60.0)
        await store.put(ANN, ann.id, record("long"), keep_for=3 * DAY)
        await store.put(BOB, bob.id, record("short"), keep_for=60.0)
        await store.delete(ANN, ann.id, "gone", b"")
        await store.delete(ANN, ann.id, "gone", None)
        await store.forget("ipc", "zones")

        await rig.clock.advance(HOUR + 61.0)
        await store.compact()
        assert 1 == rig.sql("SELECT count(*) FROM entries")[0][0]
        assert 0 == rig.sql("SELECT count(*) FROM floors")[0][0]
        assert 2 == (await store.size()).sessions

        await rig.clock.advance(DAY)
        await store.compact()
        assert 1 == (await store.size()).sessions
        assert {("long", b"")} == set(held(await store.open(ANN)))
        assert ann.id == (await store.open(ANN)).id
        assert bob.id != (await store.open(BOB)).id


async def test_it_is_removed_in_time_without_being_asked(rig: Rig) -> None:
    async with rig.open() as store:
        sessions = [Owner("ipc", f"user {number}") for number in range(300)]
        for owner in sessions:
            session = await store.open(owner)
            await store.put(owner, session.id, record(), keep_for=60.0)
        await rig.clock.advance(2 * DAY)
        await store.open(sessions[0])
        # Anything that the writer does is followed by an idle moment.
        await store.clear(sessions[0])
        eventually(lambda: rig.sql("SELECT count(*) FROM entries")[0][0] == 0)
        eventually(lambda: rig.sql("SELECT count(*) FROM sessions")[0][0] == 0)
        eventually(lambda: not rig.sql("SELECT 1 FROM salts WHERE taken OR salt <> zeroblob(32)"))


async def test_forgotten_and_cleared_entries_are_removed_soon(rig: Rig) -> None:
    async with rig.open() as store:
        for owner in (ANN, BOB, Owner("other", "carl")):
            session = await store.open(owner)
            for resource in ("zones", "notes"):
                await store.put(owner, session.id, record(resource), keep_for=DAY)
        await rig.clock.advance(1.0)
        await store.forget("ipc", "zones")
        eventually(lambda: rig.sql("SELECT count(*) FROM entries")[0][0] == 4)
        await store.clear_all("ipc")
        eventually(lambda: rig.sql("SELECT count(*) FROM entries")[0][0] == 2)
        assert 1 == (await store.size()).sessions


async def test_beyond_its_bound_those_go_who_came_longest_ago(rig: Rig) -> None:
    bound = 2_000_000
    async with rig.open(max_bytes=bound) as store:
        for number in range(60):
            owner = Owner("ipc", f"user {number}")
            session = await store.open(owner)
            await store.put(owner, session.id, record(body=b"x" * 50_000), keep_for=30 * DAY)
            await rig.clock.advance(2 * HOUR)
            # One who comes back now and then stays.
            assert 1 == len((await store.open(Owner("ipc", "user 0"))).records)
        size = await store.size()
        assert bound * 0.5 <= size.bytes <= bound * 1.2
        assert 0 == len((await store.open(Owner("ipc", "user 1"))).records)
        assert 1 == len((await store.open(Owner("ipc", "user 59"))).records)


# -- looking into it ------------------------------------------------------------------------------------------------


async def test_a_look_into_it_shows_pseudonyms_and_with_keys_who_they_are(rig: Rig) -> None:
    async with rig.open() as store:
        for number, owner in enumerate((ANN, BOB)):
            session = await store.open(owner)
            for each in range(number + 1):
                await store.put(owner, session.id, record(arguments=b"%d" % each, age=5.0), keep_for=DAY)
        await store.delete(BOB, session.id, "notes", b"")
        await rig.clock.advance(10.0)
        listed = await store.sessions()
        size = await store.size()
        with inspect(rig.path, clock=rig.clock) as inspector:
            assert listed == tuple(inspector.sessions())
            assert size == inspector.size()
            with pytest.raises(StoreFailed, match="keys"):
                next(inspector.reveal())
        with inspect(rig.path, keys=KEYS, clock=rig.clock) as inspector:
            revealed = list(inspector.reveal())
        with inspect(rig.path, keys=KeyRing.drawn(), clock=rig.clock) as inspector:
            unknown = list(inspector.reveal())
        checked = await store.check()
    assert [1, 2] == [each.entries for each in listed]
    assert [15.0, 15.0] == pytest.approx([each.newest_age for each in listed])
    assert [10.0, 10.0] == pytest.approx([each.opened_age for each in listed])
    assert all(len(bytes.fromhex(each.owner)) == 8 and each.bytes > 0 for each in listed)
    assert (2, 3) == (size.sessions, size.entries)
    assert size.bytes > 0
    assert [ANN, BOB] == [each.owner for each in revealed]
    assert [each.owner for each in listed] == [each.digest for each in revealed]
    assert [1, 2] == [len(each.records) for each in revealed]
    assert [(None, 0, 1), (None, 0, 2)] == [
        (each.owner, len(each.records), each.rejected) for each in unknown
    ]
    assert "canary" not in repr(revealed)
    assert ((), 2, 3, 0) == (checked.problems, checked.sessions, checked.opened, checked.rejected)


async def test_a_look_works_in_another_process_and_changes_nothing(rig: Rig) -> None:
    program = (
        "import sys; from coatcheck.stores.sqlite import inspect\n"
        "with inspect(sys.argv[1]) as inspector: print(inspector.size().sessions, inspector.check().problems)"
    )

    def look() -> str:
        return subprocess.run(
            [sys.executable, "-c", program, str(rig.path)], capture_output=True, text=True, check=True
        ).stdout.strip()

    async with rig.open() as store:
        await store.open(ANN)
        assert "1 ()" == look()
        await store.open(BOB)
        assert "2 ()" == look()
    before = rig.path.read_bytes()
    assert "2 ()" == look()
    assert before == rig.path.read_bytes()
    async with rig.open() as store:
        assert 2 == (await store.size()).sessions


def test_a_look_at_what_is_no_store_fails_clearly(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x" * 10_000)
    Rig(tmp_path, FakeClock()).sql("CREATE TABLE theirs (x)")
    for name in ("nothing", "text", "sessions.db"):
        with pytest.raises(StoreFailed), inspect(tmp_path / name):
            pass
    assert not (tmp_path / "nothing").exists()


async def test_compacting_gives_back_room(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        other = await store.open(BOB)
        for number in range(50):
            await store.put(
                ANN, session.id, record(arguments=b"%d" % number, body=b"x" * 50_000), keep_for=DAY
            )
        await store.put(BOB, other.id, record(body=b"kept"), keep_for=DAY)
        await store.clear(ANN)
        before, after = await store.compact()
        assert before > 2_000_000
        assert after < 200_000
        assert {("zones", b""): b"kept"} == held(await store.open(BOB))
        assert () == (await store.check()).problems


async def test_nothing_is_logged_in_calm(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="coatcheck"):
        async with rig.open() as store:
            session = await store.open(ANN)
            await store.put(ANN, session.id, record(), keep_for=HOUR)
            await store.clear(ANN)
    assert [] == caplog.records


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
