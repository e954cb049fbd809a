"""A session that is filed under an older key of the ring is found by every operation, as under the first."""

from __future__ import annotations

import pytest

from coatcheck.engine.store import Written
from coatcheck.stores.key_ring import KeyRing
from coatcheck.testing.store_contract import held
from stores.sqlite_rig import ANN, BOB, DAY, Rig, record

KEPT = {("zones", b""): b"[1]", ("zones", b"7"): b"[1]", ("notes", b""): b"[1]"}


@pytest.fixture
async def session(rig: Rig) -> bytes:
    """Return the id of Ann's session, filed under a key that is not the first any more; Bob has one like it."""
    old = KeyRing.drawn()
    async with rig.open(keys=old) as store:
        for owner in (BOB, ANN):
            id_ = (await store.open(owner)).id
            for resource, arguments in KEPT:
                await store.put(owner, id_, record(resource, arguments), keep_for=DAY)
    rig.keys = old.rotated()
    return id_


async def test_it_is_opened_and_written_to(rig: Rig, session: bytes) -> None:
    async with rig.open() as store:
        back = await store.open(ANN)
        assert (session, KEPT) == (back.id, held(back))
        assert Written.APPLIED is await store.put(ANN, session, record(body=b"new"), keep_for=DAY)
        assert {**KEPT, ("zones", b""): b"new"} == held(await store.open(ANN))


async def test_it_is_cleared(rig: Rig, session: bytes) -> None:
    """Whoever has no session under the new key may have one under the old."""
    async with rig.open() as store:
        await store.clear(ANN)
        assert Written.ENDED is await store.put(ANN, session, record(), keep_for=DAY)
        anew = await store.open(ANN)
        assert anew.id != session
        assert {} == held(anew)
        assert KEPT == held(await store.open(BOB))


async def test_it_is_cleared_with_all_others(rig: Rig, session: bytes) -> None:
    async with rig.open() as store:
        await store.clear_all("ipc")
        assert [] == rig.sql("SELECT * FROM sessions")


async def test_entries_are_deleted_from_it(rig: Rig, session: bytes) -> None:
    async with rig.open() as store:
        assert Written.APPLIED is await store.delete(ANN, session, "zones", b"7")
        assert {("zones", b""), ("notes", b"")} == set(held(await store.open(ANN)))
        assert Written.APPLIED is await store.delete(ANN, session, "zones", None)
        assert {("notes", b"")} == set(held(await store.open(ANN)))
        assert KEPT == held(await store.open(BOB))


async def test_resources_are_forgotten_in_it(rig: Rig, session: bytes) -> None:
    async with rig.open() as store:
        await store.forget("ipc", "zones")
        assert {("notes", b"")} == set(held(await store.open(ANN)))


async def test_damaged_it_is_replaced(rig: Rig, session: bytes) -> None:
    """It is no longer found by its owner, and must not stay beside the new one."""
    rig.sql("UPDATE sessions SET id = x'00' WHERE id = ?", session)
    async with rig.open() as store:
        back = await store.open(ANN)
        assert ((), 1) == (back.records, back.rejected)
        assert {back.id, (await store.open(BOB)).id} == {id_ for (id_,) in rig.sql("SELECT id FROM sessions")}
