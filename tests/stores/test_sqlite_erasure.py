"""What lies on the disk: never anything plain, and after a clear nothing of the session."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

from coatcheck.engine.store import Owner, Written
from coatcheck.stores.seal import Seal
from coatcheck.stores.sqlite import SQLiteStore
from stores.sqlite_rig import ANN, BOB, DAY, KEYS, PATIENCE, Rig, eventually, record

SECRET = b"plain canary of a body"


async def test_nothing_plain_ever_reaches_the_disk(rig: Rig) -> None:
    """Neither users nor catalogs, resources, arguments or bodies, in the file, its log or beside it."""
    owner = Owner("canary-catalog", "ann.canary@example.com")
    async with rig.open() as store:
        for _ in range(3):
            session = await store.open(owner)
            await store.put(
                owner, session.id, record("canary_resource", b"canary argument", SECRET), keep_for=DAY
            )
            await store.delete(owner, session.id, "canary_resource", b"canary other")
            await store.delete(owner, session.id, "canary_others", None)
            await store.forget("canary-catalog", "canary_forgotten")
            assert b"canary" not in rig.on_disk()
            await store.clear(owner)
            assert b"canary" not in rig.on_disk()
        await store.compact()
        assert b"canary" not in rig.on_disk()
    assert b"canary" not in rig.on_disk()


@pytest.mark.parametrize("size", [10, 500, 3_000, 100_000])
async def test_after_a_clear_nothing_of_the_session_is_left_on_the_disk(rig: Rig, size: int) -> None:
    """Neither salt nor sealed bytes: in the file, its free pages, or the log."""
    async with rig.open() as store:
        bob = await store.open(BOB)
        await store.put(BOB, bob.id, record(body=b"x" * size), keep_for=DAY)
        session = await store.open(ANN)
        for number in range(10):
            await store.put(
                ANN, session.id, record(arguments=b"%d" % number, body=SECRET + b"y" * size), keep_for=DAY
            )
        marks = marks_of(rig, ANN)
        assert 11 <= len(marks)
        # While the log is written back a page may be looked for where it is not any more, or not yet.
        eventually(lambda: _all_in(marks, rig.on_disk()))

        await store.clear(ANN)

        found = rig.on_disk()
        assert [] == [mark for mark in marks if mark in found]
        assert all(mark in found for mark in marks_of(rig, BOB))
        assert rig.path.with_name("sessions.db-wal").stat().st_size == 0


async def test_after_clearing_all_no_salt_is_left_and_soon_nothing_else(rig: Rig) -> None:
    async with rig.open() as store:
        owners = [Owner("ipc", f"user {number}") for number in range(50)]
        for owner in owners:
            session = await store.open(owner)
            await store.put(owner, session.id, record(body=SECRET * 20), keep_for=DAY)
        salts = [salt for (salt,) in rig.sql("SELECT salt FROM salts")]
        blobs = [sealed[20:60] for (sealed,) in rig.sql("SELECT sealed FROM entries")]
        await store.clear_all("ipc")
        found = rig.on_disk()
        assert not any(salt in found for salt in salts)
        eventually(lambda: not rig.sql("SELECT 1 FROM entries"))
        await store.clear_all("ipc")
        await store.compact()
        found = rig.on_disk()
        assert not any(blob in found for blob in blobs)


async def test_no_salt_outlives_its_session_however_rows_move(rig: Rig) -> None:
    """Pages are split and merged, and what moves may leave a copy behind: a salt must not."""
    draw = random.Random(7)
    async with rig.open() as store:
        ended: list[bytes] = []
        living: dict[Owner, bytes] = {}
        for step in range(12):
            new = [Owner("ipc", f"user {step} {number}") for number in range(150)]
            sessions = await asyncio.gather(*(store.open(owner) for owner in new))
            living.update(zip(new, (session.id for session in sessions), strict=True))
            await asyncio.gather(
                *(
                    store.put(owner, living[owner], record(body=b"x" * draw.randrange(1_500)), keep_for=DAY)
                    for owner in living
                )
            )
            leaving = draw.sample(sorted(living), len(living) * 2 // 3)
            before = {salt for (salt,) in rig.sql("SELECT salt FROM salts WHERE taken")}
            await asyncio.gather(*(store.clear(owner) for owner in leaving))
            after = {salt for (salt,) in rig.sql("SELECT salt FROM salts WHERE taken")}
            assert len(after) == len(living) - len(leaving)
            ended += before - after
            for owner in leaving:
                del living[owner]
        found = rig.on_disk()
        assert len(ended) > 1_000
        assert [] == [salt for salt in ended if salt in found]
        assert () == (await store.check()).problems


async def test_what_a_crash_left_in_the_log_is_gone_soon_after_the_next_start(rig: Rig) -> None:
    """A clear that was under way is done or not; what was cleared is not kept in the log for longer."""
    store = SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    session = await store.open(ANN)
    await store.put(ANN, session.id, record(body=SECRET), keep_for=DAY)
    left = rig.copy(rig.path.parent / "left")
    await store.aclose()
    assert left.path.with_name("sessions.db-wal").stat().st_size > 0
    async with left.open():
        eventually(lambda: left.path.with_name("sessions.db-wal").stat().st_size == 0)


async def test_a_replaced_value_is_gone_with_the_session(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        marks = set()
        for number in range(20):
            mine = record(body=SECRET + b"%d" % number * 400)
            assert Written.APPLIED is await store.put(ANN, session.id, mine, keep_for=DAY)
            marks |= set(marks_of(rig, ANN))
            await rig.clock.advance(1.0)
        await store.clear(ANN)
        found = rig.on_disk()
        assert [] == [mark for mark in marks if mark in found]


async def test_after_a_clear_no_key_of_the_session_is_left_in_memory(rig: Rig) -> None:
    async with rig.open() as store:
        derived = store._threads.writer._seal._derived
        ids = {}
        for owner in (ANN, BOB):
            ids[owner] = (await store.open(owner)).id
            await store.put(owner, ids[owner], record(), keep_for=DAY)
        assert set(ids.values()) == set(derived)
        await store.clear(ANN)
        assert {ids[BOB]} == set(derived)
        await store.clear_all("ipc")
        assert {} == derived


async def test_nor_is_one_that_a_reader_derives_while_the_session_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the salt before; what it derives then it forgets again."""
    has_read, go = threading.Event(), threading.Event()
    opener = Seal.opener

    def late(self: Seal, *asked: Any) -> Any:
        has_read.set()
        go.wait(PATIENCE)
        return opener(self, *asked)

    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        monkeypatch.setattr(Seal, "opener", late)
        opening = asyncio.ensure_future(store.open(ANN))
        await asyncio.to_thread(has_read.wait, PATIENCE)
        await store.clear(ANN)
        go.set()
        assert session.id == (await opening).id
        eventually(lambda: not store._threads.writer._seal._derived)


def _all_in(marks: list[bytes], found: bytes) -> bool:
    return all(mark in found for mark in marks)


def marks_of(rig: Rig, owner: Owner) -> list[bytes]:
    """Return what is recognizable of a session on the disk: its salt, its id, and parts of each blob."""
    [digest] = [each.digest for each in Seal(KEYS).owners(owner)]
    [(number, id_, salt)] = rig.sql(
        "SELECT s.session, s.id, t.salt FROM sessions AS s JOIN salts AS t ON t.slot = s.slot WHERE s.owner = ?",
        digest,
    )
    blobs = [sealed for (sealed,) in rig.sql("SELECT sealed FROM entries WHERE session = ?", number)]
    parts = [blob[start : start + 16] for blob in blobs for start in (17, len(blob) // 2, len(blob) - 16)]
    return [salt, id_, *parts]
