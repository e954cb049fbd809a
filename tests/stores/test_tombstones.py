"""A clear that a SQLite store cannot apply is noted beside the file: what it was to end is not served again, whatever comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coatcheck.engine.store import Owner, StoredSession, Written
from coatcheck.errors import StoreFailed
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite import tombstones as module
from coatcheck.stores.sqlite.operations import Clear
from coatcheck.stores.sqlite.tombstones import EVERYONE, SLOTS, Grave, Tombstones
from coatcheck.stores.sqlite.upkeep import Upkeep, upkeep
from coatcheck.testing import settle
from coatcheck.testing.store_contract import held
from stores.sqlite_rig import ANN, BOB, DAY, KEYS, Rig, eventually, record
from stores.test_sqlite_faults import locked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EVE = Owner("other", ANN.user)
DIGEST = bytes(range(32))


async def stored(store: SQLiteStore, owner: Owner = ANN) -> StoredSession:
    """Return a session with something in it."""
    session = await store.open(owner)
    await store.put(owner, session.id, record(), keep_for=DAY)
    return await store.open(owner)


async def not_cleared(rig: Rig, clear: Callable[[SQLiteStore], Awaitable[None]]) -> None:
    """Store something of everybody, and let a clear fail until the store is closed."""
    async with rig.open() as store:
        for owner in (ANN, BOB, EVE):
            assert held(await stored(store, owner))
        with locked(rig):
            with pytest.raises(StoreFailed):
                await clear(store)
            await store.aclose()


async def test_one_that_failed_is_applied_at_the_next_start(rig: Rig) -> None:
    await not_cleared(rig, lambda store: store.clear(ANN))
    async with rig.open() as store:
        assert {} == held(await store.open(ANN))
        assert held(await store.open(BOB))
        assert held(await store.open(EVE))
        assert 2 == (await store.size()).entries


async def test_that_it_is_noted_is_said_at_the_end(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with rig.open() as store:
        await stored(store)
    assert "" == caplog.text
    await not_cleared(rig, lambda store: store.clear(ANN))
    (told,) = (each.getMessage() for each in caplog.records if "clears" in each.getMessage())
    assert told.endswith(f"are noted in {rig.path}.clears: they are applied when it is opened next")


async def test_that_it_could_not_be_noted_is_said_too(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tombstones, "_write", lambda *_, **__: False)
    await not_cleared(rig, lambda store: store.clear(ANN))
    assert f"nor noted in {rig.path}.clears: delete both" in caplog.text


async def test_so_is_one_of_everybody(rig: Rig) -> None:
    await not_cleared(rig, lambda store: store.clear_all("ipc"))
    async with rig.open() as store:
        assert {} == held(await store.open(ANN)) == held(await store.open(BOB))
        assert held(await store.open(EVE))


@pytest.mark.parametrize("everybody", [False, True])
async def test_until_it_is_nothing_is_served(rig: Rig, everybody: bool) -> None:
    """Not in this process, nor in the next, should that not be able to apply it either."""
    async with rig.open() as store:
        old = await stored(store)
        assert held(await stored(store, EVE))
        with locked(rig):
            with pytest.raises(StoreFailed):
                await (store.clear_all("ipc") if everybody else store.clear(ANN))
            with pytest.raises(StoreFailed):
                await store.open(ANN)
            await store.aclose()
            async with rig.open() as again:
                with pytest.raises(StoreFailed):
                    await again.open(ANN)
                assert held(await again.open(EVE))
    async with rig.open() as store:
        session = await store.open(ANN)
        assert ({}, False) == (held(session), session.id == old.id)


@pytest.mark.parametrize("chore", [Upkeep.compact, lambda each: each.clear([])])
async def test_who_works_on_a_closed_file_applies_it(rig: Rig, chore: Callable[[Upkeep], object]) -> None:
    await not_cleared(rig, lambda store: store.clear(ANN))
    with upkeep(rig.path, clock=rig.clock) as file:
        chore(file)
    assert [(2,)] == rig.sql("SELECT count(*) FROM sessions")
    assert () == opened(Path(f"{rig.path}.clears")).pending()


async def test_whose_it_is_need_not_be_anybody(rig: Rig) -> None:
    """Who cannot own a session is answered like the others, and so are they."""
    async with rig.open() as store:
        await stored(store)
        with locked(rig):
            ended = await asyncio.gather(
                *(store.clear(owner) for owner in (Owner("ipc", "\ud800"), ANN)), return_exceptions=True
            )
            assert [True, True] == [isinstance(each, StoreFailed) for each in ended]
        assert {} == held(await store.open(ANN))


@pytest.mark.parametrize("everybody", [False, True])
async def test_one_that_nobody_waits_for_any_more_is_noted(rig: Rig, everybody: bool) -> None:
    """It was told that it is not durable: should the process end before the writer comes to it, it must not be lost."""
    async with rig.open() as store:
        await stored(store)
        release = threading.Event()
        busy = asyncio.ensure_future(store._threads.chore(release.wait))
        clearing = asyncio.ensure_future(store.clear_all("ipc") if everybody else store.clear(ANN))
        await settle()
        clearing.cancel()
        await settle()
        assert clearing.cancelled()
        (tmp := rig.path.parent / "as if killed").mkdir()
        copy = rig.copy(tmp / "now")
        shutil.copy(f"{rig.path}.clears", f"{copy.path}.clears")
        release.set()
        await busy
        # Here it is applied, and ends nothing that comes after it.
        assert {} == held(await store.open(ANN))
        assert held(await stored(store))
    async with rig.open() as store:
        assert held(await store.open(ANN))
    async with copy.open() as killed:
        assert {} == held(await killed.open(ANN))


async def test_one_that_was_applied_is_not_noted_when_its_caller_leaves(rig: Rig) -> None:
    async with rig.open() as store:
        await stored(store)
        call = Clear(ANN)
        await store._threads.write(call)
        assert held(await stored(store))
        store._threads.writer.abandon(call)
        assert held(await store.open(ANN))


async def test_a_session_that_follows_it_lives_on(rig: Rig) -> None:
    """It begins in the transaction that ends the one before."""
    async with rig.open() as store:
        await stored(store)
        with locked(rig), pytest.raises(StoreFailed):
            await store.clear_all("ipc")
        session = await store.open(ANN)
        assert Written.APPLIED is await store.put(ANN, session.id, record(), keep_for=DAY)
        assert () == store._threads._file.tombstones.pending()
        assert session.id == (await store.open(ANN)).id


async def test_a_clear_does_not_wait_behind_every_session_that_was_opened(rig: Rig) -> None:
    """Each is marked as opened again, and under a lock each mark would wait for it by itself."""
    async with rig.open() as store:
        for number in range(30):
            await stored(store, Owner("ipc", f"user {number}"))
        await rig.clock.advance(2 * 3_600.0)
        release = threading.Event()
        busy = asyncio.ensure_future(store._threads.chore(release.wait))
        for number in range(30):
            assert held(await store.open(Owner("ipc", f"user {number}")))
        assert 1 >= store._threads.writer.asked.qsize()
        release.set()
        await busy


async def test_it_is_applied_when_it_can_be_though_nobody_asks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coatcheck.stores.sqlite.writer.IDLE_SECONDS", 0.01)
    monkeypatch.setattr("coatcheck.stores.sqlite.writer.REST_SECONDS", 0.01)
    async with rig.open() as store:
        await stored(store)
        with locked(rig), pytest.raises(StoreFailed):
            await store.clear(ANN)
        eventually(lambda: rig.sql("SELECT count(*) FROM sessions") == [(0,)])


async def test_one_that_is_repeated_leaves_nothing_noted(rig: Rig) -> None:
    """What is stored after it was applied is there after the next start."""
    async with rig.open() as store:
        await stored(store)
        with locked(rig):
            for _ in range(3):
                with pytest.raises(StoreFailed):
                    await store.clear(ANN)
        await store.clear(ANN)
        assert held(await stored(store))
    async with rig.open() as store:
        assert held(await store.open(ANN))


async def test_it_reaches_a_session_filed_under_an_older_key(rig: Rig) -> None:
    async with rig.open() as store:
        await stored(store)
    newer = KEYS.rotated()
    async with rig.open(keys=newer) as store:
        with locked(rig):
            with pytest.raises(StoreFailed):
                await store.clear(ANN)
            await store.aclose()
    async with rig.open(keys=newer) as store:
        assert {} == held(await store.open(ANN))


async def test_beyond_what_can_be_noted_everybody_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 3)

    async def clear(store: SQLiteStore) -> None:
        for number in range(5):
            with contextlib.suppress(StoreFailed):
                await store.clear(Owner("ipc", f"user {number}"))
        raise StoreFailed

    await not_cleared(rig, clear)
    async with rig.open() as store:
        for owner in (ANN, BOB, EVE):
            assert {} == held(await store.open(owner))


FULL = """
import asyncio, os, resource, sys
from coatcheck.engine.store import Owner, Record
from coatcheck.errors import StoreFailed
from coatcheck.stores.key_ring import KeyRing
from coatcheck.stores.sqlite import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1], keys=KeyRing.from_text(sys.stdin.read()))
    owner = Owner("ipc", sys.argv[2])
    session = await store.open(owner)
    for number in range(10):
        await store.put(owner, session.id, Record("zones", b"%d" % number, b"x" * 40_000, 0.0), keep_for=1e5)
    # No file may grow any more, nor be written beyond this: neither the log nor what it is to be written back to.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        await store.clear(owner)
    except StoreFailed as error:
        print("failed", flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def killed_on_a_full_disk(path: Path) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), ANN.user],
        input=KEYS.text(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr, done.returncode


async def test_a_full_disk_and_a_kill_do_not_bring_it_back(rig: Rig) -> None:
    assert ("failed\n", -9) == killed_on_a_full_disk(rig.path)
    async with rig.open(clock=None) as store:
        assert {} == held(await store.open(ANN))


# -- the file -------------------------------------------------------------------------------------------------------


def opened(path: Path) -> Tombstones:
    stones = Tombstones(path)
    stones.open()
    stones.close()
    return stones


def test_what_is_noted_is_there_again(tmp_path: Path) -> None:
    stones = Tombstones(tmp_path / "clears")
    stones.open()
    noted = [(Grave.OWNER, DIGEST), (Grave.CATALOG, DIGEST), (Grave.OWNER, DIGEST[::-1])]
    assert stones.put_up(noted)
    assert stones.put_up(noted)
    stones.take_down([noted[1], (Grave.CATALOG, DIGEST[::-1])])
    stones.close()

    assert {noted[0], noted[2]} == set(opened(tmp_path / "clears").pending())
    assert "2 tombstones" in repr(stones)


def test_it_takes_no_room_to_note_something(tmp_path: Path) -> None:
    path = tmp_path / "clears"
    stones = Tombstones(path)
    stones.open()
    before = path.stat()
    assert before.st_blocks * 512 >= before.st_size == SLOTS * 64
    assert stones.put_up((Grave.OWNER, number.to_bytes(32)) for number in range(SLOTS - 2))
    assert SLOTS - 2 == len(stones.pending())
    assert EVERYONE not in stones.pending()
    assert stones.put_up([(Grave.OWNER, DIGEST)])
    assert EVERYONE in stones.pending()
    stones.close()

    assert before.st_size == path.stat().st_size
    assert EVERYONE in opened(path).pending()


@pytest.mark.parametrize("content", [b"somebody's notes", bytes(100) + b"1"])
def test_what_is_not_ours_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sessions.db.clears"
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(StoreFailed, match="not a store's"):
        SQLiteStore(tmp_path / "sessions.db", keys=KEYS)
    assert (content, 0o644) == (path.read_bytes(), path.stat().st_mode & 0o777)

    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreFailed, match="list of clears"):
        SQLiteStore(tmp_path / "sessions.db", keys=KEYS)
    assert not (tmp_path / "elsewhere").exists()

    path.unlink()
    path.mkdir()
    with pytest.raises(StoreFailed, match="list of clears"):
        SQLiteStore(tmp_path / "sessions.db", keys=KEYS)


@pytest.mark.parametrize("length", [0, 1, len(module.MARK), 64, 65, 96, 97, 127, 128, 1000])
def test_one_that_was_cut_short_is_made_whole(tmp_path: Path, length: int) -> None:
    path = tmp_path / "clears"
    stones = Tombstones(path)
    stones.open()
    stones.put_up([(Grave.OWNER, DIGEST)])
    stones.close()
    path.write_bytes(path.read_bytes()[:length])

    for _ in range(2):
        assert (length >= 97) is ((Grave.OWNER, DIGEST) in opened(path).pending())
        assert SLOTS * 64 == path.stat().st_size
        assert path.read_bytes().startswith(module.MARK)


@pytest.mark.parametrize("content", [bytes(SLOTS * 64), bytes(64), b"coatcheck cl" + bytes(500)])
def test_one_without_its_mark_gets_it(tmp_path: Path, content: bytes) -> None:
    """As a power cut may leave it: what is noted in it must not keep the next start from taking it for ours."""
    path = tmp_path / "clears"
    path.write_bytes(content)
    stones = Tombstones(path)
    stones.open()
    assert stones.put_up([(Grave.OWNER, DIGEST)])
    stones.close()
    assert ((Grave.OWNER, DIGEST),) == opened(path).pending()


@pytest.mark.parametrize("change", ["cut", "cut to its mark", "removed", "replaced"])
def test_one_that_somebody_changed_meanwhile_is_made_anew(tmp_path: Path, change: str) -> None:
    """With all that was noted before."""
    path = tmp_path / "clears"
    stones = Tombstones(path)
    stones.open()
    stones.put_up([(Grave.OWNER, DIGEST)])
    if change == "removed":
        path.unlink()
    elif change == "replaced":
        (tmp_path / "copy").write_bytes(path.read_bytes())
        (tmp_path / "copy").rename(path)
    else:
        os.truncate(path, 0 if change == "cut" else 64)
    assert stones.put_up([(Grave.CATALOG, DIGEST)])
    stones.close()
    assert {(Grave.OWNER, DIGEST), (Grave.CATALOG, DIGEST)} == set(opened(path).pending())


def test_once_closed_it_leaves_the_file_to_the_next(tmp_path: Path) -> None:
    """Another process may note its own clears there, in the same slots."""
    path = tmp_path / "clears"
    late = opened(path)
    other = Tombstones(path)
    other.open()
    assert other.put_up([(Grave.OWNER, DIGEST)])
    assert not late.put_up([(Grave.OWNER, DIGEST[::-1])])
    other.close()
    assert ((Grave.OWNER, DIGEST),) == opened(path).pending()


def test_what_cannot_be_written_holds_and_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "clears"
    stones = Tombstones(path)
    stones.open()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    noted = [(Grave.OWNER, DIGEST), (Grave.OWNER, DIGEST[::-1])]
    assert not stones.put_up(noted)
    assert set(noted) == set(stones.pending())
    assert not (tmp_path / "elsewhere").exists()

    path.unlink()
    assert stones.put_up([])
    stones.close()
    assert set(noted) == set(opened(path).pending())


def test_what_no_store_writes_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clears"
    opened(path)
    path.write_bytes(module.MARK.ljust(64, b"\0") + b"\x07" * 64 * 20)
    assert () == opened(path).pending()
