"""Memory and store kept in step: what comes back after a restart, and what never does, whatever the store does."""

from __future__ import annotations

import asyncio
import gc
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from coatcheck.engine.cache import SessionCache
from coatcheck.engine.catalog import Catalog
from coatcheck.engine.entry import Outcome
from coatcheck.engine.guarded import FIRST_PAUSE, LONGEST_PAUSE, READ_SECONDS, WRITE_SECONDS, GuardedStore
from coatcheck.engine.limits import Limits
from coatcheck.engine.policy import Policy
from coatcheck.engine.store import Owner, Record, Store, StoredSession, Written
from coatcheck.errors import Forbidden, NotFound, SessionCleared, StoreFailed, UpstreamFailed
from coatcheck.testing import FakeClock, settle
from coatcheck.testing.stores import Fault, FaultyStore
from engine.conftest import MakeCache
from engine.test_single_flight import Holder
from engine.world import DAY, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ANN, BOB = "ann@example.com", "bob@example.com"


class Plan(msgspec.Struct, frozen=True):
    """What was called so once is none any more."""

    name: str

    def __post_init__(self) -> None:
        if self.name == "old":
            raise LookupError(self.name)


@pytest.fixture
def store(disk: Store, clock: FakeClock) -> FaultyStore:
    return FaultyStore(disk, clock=clock)


async def held(disk: Store, user: str = ANN) -> dict[str, bytes]:
    """Return what is stored of a user, by resource."""
    stored = await disk.open(Owner("estate", user))
    return {record.resource.partition("(")[0]: record.body for record in stored.records}


async def patience(clock: FakeClock, times: int = 1) -> None:
    """Let the longest pause of a failing store pass."""
    for _ in range(times):
        await clock.advance(LONGEST_PAUSE + 1)


class TestRestart:
    async def test_what_was_loaded_is_answered_without_a_call(
        self, make_cache: MakeCache, world: World, disk: Store, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        zones = await first.session(ANN).get(world.zones)
        await first.session(ANN).get(world.item, number=7)
        await first.aclose()
        world.calls.clear()
        await clock.advance(100)

        second = make_cache(world, store=disk)
        look = await second.session(ANN).lookup(world.zones)

        assert (look.value, look.outcome, look.age) == (zones, Outcome.HIT, 100.0)
        assert look.fresh_for == DAY - 100
        assert await second.session(ANN).get(world.item, number=7) == f"{ANN} has 7"
        assert world.calls == []
        assert second.stats().total.hits == 2

    async def test_one_read_brings_the_whole_session(
        self, make_cache: MakeCache, world: World, store: FaultyStore
    ) -> None:
        first = make_cache(world, store=store)
        await first.session(ANN).warm()
        await first.settled()
        opened = store.calls["open"]
        second = make_cache(world, store=store)
        await asyncio.gather(*(second.session(ANN).get(world.account) for _ in range(20)))
        await second.session(ANN).warm()
        assert store.calls["open"] == opened + 1

    async def test_a_life_goes_on_where_it_was(
        self, make_cache: MakeCache, world: World, disk: Store, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        clock.jump(DAY - 1)
        second = make_cache(world, store=disk)
        assert (await second.session(ANN).lookup(world.account)).outcome is Outcome.HIT
        clock.jump(1)
        assert (await second.session(ANN).lookup(world.account)).outcome is Outcome.MISS

    async def test_grace_counts_from_the_load(
        self, make_cache: MakeCache, disk: Store, clock: FakeClock
    ) -> None:
        world = World(default=Policy(ttl=timedelta(hours=24), stale_if_error=timedelta(hours=48), jitter=0))
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        world.fail("account", lambda: UpstreamFailed("503", status=503))
        clock.jump(25 * 3600)
        second = make_cache(world, store=disk)
        look = await second.session(ANN).lookup(world.account)
        assert (look.outcome, look.age) == (Outcome.STALE_HIT, 25 * 3600)
        await second.aclose()
        clock.jump(47 * 3600)
        third = make_cache(world, store=disk)
        with pytest.raises(UpstreamFailed):
            await third.session(ANN).get(world.account)

    async def test_a_slow_answer_makes_nothing_younger(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        second = make_cache(world, store=store)
        store.fault(Fault.APPLIES_THEN_HANGS, "open")
        getting = asyncio.ensure_future(second.session(ANN).lookup(world.account))
        await settle(lambda: store.hanging == 1)
        await clock.advance(0.125)
        store.release()
        assert (await getting).age == 0.125

    async def test_what_waits_to_be_written_ages_meanwhile(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("coatcheck.engine.guarded.AT_ONCE", 1)
        cache = make_cache(world, store=store)
        for user in (ANN, BOB):
            await cache.session(user).get(world.account)
            await cache.settled()
        store.fault(Fault.HANGS, "put")
        await cache.session(ANN).get(world.account, force_refresh=True)
        await settle(lambda: store.hanging == 1)
        store.heal()
        await cache.session(BOB).get(world.account, force_refresh=True)
        await clock.advance(0.125)
        store.release()
        await cache.settled()
        [record] = (await disk.open(Owner("estate", BOB))).records
        assert record.age == 0.125

    async def test_users_do_not_meet(self, make_cache: MakeCache, world: World, disk: Store) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.session(BOB).get(world.account)
        await first.aclose()
        second = make_cache(world, store=disk)
        assert await second.session(BOB).get(world.account) == 2
        assert await second.session(ANN).get(world.account) == 1
        assert world.count("account") == 2

    async def test_what_memory_evicts_the_store_holds(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        cache = make_cache(world, store=disk, limits=Limits(max_sessions=1))
        await cache.session(ANN).get(world.account)
        await cache.settled()
        await cache.session(BOB).get(world.account)
        await cache.settled()
        assert cache.users() == (BOB,)
        assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.HIT

    async def test_a_session_with_writes_under_way_is_not_evicted(
        self, make_cache: MakeCache, world: World, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store, limits=Limits(max_sessions=1))
        store.fault(Fault.HANGS, "put")
        await cache.session(ANN).get(world.account)
        await settle(lambda: store.hanging == 1)
        await cache.session(BOB).get(world.account)
        await settle(lambda: store.hanging == 2)
        assert set(cache.users()) == {ANN, BOB}
        store.heal()
        store.release()
        await cache.settled()
        assert len(cache.users()) == 1

    async def test_sessions_that_nobody_waits_for_any_more_make_room(
        self, make_cache: MakeCache, world: World, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store, limits=Limits(max_sessions=1))
        store.fault(Fault.HANGS, "open")
        waiting = [asyncio.ensure_future(cache.session(user).get(world.account)) for user in (ANN, BOB)]
        await settle(lambda: store.hanging == 2)
        for each in waiting:
            each.cancel()
        await settle()
        store.release()
        await cache.settled()
        assert len(cache.users()) == 1

    async def test_a_session_that_could_not_be_written_makes_room(
        self, make_cache: MakeCache, world: World, store: FaultyStore, clock: FakeClock
    ) -> None:
        cache = make_cache(world, store=store, limits=Limits(max_sessions=1))
        store.fault(Fault.HANGS, "put")
        for user in (ANN, BOB):
            await cache.session(user).get(world.account)
        await settle(lambda: store.hanging == 2)
        await clock.advance(WRITE_SECONDS)
        assert len(cache.users()) == 1
        store.heal()
        await patience(clock)

    async def test_another_signature_is_another_resource(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        stored = await disk.open(Owner("estate", ANN))
        for name in ("item(other)", "account(number)", "gone()"):
            await disk.put(
                Owner("estate", ANN), stored.id, Record(name, b"s0:i1:7", b'"old"', 0.0), keep_for=100
            )
        cache = make_cache(world, store=disk)
        assert await cache.session(ANN).get(world.item, number=7) == f"{ANN} has 7"
        assert await cache.session(ANN).get(world.account) == 1

    async def test_a_body_of_another_type_is_dropped_and_counted(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        stored = await disk.open(Owner("estate", ANN))
        owner = Owner("estate", ANN)
        await disk.put(owner, stored.id, Record("account()", b"s0:", b'"no number"', 5.0), keep_for=100)
        cache = make_cache(world, store=disk)
        assert await cache.session(ANN).get(world.account) == 1
        await cache.settled()
        assert (await held(disk))["account"] == b"1"
        store = cache.stats().store
        assert store is not None
        assert store.entries_rejected == 1

    async def test_a_body_that_its_type_chokes_on_is_dropped_and_counted(
        self, make_cache: MakeCache, disk: Store
    ) -> None:
        """A declared type may run code of its own, and other code today than when the entry was stored."""
        catalog: Catalog[Any] = Catalog("estate")

        @catalog.resource
        async def plan(api: Any) -> Plan:
            return Plan("new")

        owner = Owner("estate", ANN)
        stored = await disk.open(owner)
        await disk.put(owner, stored.id, Record("plan()", b"s0:", b'{"name":"old"}', 5.0), keep_for=100)
        cache = make_cache(Holder(catalog), store=disk)
        assert await cache.session(ANN).get(plan) == Plan("new")
        await cache.settled()
        assert (await held(disk))["plan"] == b'{"name":"new"}'
        store = cache.stats().store
        assert store is not None
        assert store.entries_rejected == 1

    def test_a_second_loop_goes_on_with_it(self, world: World, clock: FakeClock, disk: Store) -> None:
        cache = SessionCache(world.catalog, connect=world.connect, clock=clock, store=disk)

        async def first() -> None:
            await cache.session(ANN).get(world.account)
            await cache.settled()

        async def second() -> None:
            await cache.session(BOB).get(world.account)
            await cache.settled()
            assert set(await held(disk)) == {"account"}
            assert set(await held(disk, BOB)) == {"account"}
            await cache.aclose()

        asyncio.run(first())
        asyncio.run(second())

    def test_a_cache_whose_loop_ended_while_it_was_read_for_is_freed(
        self, world: World, clock: FakeClock, store: FaultyStore
    ) -> None:
        store.fault(Fault.HANGS, "open")

        async def run() -> weakref.ref[SessionCache[Any]]:
            cache = SessionCache(world.catalog, connect=world.connect, clock=clock, store=store)
            getting = asyncio.ensure_future(cache.session(ANN).get(world.account))
            await settle(lambda: store.hanging == 1)
            assert not getting.done()
            return weakref.ref(cache)

        cache = asyncio.run(run())
        gc.collect()
        assert cache() is None

    def test_what_was_being_written_when_a_loop_ended_is_not_trusted(
        self, world: World, clock: FakeClock, store: FaultyStore
    ) -> None:
        cache = SessionCache(world.catalog, connect=world.connect, clock=clock, store=store)
        store.fault(Fault.HANGS, "put")

        async def first() -> None:
            await cache.session(ANN).get(world.account)
            await settle(lambda: store.hanging == 1)

        async def second() -> None:
            store.heal()
            await cache.session(BOB).get(world.account)
            await settle(lambda: store.calls["clear"] == 1)
            await cache.settled()
            assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.HIT
            await cache.aclose()

        asyncio.run(first())
        asyncio.run(second())
        gc.collect()


class TestAuthority:
    async def test_what_was_loaded_under_another_is_cleared(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        first = make_cache(world, store=disk, authority=lambda user: f"{user} herself")
        await first.session(ANN).get(world.item, number=7)
        await first.aclose()
        again = make_cache(world, store=disk, authority=lambda user: f"{user} herself")
        assert (await again.session(ANN).lookup(world.item, number=7)).outcome is Outcome.HIT
        await again.aclose()
        second = make_cache(world, store=disk, authority=lambda _: "the team")
        assert (await second.session(ANN).lookup(world.item, number=7)).outcome is Outcome.MISS
        await second.settled()
        await second.aclose()
        third = make_cache(world, store=disk, authority=lambda user: f"{user} herself")
        assert (await third.session(ANN).lookup(world.item, number=7)).outcome is Outcome.MISS
        fourth = make_cache(world, store=disk)
        assert (await fourth.session(ANN).lookup(world.item, number=7)).outcome is Outcome.MISS

    async def test_without_one_nothing_is_stored_or_read(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        def unknown(_user: str) -> str:
            raise LookupError

        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        for authority in (lambda _: None, unknown, lambda _: 7, lambda _: "\ud800"):
            store.calls.clear()
            cache = make_cache(world, store=store, authority=authority)
            assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.MISS
            await cache.session(ANN).get(world.item, number=7)
            await cache.settled()
            # What was stored under one is older than memory now.
            assert store.calls == {"clear": 1}

    @pytest.mark.parametrize("change", ["invalidated", "refused", "reloaded"])
    async def test_what_changed_without_one_does_not_come_back_with_it(
        self, make_cache: MakeCache, world: World, disk: Store, change: str
    ) -> None:
        first = make_cache(world, store=disk, authority=lambda _: "herself")
        await first.session(ANN).get(world.account)
        await first.aclose()
        second = make_cache(world, store=disk, authority=lambda _: None)
        if change == "invalidated":
            await second.session(ANN).invalidate(world.account)
        elif change == "refused":
            world.fail("account", lambda: Forbidden("403"))
            with pytest.raises(Forbidden):
                await second.session(ANN).get(world.account)
            del world.answers["account"]
        else:
            await second.session(ANN).get(world.account)
        await second.settled()
        await second.aclose()
        third = make_cache(world, store=disk, authority=lambda _: "herself")
        assert (await third.session(ANN).lookup(world.account)).outcome is Outcome.MISS


class TestClear:
    async def test_a_cleared_session_stays_cleared(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        cleared = await first.session(ANN).clear()
        assert cleared.durable
        assert await held(disk) == {}
        await first.session(ANN).get(world.account)
        assert world.count("account") == 2

    async def test_one_that_is_only_stored(self, make_cache: MakeCache, world: World, disk: Store) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        second = make_cache(world, store=disk)
        assert (await second.clear(ANN)).durable
        await second.session(ANN).get(world.account)
        assert world.count("account") == 2

    async def test_everyone(self, make_cache: MakeCache, world: World, disk: Store) -> None:
        first = make_cache(world, store=disk)
        for user in (ANN, BOB):
            await first.session(user).get(world.account)
        await first.settled()
        assert (await first.clear_all()).durable
        assert await held(disk, ANN) == await held(disk, BOB) == {}
        await first.session(ANN).get(world.account)
        await first.settled()
        assert set(await held(disk)) == {"account"}

    async def test_what_was_read_before_a_clear_is_not_brought_in_after_it(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        second = make_cache(world, store=store)
        store.fault(Fault.APPLIES_THEN_HANGS, "open")
        getting = asyncio.ensure_future(second.session(ANN).get(world.account))
        await settle(lambda: store.hanging == 1)
        store.heal()
        assert (await second.session(ANN).clear()).durable
        again = asyncio.ensure_future(second.session(ANN).lookup(world.account))
        await settle()
        store.release()
        with pytest.raises(SessionCleared):
            await getting
        assert (await again).outcome is Outcome.MISS
        assert world.count("account") == 2

    async def test_a_write_that_comes_late_is_refused(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store)
        store.fault(Fault.HANGS, "put")
        await cache.session(ANN).get(world.account)
        await settle(lambda: store.hanging == 1)
        store.heal()
        assert (await cache.session(ANN).clear()).durable
        store.release()
        await cache.settled()
        assert await held(disk) == {}

    @pytest.mark.parametrize("fault", [Fault.FAILS, Fault.HANGS, Fault.APPLIES_THEN_FAILS])
    async def test_one_that_is_not_applied_is_told_and_repeated(
        self,
        make_cache: MakeCache,
        world: World,
        disk: Store,
        store: FaultyStore,
        clock: FakeClock,
        fault: Fault,
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).get(world.account)
        await cache.settled()
        store.fault(fault, "clear")
        clearing = asyncio.ensure_future(cache.session(ANN).clear())
        await settle()
        await clock.advance(2.5)
        assert not (await clearing).durable
        # Nothing of hers is read meanwhile, and nothing written.
        puts = store.calls["put"]
        assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.MISS
        assert store.calls["put"] == puts
        store.heal()
        store.release()
        await patience(clock, 2)
        await cache.settled()
        stats = cache.stats().store
        assert stats is not None
        assert stats.distrusted_users == 0
        # What was loaded since is stored then.
        assert set(await held(disk)) == {"account"}

    async def test_a_clear_asked_for_during_another_is_not_answered_by_that(
        self, make_cache: MakeCache, world: World, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store)
        store.fault(Fault.HANGS, "clear")
        first = asyncio.ensure_future(cache.clear(ANN))
        await settle(lambda: store.hanging == 1)
        second = asyncio.ensure_future(cache.clear(ANN))
        await settle()
        store.release()
        await settle(lambda: store.calls["clear"] == 2)
        assert (await first).durable
        assert not second.done()
        store.release()
        assert (await second).durable

    async def test_a_caller_who_leaves_does_not_stop_it(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).get(world.account)
        await cache.settled()
        store.fault(Fault.HANGS, "clear")
        clearing = asyncio.ensure_future(cache.clear(ANN))
        await settle(lambda: store.hanging == 1)
        clearing.cancel()
        await settle()
        store.release()
        await settle()
        assert await held(disk) == {}

    async def test_closing_tries_once_more_and_says_what_is_left(
        self, make_cache: MakeCache, world: World, store: FaultyStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).get(world.account)
        await cache.settled()
        store.fault(Fault.FAILS, "clear")
        assert not (await cache.clear(ANN)).durable
        await cache.aclose()
        assert store.calls["clear"] == 2
        assert "1 clear could not be applied" in caplog.text
        assert ANN not in caplog.text

    async def test_what_fails_only_after_the_end_is_not_repaired(
        self, make_cache: MakeCache, world: World, store: FaultyStore, clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("coatcheck.engine.persistence.CLOSE_SECONDS", WRITE_SECONDS / 2)
        cache = make_cache(world, store=store)
        await cache.session(ANN).get(world.account)
        await cache.settled()
        store.fault(Fault.HANGS, "forget")
        forgetting = asyncio.ensure_future(cache.invalidate(world.account))
        await settle(lambda: store.hanging == 1)
        closing = asyncio.ensure_future(cache.aclose())
        await clock.advance(WRITE_SECONDS / 2)
        await forgetting
        await closing
        await clock.advance(100)
        assert store.calls["clear_all"] == 0


NONSENSE: dict[str, tuple[str, Any]] = {
    "no session": ("open", None),
    "no records": ("open", StoredSession(b"1" * 16, None)),  # type: ignore[arg-type]
    "other records": ("open", StoredSession(b"1" * 16, (1,))),  # type: ignore[arg-type]
    "no arguments": ("open", StoredSession(b"1" * 16, (Record("account()", None, b"1", 0.0),))),  # type: ignore[arg-type]
    "no age": ("open", StoredSession(b"1" * 16, (Record("account()", b"s0:", b"1", "0"),))),  # type: ignore[arg-type]
    "rejected in words": ("open", StoredSession(b"1" * 16, (), "none")),  # type: ignore[arg-type]
    "no end of a put": ("put", None),
    "another end of a put": ("put", "stored"),
    "no end of a delete": ("delete", None),
}


class TestFaults:
    @pytest.mark.parametrize(("operation", "answer"), NONSENSE.values(), ids=NONSENSE.keys())
    async def test_an_answer_that_is_none_is_a_failure(
        self,
        make_cache: MakeCache,
        world: World,
        disk: Store,
        clock: FakeClock,
        operation: str,
        answer: object,
    ) -> None:
        class Confused:
            def __getattr__(self, name: str) -> Any:
                async def answered(*_: object, **__: object) -> object:
                    return answer

                return answered if name == operation else getattr(disk, name)

        cache = make_cache(world, store=cast("Store", Confused()))
        session = cache.session(ANN)
        assert await session.get(world.account) == 1
        await session.invalidate(world.account)
        assert (await session.lookup(world.account)).outcome is Outcome.MISS
        await clock.advance(1)
        await cache.settled()
        store = cache.stats().store
        assert store is not None
        assert store.failures >= 1
        assert store.writes_waiting == 0
        assert (await session.clear()).durable

    @pytest.mark.parametrize("fault", [Fault.FAILS, Fault.HANGS])
    async def test_a_get_goes_on_without_a_store_that_does_not_answer(
        self, make_cache: MakeCache, world: World, store: FaultyStore, clock: FakeClock, fault: Fault
    ) -> None:
        cache = make_cache(world, store=store)
        store.fault(fault)
        getting = asyncio.ensure_future(cache.session(ANN).get(world.account))
        await settle()
        await clock.advance(READ_SECONDS)
        assert await getting == 1
        # From then on it is left alone: the next does not wait at all.
        assert await cache.session(BOB).get(world.account) == 2
        stats = cache.stats().store
        assert stats is not None
        assert stats.failures >= 1
        assert stats.bypassed >= 1
        store.heal()
        store.release()
        await patience(clock, 3)

    @pytest.mark.parametrize("operation", ["open", "put", "delete"])
    async def test_a_write_that_takes_its_time_costs_nothing(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock,
        operation: str,
    ) -> None:  # fmt: skip
        """Longer than a get would wait: nobody waits for it, and nobody's copy is given up for it."""
        cache = make_cache(world, store=disk)
        await cache.session(ANN).get(world.account)
        await cache.aclose()
        cache = make_cache(world, store=store)
        for user in (ANN, BOB):
            await cache.session(user).get(world.notes)
        await cache.settled()
        store.slow(WRITE_SECONDS / 2, operation)
        getting = asyncio.ensure_future(cache.session(ANN).get(world.notes, force_refresh=True))
        dropping = asyncio.ensure_future(cache.session(BOB).invalidate(world.notes))
        coming = asyncio.ensure_future(cache.session("eve").get(world.notes))
        await settle()
        await clock.advance(READ_SECONDS)
        await getting
        await dropping
        await coming
        await clock.advance(WRITE_SECONDS)
        await cache.settled()
        assert set(await held(disk)) == {"account", "notes"}
        assert set(await held(disk, BOB)) == set()
        assert set(await held(disk, "eve")) == {"notes"}
        assert store.calls["clear"] == 0
        stats = cache.stats().store
        assert stats is not None
        assert stats.failures == (1 if operation == "open" else 0)  # eve's get did not wait

    async def test_that_it_fails_is_logged_once_and_that_it_does_no_more(
        self, make_cache: MakeCache, world: World, store: FaultyStore, clock: FakeClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        caplog.set_level("INFO", "coatcheck.engine")
        cache = make_cache(world, store=store)
        store.fault(Fault.FAILS, "open")
        for user in ("eve@example.com", "joe@example.com", ANN):
            await cache.session(user).get(world.account)
            await patience(clock)
        store.heal()
        await cache.session(BOB).get(world.account)
        await patience(clock)
        told = [each.getMessage() for each in caplog.records if "store" in each.getMessage()]
        assert 1 == sum("fails to answer reads" in each for each in told)
        assert 1 == sum("answers reads again, after" in each for each in told)
        assert not any(user in each for user in (ANN, BOB, "eve@", "joe@") for each in told)

    @pytest.mark.parametrize(
        ("error", "cause"),
        [
            (StoreFailed("the file is locked"), "(the file is locked)"),
            (ValueError("canary"), "(ValueError in open, line "),
            (type("Own", (StoreFailed,), {})("canary"), "(Own in open, line "),
            (None, "(TypeError in checked, line "),
        ],
    )
    async def test_the_log_tells_why_it_fails_and_nothing_that_a_stranger_says(
        self, make_cache: MakeCache, world: World, disk: Store, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture, error: Exception | None, cause: str,
    ) -> None:  # fmt: skip
        async def open(*_: object) -> None:  # noqa: A001 - as the port has it
            if error is not None:
                raise error

        cache = make_cache(world, store=disk)
        monkeypatch.setattr(type(disk), "open", open)
        await cache.session(ANN).get(world.account)
        told = [each.getMessage() for each in caplog.records if "fails to answer" in each.getMessage()]
        assert all(cause in each and "canary" not in each for each in told)
        assert told

    async def test_who_waits_too_long_for_a_turn_goes_on_without(
        self, store: FaultyStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A store that is slow and does not fail keeps nobody for longer than twice its time. Writes wait."""
        monkeypatch.setattr("coatcheck.engine.guarded.AT_ONCE", 1)
        guarded = GuardedStore(store, clock)
        ended: list[float] = []
        began = clock.monotonic()

        async def work(_store: Store) -> None:
            await clock.sleep(READ_SECONDS * 0.9)

        async def ask(way: Callable[[Callable[[Store], Awaitable[None]]], Awaitable[None]]) -> bool:
            try:
                await way(work)
            except StoreFailed:
                return False
            finally:
                ended.append(clock.monotonic() - began)
            return True

        reads = [asyncio.ensure_future(ask(guarded.read)) for _ in range(20)]
        await clock.advance(READ_SECONDS * 10)
        assert [True, True] + 18 * [False] == [await each for each in reads]
        assert max(ended) <= 2 * READ_SECONDS
        assert (guarded.failures, guarded.bypassed) == (0, 18)
        writes = [asyncio.ensure_future(ask(guarded.write)) for _ in range(20)]
        await clock.advance(READ_SECONDS * 20)
        assert all([await each for each in writes])

    async def test_what_reads_find_out_stops_no_write(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).get(world.account)
        await cache.settled()
        store.fault(Fault.HANGS, "open")
        getting = asyncio.ensure_future(cache.session(BOB).get(world.account))
        await settle(lambda: store.hanging == 1)
        await clock.advance(READ_SECONDS)
        await getting
        world.answers["account"] = 77
        await cache.session(ANN).get(world.account, force_refresh=True)
        await settle()
        store.heal()
        assert await held(disk) == {"account": b"77"}
        assert store.calls["clear"] == 0
        store.release()

    async def test_of_many_that_fail_at_once_one_counts(
        self, make_cache: MakeCache, world: World, store: FaultyStore, clock: FakeClock
    ) -> None:
        """A store that everybody asks is not left alone for the longest time at its first failure."""
        cache = make_cache(world, store=store)
        store.fault(Fault.HANGS, "open")
        getting = [asyncio.ensure_future(cache.session(f"user {n}").get(world.account)) for n in range(20)]
        await settle(lambda: store.hanging == 20)
        await clock.advance(READ_SECONDS)
        await asyncio.gather(*getting)
        asked = store.calls["open"]
        getting = [asyncio.ensure_future(cache.session("late").get(world.account))]
        await settle()
        assert store.calls["open"] <= asked + 20  # those who write do, and nobody reads
        store.heal()
        store.release()
        await clock.advance(FIRST_PAUSE)
        await cache.settled()
        asked = store.calls["open"]
        assert await cache.session("later").get(world.account) > 0
        assert store.calls["open"] == asked + 1

    async def test_a_store_that_failed_is_asked_again_after_a_while(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        for user in (ANN, BOB, "eve"):
            await first.session(user).get(world.account)
        await first.aclose()
        store.fault(Fault.FAILS, "open")
        second = make_cache(world, store=store)
        # Nothing is loaded, so nothing is written: only who reads can find out that the store is back.
        world.fail("account", lambda: UpstreamFailed("503", status=503))
        with pytest.raises(UpstreamFailed):
            await second.session(ANN).get(world.account)
        store.heal()
        asked = store.calls["open"]
        with pytest.raises(UpstreamFailed):
            await second.session(BOB).get(world.account)
        assert store.calls["open"] == asked
        await patience(clock)
        assert (await second.session("eve").lookup(world.account)).outcome is Outcome.HIT

    async def test_a_stranger_of_a_store_harms_nobody(
        self, make_cache: MakeCache, world: World, disk: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def raises(_owner: Owner) -> Any:
            raise ZeroDivisionError("ann's secret")

        monkeypatch.setattr(disk, "open", raises)
        cache = make_cache(world, store=disk)
        assert await cache.session(ANN).get(world.account) == 1
        await cache.settled()

    @pytest.mark.parametrize("fault", [Fault.FAILS, Fault.APPLIES_THEN_FAILS])
    async def test_after_a_write_that_failed_nothing_older_is_read(
        self,
        make_cache: MakeCache,
        world: World,
        disk: Store,
        store: FaultyStore,
        clock: FakeClock,
        fault: Fault,
    ) -> None:
        cache = make_cache(world, store=store, limits=Limits(max_sessions=1))
        await cache.session(ANN).get(world.account)
        await cache.settled()
        store.fault(fault, "put", "clear")
        world.answers["account"] = 77
        assert await cache.session(ANN).get(world.account, force_refresh=True) == 77
        await settle()
        stats = cache.stats().store
        assert stats is not None
        assert stats.distrusted_users == 1
        await cache.session(BOB).get(world.account)  # she is evicted
        await settle()
        assert cache.users() == (BOB,)
        world.answers["account"] = 78
        assert await cache.session(ANN).get(world.account) == 78
        store.heal()
        await patience(clock, 2)
        await cache.settled()
        assert (await held(disk)).get("account") in (None, b"78")

    async def test_when_too_many_are_distrusted_all_are(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("coatcheck.engine.repairs.MOST_DISTRUSTED", 3)
        cache = make_cache(world, store=store)
        await cache.session("eve").get(world.account)
        await cache.settled()
        store.fault(Fault.FAILS)
        for number in range(5):
            await cache.session(f"user {number}").get(world.account)
            await settle()
        stats = cache.stats().store
        assert stats is not None
        assert stats.distrusts_everyone
        store.heal()
        await patience(clock, 3)
        stats = cache.stats().store
        assert stats is not None
        assert (stats.distrusted_users, stats.distrusts_everyone) == (0, False)
        assert await held(disk, "eve") == {}
        # What is loaded from now on is stored again, also in sessions that had an id before.
        await cache.session("eve").get(world.account, force_refresh=True)
        await cache.settled()
        assert set(await held(disk, "eve")) == {"account"}
        assert "eve" in cache.users()

    async def test_what_was_read_before_a_repair_is_not_brought_in_after_it(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        second = make_cache(world, store=store)
        store.fault(Fault.APPLIES_THEN_HANGS, "open")
        getting = asyncio.ensure_future(second.session(ANN).lookup(world.account))
        await settle(lambda: store.hanging == 1)
        store.heal()
        store.fault(Fault.FAILS, "forget")
        await second.invalidate(world.notes)
        await settle(lambda: store.calls["clear_all"] == 1)
        store.release()
        assert (await getting).outcome is Outcome.MISS
        await second.settled()
        assert second.users() == (ANN,)
        assert set(await held(disk)) == {"account"}

    @pytest.mark.parametrize("operation", ["open", "put"])
    async def test_what_can_be_cleared_and_not_be_written_is_asked_less_and_less(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock,
        operation: str,
    ) -> None:  # fmt: skip
        """A full disk: a clear makes room for itself, and a put finds none."""
        store.fault(Fault.FAILS, operation)
        cache = make_cache(world, store=store)
        await cache.session(ANN).get(world.account)
        await clock.advance(100)
        assert 2 <= store.calls["clear"] <= 10
        store.heal()
        await patience(clock)
        await cache.settled()
        assert set(await held(disk)) == {"account"}

    async def test_a_session_that_ended_in_the_store_ends_in_memory(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        cache = make_cache(world, store=disk)
        await cache.session(ANN).get(world.account)
        await cache.settled()
        await disk.clear(Owner("estate", ANN))
        await cache.session(ANN).get(world.account, force_refresh=True)
        await cache.settled()
        assert cache.users() == ()
        stats = cache.stats().store
        assert stats is not None
        assert stats.writes[Written.ENDED.value] == 1

    @pytest.mark.parametrize("turns", range(6))
    async def test_who_leaves_at_the_moment_of_a_failure_leaves_nothing_unseen(
        self, store: FaultyStore, clock: FakeClock, turns: int
    ) -> None:
        guarded = GuardedStore(store, clock)
        fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work(_store: Store) -> None:
            await fails

        asking = asyncio.ensure_future(guarded.insist(work))
        await settle()
        fails.set_exception(StoreFailed("told to"))
        for _ in range(turns):
            await clock.sleep(0)
        asking.cancel()
        with pytest.raises((asyncio.CancelledError, StoreFailed)):
            await asking

    async def test_a_session_that_a_store_of_ones_own_let_go_of_stays_in_memory(
        self, make_cache: MakeCache, world: World, disk: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(disk), "shared", False, raising=False)
        cache = make_cache(world, store=disk)
        await cache.session(ANN).warm()
        await cache.settled()
        await disk.clear(Owner("estate", ANN))
        await cache.session(ANN).get(world.account, force_refresh=True)
        await cache.settled()
        calls = len(world.calls)
        await cache.session(ANN).warm()
        assert len(world.calls) == calls
        # The next write opens it anew.
        await cache.session(ANN).get(world.account, force_refresh=True)
        await cache.settled()
        assert set(await held(disk)) == {"account"}

    async def test_who_is_refused_may_rely_on_it_though_the_program_is_killed_then(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).warm()
        await cache.settled()
        store.fault(Fault.HANGS, "delete")
        world.fail("account", lambda: Forbidden("403"))
        getting = asyncio.ensure_future(cache.session(ANN).get(world.account, force_refresh=True))
        await settle(lambda: store.hanging == 1)
        assert not getting.done()
        store.heal()
        store.release()
        with pytest.raises(Forbidden):
            await getting
        assert set(await held(disk)) == {"notes"}

    async def test_who_waits_for_the_store_can_be_cancelled_alone(
        self, make_cache: MakeCache, world: World, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store)
        store.fault(Fault.HANGS, "open")
        waiting = [asyncio.ensure_future(cache.session(ANN).get(world.account)) for _ in range(5)]
        await settle(lambda: store.hanging == 1)
        waiting[0].cancel()
        waiting[3].cancel()
        await settle()
        store.release()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in ended] == [
            asyncio.CancelledError, int, int, asyncio.CancelledError, int
        ]  # fmt: skip
        assert world.count("account") == 1


class TestRemoval:
    async def test_what_was_refused_is_gone_with_all_that_depends_on_it(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        cache = make_cache(world, store=disk)
        await cache.session(ANN).warm()
        await cache.session(ANN).get(world.hosts, kind="big")
        await cache.settled()
        assert set(await held(disk)) == {"account", "zones", "hosts", "notes"}
        world.fail("account", lambda: Forbidden("403"))
        with pytest.raises(Forbidden):
            await cache.session(ANN).get(world.account, force_refresh=True)
        await cache.settled()
        assert set(await held(disk)) == {"notes"}

    async def test_404_takes_its_own(self, make_cache: MakeCache, world: World, disk: Store) -> None:
        cache = make_cache(world, store=disk)
        await cache.session(ANN).warm()
        await cache.settled()
        world.fail("zones", lambda: NotFound("404"))
        with pytest.raises(NotFound):
            await cache.session(ANN).get(world.zones, force_refresh=True)
        await cache.settled()
        assert set(await held(disk)) == {"account", "hosts", "notes"}

    async def test_invalidating_reaches_what_is_only_stored(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).warm()
        for number in (1, 2):
            await first.session(ANN).get(world.item, number=number)
        await first.aclose()
        second = make_cache(world, store=disk)
        await second.session(ANN).invalidate(world.zones)
        await second.session(ANN).invalidate(world.item, number=1)
        await second.settled()
        await second.aclose()
        world.calls.clear()
        third = make_cache(world, store=disk)
        await third.session(ANN).warm()
        await third.session(ANN).get(world.item, number=1)
        await third.session(ANN).get(world.item, number=2)
        assert world.names() == ["zones", "item"]

    async def test_what_is_invalidated_is_gone_from_the_store_when_that_returns(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).warm()
        await cache.settled()
        store.fault(Fault.HANGS, "delete")
        invalidating = asyncio.ensure_future(cache.session(ANN).invalidate(world.zones))
        await settle(lambda: store.hanging == 1)
        assert not invalidating.done()
        store.heal()
        store.release()
        await invalidating
        assert "zones" not in await held(disk)

    async def test_invalidating_waits_no_longer_than_the_store_may_take(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        cache = make_cache(world, store=store)
        await cache.session(ANN).warm()
        await cache.settled()
        store.fault(Fault.HANGS, "delete")
        invalidating = asyncio.ensure_future(cache.session(ANN).invalidate(world.zones))
        await settle(lambda: store.hanging == 1)
        await clock.advance(READ_SECONDS)
        await invalidating
        # It goes on without her. When it takes too long her copy is cleared instead, and stored anew.
        await clock.advance(WRITE_SECONDS)
        await cache.settled()
        assert "zones" not in await held(disk)

    async def test_invalidating_for_everyone_reaches_the_store(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        first = make_cache(world, store=disk)
        for user in (ANN, BOB):
            await first.session(user).warm()
        await first.aclose()
        second = make_cache(world, store=disk)
        await second.session(BOB).get(world.account)
        await second.invalidate(world.project)  # derived: what it comes from
        world.calls.clear()
        for user in (ANN, BOB):
            await second.session(user).warm()
        assert sorted(world.names()) == ["account", "account"]

    async def test_what_was_read_before_everyone_lost_it_is_not_brought_in(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).warm()
        await first.aclose()
        clock.jump(1)
        world.calls.clear()
        second = make_cache(world, store=store)
        store.fault(Fault.APPLIES_THEN_HANGS, "open")
        getting = asyncio.ensure_future(second.session(ANN).get(world.account))
        await settle(lambda: store.hanging == 1)
        store.heal()
        await second.invalidate(world.account)
        store.release()
        assert await getting == 1
        assert world.names() == ["account"]

    async def test_invalidating_for_everyone_waits_no_longer_than_for_one(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        clock.jump(1)
        cache = make_cache(world, store=store)
        store.fault(Fault.APPLIES_THEN_HANGS, "forget")
        invalidating = asyncio.ensure_future(cache.invalidate(world.account))
        await settle(lambda: store.hanging == 1)
        await clock.advance(READ_SECONDS)
        await invalidating
        # It goes on; until then what is stored is not brought in.
        assert (await cache.session(ANN).lookup(world.account)).outcome is Outcome.MISS
        store.heal()
        store.release()
        await cache.settled()
        assert set(await held(disk)) == {"account"}
        assert store.calls["clear_all"] == 0

    async def test_what_everyone_did_not_lose_in_time_is_cleared(
        self, make_cache: MakeCache, world: World, store: FaultyStore, clock: FakeClock
    ) -> None:
        cache = make_cache(world, store=store)
        store.fault(Fault.HANGS, "forget")
        invalidating = asyncio.ensure_future(cache.invalidate(world.account))
        await settle(lambda: store.hanging == 1)
        await clock.advance(WRITE_SECONDS)
        await invalidating
        await cache.settled()
        assert store.calls["clear_all"] == 1

    def test_what_everyone_was_losing_when_a_loop_ended_is_cleared(
        self, world: World, clock: FakeClock, store: FaultyStore
    ) -> None:
        cache = SessionCache(world.catalog, connect=world.connect, clock=clock, store=store)
        store.fault(Fault.HANGS, "forget")

        async def first() -> None:
            invalidating = asyncio.ensure_future(cache.invalidate(world.account))
            await settle(lambda: store.hanging == 1)
            await clock.advance(READ_SECONDS)
            await invalidating

        async def second() -> None:
            store.heal()
            await cache.session(BOB).get(world.account)
            await settle(lambda: store.calls["clear_all"] == 1)
            await cache.aclose()

        asyncio.run(first())
        asyncio.run(second())
        gc.collect()

    async def test_when_everyone_cannot_be_reached_nothing_is_read(
        self, make_cache: MakeCache, world: World, disk: Store, store: FaultyStore, clock: FakeClock
    ) -> None:
        first = make_cache(world, store=disk)
        await first.session(ANN).get(world.account)
        await first.aclose()
        clock.jump(1)
        second = make_cache(world, store=store)
        store.fault(Fault.FAILS, "forget", "clear_all")
        await second.invalidate(world.account)
        assert (await second.session(ANN).lookup(world.account)).outcome is Outcome.MISS
        store.heal()
        await patience(clock, 2)
        assert await held(disk) == {}

    async def test_what_a_session_has_no_room_for_leaves_the_store(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        cache = make_cache(world, store=disk, limits=Limits(max_keys_per_session=3))
        for number in range(6):
            await cache.session(ANN).get(world.item, number=number)
        await cache.settled()
        stored = await disk.open(Owner("estate", ANN))
        assert len(stored.records) == 3

    async def test_put_is_stored_and_an_older_load_is_not(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        cache = make_cache(world, store=disk)
        gate = world.hold("account")
        getting = asyncio.ensure_future(cache.session(ANN).get(world.account))
        load = await gate.hold()
        await cache.session(ANN).put(world.account, 5)
        await load.succeed(1)
        assert await getting == 1
        await cache.settled()
        assert await held(disk) == {"account": b"5"}

    async def test_put_is_held_also_where_there_is_no_room(
        self, make_cache: MakeCache, world: World, disk: Store
    ) -> None:
        """Evicted before it was held, the session would come back from the store with what it was to replace."""
        cache = make_cache(world, store=disk, limits=Limits(max_sessions=1))
        await cache.session(ANN).get(world.account)
        await cache.settled()
        gate = world.hold("account")
        busy = asyncio.ensure_future(cache.session(BOB).get(world.account))
        load = await gate.hold()
        await cache.session(ANN).put(world.account, 5)
        assert await cache.session(ANN).get(world.account) == 5
        await load.succeed(2)
        assert await busy == 2

    async def test_a_write_of_what_is_replaced_already_is_left_out(
        self, make_cache: MakeCache, world: World, store: FaultyStore, disk: Store
    ) -> None:
        cache = make_cache(world, store=store)
        store.fault(Fault.HANGS, "put")
        for number in range(5):
            await cache.session(ANN).put(world.account, number)
            await settle()
        store.heal()
        store.release()
        await cache.settled()
        assert store.calls["put"] == 2
        assert await held(disk) == {"account": b"4"}


async def test_a_disabled_cache_leaves_the_store_alone_but_for_clears(
    make_cache: MakeCache, world: World, store: FaultyStore
) -> None:
    cache = make_cache(world, store=store, enabled=False)
    await cache.session(ANN).get(world.account)
    await cache.settled()
    assert store.calls == {}
    assert (await cache.clear(ANN)).durable
    assert store.calls == {"clear": 1}


async def test_calls_with_the_connection_do_not_touch_the_store(
    make_cache: MakeCache, world: World, store: FaultyStore
) -> None:
    cache = make_cache(world, store=store)

    async def who(api: Any) -> str:
        return str(api.user)

    assert await cache.session(ANN).call(who) == ANN
    assert store.calls == {}
