"""The stores for tests: the one in memory keeps the contract; the faulty one fails as it was told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from coatcheck.engine.store import Record, Written
from coatcheck.errors import StoreFailed
from coatcheck.testing import FakeClock, Fault, FaultyStore, MemoryStore, settle
from coatcheck.testing.store_contract import ANN, StoreContract, held

if TYPE_CHECKING:
    from collections.abc import Callable

    from coatcheck.engine.store import Store

RECORD = Record("zones", b"", b"[1]", 0.0)


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def open_store(self, clock: FakeClock) -> Callable[[], Store]:
        return lambda: MemoryStore(clock=clock)


class TestFaultyStore(StoreContract):
    """Told nothing, it is the store within."""

    @pytest.fixture
    def open_store(self, clock: FakeClock) -> Callable[[], Store]:
        return lambda: FaultyStore(MemoryStore(clock=clock), clock=clock)


@pytest.fixture
def store(fake_clock: FakeClock) -> FaultyStore:
    return FaultyStore(MemoryStore(clock=fake_clock), clock=fake_clock)


async def test_told_to_fail_it_does_nothing(store: FaultyStore) -> None:
    session = await store.open(ANN)
    store.fault(Fault.FAILS, "put", "clear")

    with pytest.raises(StoreFailed):
        await store.put(ANN, session.id, RECORD, keep_for=60)
    with pytest.raises(StoreFailed):
        await store.clear(ANN)

    assert {} == held(await store.open(ANN))
    store.heal("put")
    assert Written.APPLIED is await store.put(ANN, session.id, RECORD, keep_for=60)
    assert {"open": 2, "put": 2, "clear": 1} == store.calls


async def test_it_can_do_what_was_asked_and_fail_all_the_same(store: FaultyStore) -> None:
    session = await store.open(ANN)
    store.fault(Fault.APPLIES_THEN_FAILS)

    with pytest.raises(StoreFailed):
        await store.put(ANN, session.id, RECORD, keep_for=60)

    store.heal()
    assert {("zones", b""): b"[1]"} == held(await store.open(ANN))


async def test_it_hangs_until_it_is_released(store: FaultyStore) -> None:
    session = await store.open(ANN)
    for fault in (Fault.HANGS, Fault.APPLIES_THEN_HANGS):
        store.fault(fault, "clear")
        clearing = asyncio.create_task(store.clear(ANN))
        await settle(lambda: store.hanging == 1)

        same = session.id == (await store.open(ANN)).id
        assert same is (fault is Fault.HANGS)
        store.release()
        await clearing
        assert 0 == store.hanging


async def test_it_dawdles_by_the_clock(store: FaultyStore, fake_clock: FakeClock) -> None:
    store.slow(0.5, "open")
    opening = asyncio.create_task(store.open(ANN))

    await fake_clock.advance(0.4)
    assert not opening.done()
    await fake_clock.advance(0.2)
    assert opening.done()


def test_it_knows_its_operations(store: FaultyStore) -> None:
    with pytest.raises(ValueError, match="no operation get"):
        store.fault(Fault.FAILS, "get")
