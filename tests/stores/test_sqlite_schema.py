"""The schema of the SQLite store: types are held to, numbers are given once, and older files are brought up whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coatcheck.errors import StoreFailed
from coatcheck.stores.sqlite import SQLiteStore, schema
from coatcheck.testing.store_contract import held
from stores.sqlite_rig import ANN, BOB, DAY, KEYS, Rig, record

if TYPE_CHECKING:
    from typing import Any

SECOND = ("ALTER TABLE meta ADD COLUMN more INTEGER NOT NULL DEFAULT 7", "CREATE TABLE more (x BLOB) STRICT")
FAILING = ("CREATE TABLE most (x BLOB) STRICT", "CREATE TABLE more (x BLOB) STRICT")


async def test_every_table_holds_to_its_types(rig: Rig) -> None:
    async with rig.open():
        tables = rig.sql("SELECT name, strict FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%'")
    assert dict.fromkeys(("meta", "keys", "salts", "sessions", "entries", "floors"), 1) == dict(tables)


async def test_no_number_of_a_session_is_given_twice(rig: Rig) -> None:
    """What an ended session left behind is never found under a new one, after a restart neither."""
    numbers = []
    for _ in range(3):
        async with rig.open() as store:
            for owner in (ANN, BOB):
                await store.open(owner)
                numbers += [number for (number,) in rig.sql("SELECT session FROM sessions")]
                await store.clear(owner)
    assert sorted(set(numbers)) == numbers
    assert 6 == len(numbers)


async def test_an_older_file_is_brought_up_with_what_it_holds(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is done once in the life of a file."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, SECOND))
    for _ in range(2):
        async with rig.open() as store:
            back = await store.open(ANN)
            assert (session.id, {("zones", b""): b"[1]"}) == (back.id, held(back))
        assert [(2,)] == rig.sql("PRAGMA user_version")
        assert [(7,)] == rig.sql("SELECT more FROM meta")
    assert [] == rig.aside()


async def test_a_step_that_fails_leaves_an_older_file_as_it_was(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And undoes the steps before it."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
    before = all_of(rig)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", (*schema.STEPS, SECOND, FAILING))
        with pytest.raises(StoreFailed):
            SQLiteStore(rig.path, keys=KEYS, clock=rig.clock)
    assert before == all_of(rig)
    assert [] == rig.aside()
    async with rig.open() as store:
        back = await store.open(ANN)
        assert (session.id, {("zones", b""): b"[1]"}) == (back.id, held(back))


def all_of(rig: Rig) -> list[Any]:
    tables = rig.sql("SELECT name, sql FROM sqlite_master ORDER BY name")
    rows = [rig.sql(f"SELECT * FROM {table} ORDER BY 1") for table in ("meta", "sessions", "entries")]
    return [rig.sql("PRAGMA user_version"), tables, *rows]
