"""What the SQLite store's writer does in one transaction: many operations, each fenced from those before it, synced as they need."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from coatcheck.engine.store import Written
from coatcheck.stores.sqlite import operations
from coatcheck.stores.sqlite.tables import Tables
from coatcheck.stores.sqlite.upkeep import upkeep
from coatcheck.testing.store_contract import held
from stores.sqlite_rig import ANN, BOB, DAY, Rig, in_one_group, record, tables_of

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from coatcheck.stores.sqlite import SQLiteStore

NORMAL, FULL = 1, 2
MIB = 1024 * 1024


# -- synced ---------------------------------------------------------------------------------------------------------


def synchronous(tables: Tables) -> int:
    [level] = tables.connection.execute("PRAGMA synchronous").fetchone()
    return int(level)


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Note at every operation how the transaction that it is part of is synced."""
    noted: list[tuple[str, int]] = []
    for kind, part in (
        (operations.Put, "row"),
        (operations.Delete, "apply"),
        (operations.Forget, "apply"),
        (operations.Clear, "apply"),
        (operations.ClearAll, "apply"),
    ):
        does = getattr(kind, part)

        def noting(self: object, tables: Tables, does: Any = does, name: str = kind.__name__) -> object:
            noted.append((name, synchronous(tables)))
            return does(self, tables)

        monkeypatch.setattr(kind, part, noting)
    return noted


async def test_what_removes_is_synced_and_a_put_is_not(rig: Rig, levels: list[tuple[str, int]]) -> None:
    """Whatever came before: a put is as quick after a clear, a clear as safe after a put."""
    async with rig.open() as store:
        session = await store.open(ANN)
        for removing in (
            store.delete(ANN, session.id, "zones", b""),
            store.delete(ANN, session.id, "zones", None),
            store.forget("ipc", "zones"),
            store.clear(BOB),
            store.clear_all("other"),
        ):
            await store.put(ANN, session.id, record(), keep_for=DAY)
            await removing
    removed = ("Delete", "Delete", "Forget", "Clear", "ClearAll")
    assert [each for name in removed for each in (("Put", NORMAL), (name, FULL))] == levels


async def test_one_that_needs_it_syncs_the_whole_transaction(rig: Rig, levels: list[tuple[str, int]]) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        await in_one_group(
            store,
            store.put(ANN, session.id, record(), keep_for=DAY),
            store.delete(ANN, session.id, "notes", b""),
        )
    assert [("Put", FULL), ("Delete", FULL)] == levels


async def test_a_clear_without_the_program_is_synced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig.open() as store:
        await store.open(ANN)
    levels, end = [], Tables.end

    def noting(self: Tables, sessions: Any) -> int:
        levels.append(synchronous(self))
        return end(self, sessions)

    monkeypatch.setattr(Tables, "end", noting)
    with upkeep(rig.path, clock=rig.clock) as kept:
        assert 1 == kept.clear()
    assert [FULL] == levels


# -- fenced ---------------------------------------------------------------------------------------------------------


async def test_what_follows_a_clear_in_its_transaction_meets_the_end_of_the_session(rig: Rig) -> None:
    """The writer still knows the session then; the statements themselves look whether it is there."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        assert [None, Written.ENDED, Written.ENDED, Written.ENDED] == await in_one_group(
            store, store.clear(ANN), *late_writes(store, session.id)
        )
        assert [] == rig.sql("SELECT * FROM entries")
        assert [] == rig.sql("SELECT * FROM floors")


async def test_what_is_written_under_an_id_that_the_row_does_not_have_is_refused(rig: Rig) -> None:
    """Also where the number of the session is the same."""
    async with rig.open() as store:
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(), keep_for=DAY)
        before = rig.sql("SELECT * FROM entries")
        rig.sql("UPDATE sessions SET id = zeroblob(16)")
        for late in late_writes(store, session.id):
            assert Written.ENDED is await late
        assert before == rig.sql("SELECT * FROM entries")
        assert [] == rig.sql("SELECT * FROM floors")


def late_writes(store: SQLiteStore, session: bytes) -> list[Coroutine[Any, Any, Written]]:
    return [
        store.put(ANN, session, record("late"), keep_for=DAY),
        store.delete(ANN, session, "later", b""),
        store.delete(ANN, session, "later", None),
    ]


# -- shared ---------------------------------------------------------------------------------------------------------


async def test_puts_that_wait_share_transactions_of_so_many(rig: Rig) -> None:
    async with rig.open() as store:
        session = await store.open(ANN)
        said: list[str] = []
        tables_of(store).connection.set_trace_callback(said.append)
        mine = [record(arguments=b"%d" % number) for number in range(300)]
        written = await in_one_group(
            store, *(store.put(ANN, session.id, each, keep_for=DAY) for each in mine)
        )
        assert [Written.APPLIED] * 300 == written
        assert 300 == len(held(await store.open(ANN)))
        transactions = "\n".join(said).split("BEGIN IMMEDIATE")
        # 256, and the rest.
        assert 2 == sum("INSERT INTO entries" in each for each in transactions)


async def test_the_log_does_not_grow_without_end_while_the_writer_never_rests(rig: Rig) -> None:
    log = rig.path.with_name("sessions.db-wal")
    seen = []
    async with rig.open() as store:
        session = await store.open(ANN)

        async def put(number: int) -> None:
            mine = record(arguments=b"%d" % number, body=b"x" * MIB)
            for _ in range(10):
                assert Written.APPLIED is await store.put(ANN, session.id, mine, keep_for=DAY)
                seen.append(log.stat().st_size)

        await asyncio.gather(*(put(number) for number in range(8)))
    # Half of what was written, and far more than is let stand.
    assert max(seen) < 40 * MIB
