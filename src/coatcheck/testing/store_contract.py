"""The tests that every store has to pass, also one of your own. They need pytest and pytest-asyncio.

::

    class TestMyStore(DurableStoreContract):  # or StoreContract, if it keeps nothing when it is closed
        @pytest.fixture
        def open_store(self, clock, tmp_path):
            return lambda: MyStore(tmp_path / "store", clock=clock)

``clock`` is a `FakeClock`: date entries by ``clock.monotonic()``, or by ``clock.wall()`` if they outlive the process. Floors
are kept as entries are, and what is past its ``keep_for`` is brought no longer.
"""

# ruff: noqa: SIM300, S311 - written as tests are: what is expected stands first, and chance is repeatable

from __future__ import annotations

import asyncio
import inspect
import random
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from coatcheck.engine.store import Owner, Record, StoredSession, Written
from coatcheck.errors import StoreFailed
from coatcheck.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from coatcheck.engine.store import Store

    Advance = Callable[[float], Awaitable[None]]
    OpenStore = Callable[[], Store | Awaitable[Store]]

ANN = Owner("ipc", "ann@example.com")
BOB = Owner("ipc", "bob@example.com")
ELSEWHERE = Owner("other", "ann@example.com")
HOUR = 3_600.0
LONG = 30 * 24 * HOUR
# Neither a store's clock nor its arithmetic is ours: ages agree to within this.
CLOSELY = 0.01

BODIES = {
    "nothing": b"",
    "one": b"1",
    "null": b"null",
    "every byte": bytes(range(256)),
    "zeros": b"\0" * 5_000,
    "a page or so": b"x" * 4_096,
    "a megabyte": random.Random(1).randbytes(1_000_000),
}
# All different to the byte, and alike to whoever folds case, blanks, Unicode forms or the seams between the parts.
ALIKE = (
    Owner("ipc", "Alice"),
    Owner("ipc", "alice"),
    Owner("ipc", "alice "),
    Owner("ipc", " alice"),
    Owner("ipc", "ALICE"),
    Owner("ipc", "\u00e9"),
    Owner("ipc", "e\u0301"),
    Owner("ipc", "\ufb01"),
    Owner("ipc", "fi"),
    Owner("ipc", "1"),
    Owner("ip", "calice"),
    Owner("ipca", "lice"),
    Owner("ipc:alice", "x"),
    Owner("ipc", "alice:x"),
    Owner("Ipc", "alice"),
    Owner("", "ipcalice"),
    Owner("ipc", "%"),
    Owner("ipc", "_"),
    Owner("ipc", "*"),
    Owner("ipc", "'; DROP TABLE sessions; --"),
    Owner("ipc", "\U0001f600"),
    Owner("ipc", "a" * 512),
    Owner("ipc", "a" * 511),
)


def record(resource: str = "zones", arguments: bytes = b"", body: bytes = b"[1]", age: float = 0.0) -> Record:
    """Return an entry."""
    return Record(resource, arguments, body, age)


def held(session: StoredSession) -> dict[tuple[str, bytes], bytes]:
    """Return the bodies of what a store brought, by their keys."""
    found = {(each.resource, each.arguments): each.body for each in session.records}
    assert len(found) == len(session.records), "a key was brought twice"
    return found


class StoreContract:
    """What `coatcheck.engine.store.Store` promises, as tests. Subclass it and give it the fixture `open_store`."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock that dates what the store holds, by ``monotonic()`` or ``wall()``."""
        return FakeClock()

    @pytest.fixture
    def advance(self, clock: FakeClock) -> Advance:
        """Return what lets time pass for the store."""
        return clock.advance

    @pytest.fixture
    def open_store(self, clock: FakeClock) -> OpenStore:
        """Return what opens the store, the same one each time."""
        raise NotImplementedError("a subclass says how its store is opened")

    @pytest_asyncio.fixture
    async def store(self, open_store: OpenStore) -> AsyncIterator[Store]:
        """Return the store, opened; it is closed after the test."""
        store = await opened(open_store)
        yield store
        await store.aclose()

    # -- sessions ---------------------------------------------------------------------------------------------------

    async def test_a_new_session_is_empty_and_opening_it_again_brings_the_same(self, store: Store) -> None:
        """The id is the store's, and stays until the session is cleared."""
        first = await store.open(ANN)
        again = await store.open(ANN)

        assert isinstance(first.id, bytes)
        assert len(first.id) >= 16
        assert first.id == again.id
        assert ((), 0) == (first.records, first.rejected)
        assert ((), 0) == (again.records, again.rejected)

    async def test_two_owners_have_two_sessions(self, store: Store) -> None:
        """Nobody can guess another's id from their own."""
        ids = {(await store.open(owner)).id for owner in (ANN, BOB, ELSEWHERE)}

        assert 3 == len(ids)

    async def test_callers_who_open_at_the_same_time_get_one_session(self, store: Store) -> None:
        """Whoever comes first makes it."""
        sessions = await asyncio.gather(*(store.open(ANN) for _ in range(50)))

        assert 1 == len({session.id for session in sessions})

    async def test_owners_that_look_alike_share_nothing(self, store: Store) -> None:
        """Catalogs and users are compared byte for byte."""
        for number, owner in enumerate(ALIKE):
            session = await store.open(owner)
            assert {} == held(session)
            written = await store.put(owner, session.id, record(body=b"%d" % number), keep_for=HOUR)
            assert written is Written.APPLIED

        for number, owner in enumerate(ALIKE):
            assert {("zones", b""): b"%d" % number} == held(await store.open(owner))
        await store.clear(ALIKE[1])
        for number, owner in enumerate(ALIKE):
            found = held(await store.open(owner))
            assert found == ({} if number == 1 else {("zones", b""): b"%d" % number})

    # -- entries ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
    async def test_what_is_put_comes_back_as_it_was(self, store: Store, body: bytes) -> None:
        """Byte for byte, whatever the bytes are."""
        session = await store.open(ANN)

        assert Written.APPLIED is await store.put(ANN, session.id, record(body=body), keep_for=HOUR)

        back = await store.open(ANN)
        assert session.id == back.id
        assert {("zones", b""): body} == held(back)
        assert all(isinstance(each.body, bytes) for each in back.records)

    async def test_each_key_has_its_entry(self, store: Store) -> None:
        """Resources and arguments are told apart byte for byte, too."""
        keys = [
            (resource, arguments)
            for resource in ("zones", "Zones", "zone", "zoness", "z\u00f6nes", "zo:nes", "r" * 300)
            for arguments in (b"", b"\0", b"\0\0", b"\xff\xfe", b"s", b"S", b"i1:1", b"a" * 256)
        ]
        session = await store.open(ANN)
        for number, key in enumerate(keys):
            assert Written.APPLIED is await store.put(
                ANN, session.id, record(*key, b"%d" % number), keep_for=HOUR
            )

        assert {key: b"%d" % number for number, key in enumerate(keys)} == held(await store.open(ANN))

    async def test_ages_go_on_while_they_are_stored(self, store: Store, advance: Advance) -> None:
        """An age is counted from the start of the load, whenever it was put and whenever it is read."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("new", age=0.0), keep_for=HOUR)
        await store.put(ANN, session.id, record("old", age=500.25), keep_for=HOUR)

        await advance(100.0)

        ages = {each.resource: each.age for each in (await store.open(ANN)).records}
        assert {"new": 100.0, "old": 600.25} == pytest.approx(ages, abs=CLOSELY)

    async def test_nothing_is_from_the_future(self, store: Store) -> None:
        """Not even if whoever put it said so."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(age=-5.0), keep_for=HOUR)

        for each in (await store.open(ANN)).records:
            assert 0.0 == pytest.approx(each.age, abs=CLOSELY)
            assert each.age >= 0.0

    async def test_a_younger_entry_takes_the_place_of_an_older_one(
        self, store: Store, advance: Advance
    ) -> None:
        """Age and body go with it; so does the time it is kept."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(body=b"old"), keep_for=50.0)
        await advance(40.0)
        assert Written.APPLIED is await store.put(
            ANN, session.id, record(body=b"new", age=10.0), keep_for=HOUR
        )
        await advance(40.0)

        [back] = (await store.open(ANN)).records
        assert b"new" == back.body
        assert 50.0 == pytest.approx(back.age, abs=CLOSELY)

    async def test_an_older_entry_is_overtaken_by_the_one_that_is_there(
        self, store: Store, advance: Advance
    ) -> None:
        """Whoever is late: what counts is when the loads began."""
        session = await store.open(ANN)
        await advance(100.0)
        await store.put(ANN, session.id, record(body=b"new", age=10.0), keep_for=HOUR)

        late = await store.put(ANN, session.id, record(body=b"old", age=20.0), keep_for=HOUR)
        other = await store.put(ANN, session.id, record(arguments=b"x", body=b"old", age=20.0), keep_for=HOUR)

        assert (Written.OVERTAKEN, Written.APPLIED) == (late, other)
        assert {("zones", b""): b"new", ("zones", b"x"): b"old"} == held(await store.open(ANN))

    async def test_an_entry_may_be_put_again(self, store: Store) -> None:
        """Who does not know whether a put was applied repeats it."""
        session = await store.open(ANN)

        for _ in range(3):
            assert Written.APPLIED is await store.put(
                ANN, session.id, record(body=b"same", age=1.0), keep_for=HOUR
            )

        assert {("zones", b""): b"same"} == held(await store.open(ANN))

    async def test_an_entry_is_not_kept_for_longer_than_asked(self, store: Store, advance: Advance) -> None:
        """What has had its time is not brought back, though it may still lie there."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("short"), keep_for=10.0)
        await store.put(ANN, session.id, record("long"), keep_for=LONG)

        await advance(9.0)
        assert {("short", b""), ("long", b"")} == set(held(await store.open(ANN)))
        await advance(2.0)
        assert {("long", b"")} == set(held(await store.open(ANN)))
        assert Written.APPLIED is await store.put(ANN, session.id, record("short"), keep_for=10.0)
        assert {("short", b""), ("long", b"")} == set(held(await store.open(ANN)))

    # -- deletes ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("arguments", [b"", None], ids=["one key", "all keys"])
    async def test_what_was_deleted_is_gone_and_older_loads_are_overtaken(
        self, store: Store, advance: Advance, arguments: bytes | None
    ) -> None:
        """The floor of a key stands whether there was an entry or not."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("zones"), keep_for=HOUR)
        await store.put(ANN, session.id, record("zones", b"x"), keep_for=HOUR)
        await store.put(ANN, session.id, record("notes"), keep_for=HOUR)
        await advance(100.0)

        assert Written.APPLIED is await store.delete(ANN, session.id, "zones", arguments)

        left = {("notes", b"")} if arguments is None else {("notes", b""), ("zones", b"x")}
        assert left == set(held(await store.open(ANN)))
        await advance(10.0)
        all_keys = arguments is None
        for resource, key, age, expected in (
            ("zones", b"", 11.0, Written.OVERTAKEN),
            ("zones", b"new", 11.0, Written.OVERTAKEN if all_keys else Written.APPLIED),
            ("notes", b"new", 11.0, Written.APPLIED),
            ("zones", b"", 9.0, Written.APPLIED),
        ):
            late = record(resource, key, age=age)
            assert expected is await store.put(ANN, session.id, late, keep_for=HOUR)
        assert b"[1]" == held(await store.open(ANN))["zones", b""]

    @pytest.mark.parametrize("arguments", [b"", None], ids=["one key", "all keys"])
    async def test_a_delete_counts_from_when_it_says(
        self, store: Store, advance: Advance, arguments: bytes | None
    ) -> None:
        """It may be applied late: what began after it was asked for stays."""
        session = await store.open(ANN)
        await advance(100.0)
        await store.put(ANN, session.id, record(body=b"young", age=5.0), keep_for=HOUR)
        await store.put(ANN, session.id, record(arguments=b"x", body=b"old", age=50.0), keep_for=HOUR)

        assert Written.ENDED is not await store.delete(ANN, session.id, "zones", arguments, age=20.0)
        if arguments is not None:
            assert Written.ENDED is not await store.delete(ANN, session.id, "zones", b"x", age=20.0)

        assert {("zones", b""): b"young"} == held(await store.open(ANN))
        assert Written.OVERTAKEN is await store.put(
            ANN, session.id, record(arguments=b"x", age=21.0), keep_for=HOUR
        )
        assert Written.APPLIED is await store.put(
            ANN, session.id, record(arguments=b"x", age=19.0), keep_for=HOUR
        )

    @pytest.mark.parametrize("arguments", [b"", None], ids=["one key", "all keys"])
    async def test_a_load_that_began_with_the_delete_is_not_overtaken(
        self, store: Store, advance: Advance, arguments: bytes | None
    ) -> None:
        """Arithmetic with dates must not decide against the load that a delete makes room for."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record(body=b"old"), keep_for=HOUR)
        await advance(0.1)
        for _ in range(10):
            await store.delete(ANN, session.id, "zones", arguments)
            await advance(1 / 3)
            assert Written.APPLIED is await store.put(
                ANN, session.id, record(body=b"new", age=1 / 3), keep_for=HOUR
            )
            await advance(0.7)
            assert Written.ENDED is not await store.delete(
                ANN, session.id, "zones", arguments, age=0.7 + 1 / 3
            )
            # One of the very moment of an entry is about that entry, too.
            assert {} == held(await store.open(ANN))

    async def test_an_earlier_delete_lowers_no_floor(self, store: Store, advance: Advance) -> None:
        """Whoever is late."""
        session = await store.open(ANN)
        await advance(100.0)
        for arguments in (b"", None):
            await store.delete(ANN, session.id, "zones", arguments, age=10.0)
            await store.delete(ANN, session.id, "zones", arguments, age=50.0)
            assert Written.OVERTAKEN is await store.put(ANN, session.id, record(age=20.0), keep_for=HOUR)
        await store.forget("ipc", "notes", age=10.0)
        await store.forget("ipc", "notes", age=50.0)
        assert Written.OVERTAKEN is await store.put(ANN, session.id, record("notes", age=20.0), keep_for=HOUR)

    async def test_deleting_what_is_not_there_does_nothing_else(self, store: Store) -> None:
        """Neither to other entries nor to other owners."""
        ann, bob = await store.open(ANN), await store.open(BOB)
        await store.put(ANN, ann.id, record("notes"), keep_for=HOUR)
        await store.put(BOB, bob.id, record("zones"), keep_for=HOUR)

        assert Written.APPLIED is await store.delete(ANN, ann.id, "zones", b"")
        assert Written.APPLIED is await store.delete(ANN, ann.id, "zones", None)

        assert {("notes", b"")} == set(held(await store.open(ANN)))
        assert {("zones", b"")} == set(held(await store.open(BOB)))

    async def test_forgetting_a_resource_reaches_every_owner_of_the_catalog(
        self, store: Store, advance: Advance
    ) -> None:
        """And nothing else: no other resource, no other catalog, nothing younger."""
        ids = {owner: (await store.open(owner)).id for owner in (ANN, BOB, ELSEWHERE)}
        for owner, session in ids.items():
            for key in (("zones", b""), ("zones", b"x"), ("notes", b"")):
                await store.put(owner, session, record(*key), keep_for=HOUR)
        await advance(100.0)
        await store.put(BOB, ids[BOB], record("zones", b"young", age=5.0), keep_for=HOUR)

        await store.forget("ipc", "zones", age=10.0)

        everything = {("zones", b""), ("zones", b"x"), ("notes", b"")}
        assert {("notes", b"")} == set(held(await store.open(ANN)))
        assert {("notes", b""), ("zones", b"young")} == set(held(await store.open(BOB)))
        assert everything == set(held(await store.open(ELSEWHERE)))
        late = record(age=11.0)
        assert Written.OVERTAKEN is await store.put(ANN, ids[ANN], late, keep_for=HOUR)
        assert Written.APPLIED is await store.put(ELSEWHERE, ids[ELSEWHERE], record(), keep_for=HOUR)
        assert Written.APPLIED is await store.put(ANN, ids[ANN], record(age=9.0), keep_for=HOUR)
        carl = Owner("ipc", "carl@example.com")
        new = await store.open(carl)
        assert Written.OVERTAKEN is await store.put(carl, new.id, late, keep_for=HOUR)

    async def test_of_one_moment_a_delete_lets_a_write_pass_and_forgetting_does_not(
        self, store: Store
    ) -> None:
        """Nothing is asked of a store whose time goes on between two calls: there nobody can tell."""
        session = await store.open(ANN)
        await store.put(ANN, session.id, record("roles", age=1.0), keep_for=HOUR)
        stands_still = (await store.open(ANN)).records[0].age == 1.0
        moments = {"equal": 0.0, "a little older": 5e-6, "a little younger": -5e-6}

        async def written(resource: str) -> dict[str, Written]:
            return {
                name: await store.put(
                    ANN, session.id, record(resource, name.encode(), age=1.0 + difference), keep_for=HOUR
                )
                for name, difference in moments.items()
            }

        await store.delete(ANN, session.id, "zones", None, age=1.0)
        await store.forget("ipc", "notes", age=1.0)
        after_delete, after_forgetting = await written("zones"), await written("notes")
        if stands_still:
            assert dict.fromkeys(moments, Written.APPLIED) == after_delete
            assert dict.fromkeys(moments, Written.OVERTAKEN) == after_forgetting

    # -- clears -----------------------------------------------------------------------------------------------------

    async def test_after_a_clear_nothing_that_carries_the_old_id_is_written(self, store: Store) -> None:
        """Neither before the owner comes back nor after."""
        old = await store.open(ANN)
        await store.put(ANN, old.id, record(), keep_for=HOUR)

        await store.clear(ANN)

        assert Written.ENDED is await store.put(ANN, old.id, record(), keep_for=HOUR)
        assert Written.ENDED is await store.delete(ANN, old.id, "zones", b"")
        assert Written.ENDED is await store.delete(ANN, old.id, "zones", None)
        new = await store.open(ANN)
        assert new.id != old.id
        assert {} == held(new)
        assert Written.ENDED is await store.put(ANN, old.id, record(), keep_for=HOUR)
        assert Written.ENDED is await store.delete(ANN, old.id, "zones", b"")
        assert Written.APPLIED is await store.put(ANN, new.id, record(body=b"new"), keep_for=HOUR)
        assert {("zones", b""): b"new"} == held(await store.open(ANN))

    async def test_a_clear_takes_the_floors_of_the_session_with_it(
        self, store: Store, advance: Advance
    ) -> None:
        """They guarded what is gone; the new id guards what comes."""
        session = await store.open(ANN)
        await advance(100.0)
        await store.delete(ANN, session.id, "zones", b"")
        await store.delete(ANN, session.id, "notes", None)
        await store.clear(ANN)

        session = await store.open(ANN)
        assert Written.APPLIED is await store.put(ANN, session.id, record("zones", age=5.0), keep_for=HOUR)
        assert Written.APPLIED is await store.put(ANN, session.id, record("notes", age=5.0), keep_for=HOUR)

    async def test_clears_may_be_repeated_and_touch_nobody_else(self, store: Store) -> None:
        """Also the clear of somebody whom nobody knows."""
        ann, bob = await store.open(ANN), await store.open(BOB)
        await store.put(ANN, ann.id, record(), keep_for=HOUR)
        await store.put(BOB, bob.id, record(body=b"bob's"), keep_for=HOUR)

        await store.clear(ANN)
        await store.clear(ANN)
        await store.clear(Owner("ipc", "nobody@example.com"))
        await store.clear_all("unheard of")

        back = await store.open(BOB)
        assert bob.id == back.id
        assert {("zones", b""): b"bob's"} == held(back)

    async def test_clearing_all_of_a_catalog_leaves_the_others(self, store: Store) -> None:
        """And may be repeated."""
        ids = {owner: (await store.open(owner)).id for owner in (ANN, BOB, ELSEWHERE)}
        for owner, session in ids.items():
            await store.put(owner, session, record(body=owner.catalog.encode()), keep_for=HOUR)

        await store.clear_all("ipc")
        await store.clear_all("ipc")

        for owner in (ANN, BOB):
            assert Written.ENDED is await store.put(owner, ids[owner], record(), keep_for=HOUR)
            back = await store.open(owner)
            assert back.id != ids[owner]
            assert {} == held(back)
        other = await store.open(ELSEWHERE)
        assert ids[ELSEWHERE] == other.id
        assert {("zones", b""): b"other"} == held(other)

    async def test_another_s_id_writes_nothing(self, store: Store) -> None:
        """Nor does one that was never given out."""
        ann, bob = await store.open(ANN), await store.open(BOB)

        for foreign in (bob.id, b"", b"\0" * len(ann.id), ann.id + b"\0", ann.id[:-1]):
            assert Written.ENDED is await store.put(ANN, foreign, record(), keep_for=HOUR)
            assert Written.ENDED is await store.delete(ANN, foreign, "zones", None)
        stranger = Owner("ipc", "nobody@example.com")
        assert Written.ENDED is await store.put(stranger, ann.id, record(), keep_for=HOUR)

        for owner in (ANN, BOB, stranger):
            assert {} == held(await store.open(owner))

    # -- many at once -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("seed", range(3))
    async def test_in_a_storm_nothing_comes_back_and_nothing_goes_astray(
        self, store: Store, seed: int
    ) -> None:
        """Whoever opens after a clear returned sees nothing from before it, and never what is another's."""
        storm = _Storm(store, seed)

        await asyncio.gather(*(storm.work(number) for number in range(24)))

        assert storm.applied > 0
        await storm.look_at_all()
        await asyncio.gather(*(store.clear(owner) for owner in storm.owners))
        for owner in storm.owners:
            assert {} == held(await store.open(owner))

    async def test_who_gives_up_waiting_harms_nobody(self, store: Store) -> None:
        """What they asked for may be done or not; the store goes on."""
        session = await store.open(ANN)
        for number in range(20):
            mine = record(arguments=b"%d" % number)
            tasks = [
                asyncio.create_task(store.open(BOB)),
                asyncio.create_task(store.put(ANN, session.id, mine, keep_for=HOUR)),
                asyncio.create_task(store.delete(ANN, session.id, "notes", None)),
                asyncio.create_task(store.clear(Owner("ipc", "carl"))),
            ]
            await asyncio.sleep(0)  # noqa: TID251 - gives way; no time is waited for
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        assert Written.APPLIED is await store.put(ANN, session.id, record(), keep_for=HOUR)
        assert b"[1]" == held(await store.open(ANN))["zones", b""]

    # -- the end ----------------------------------------------------------------------------------------------------

    async def test_a_closed_store_fails_every_call_and_closes_again(self, open_store: OpenStore) -> None:
        """With `StoreFailed`, so that a cache goes on without it."""
        store = await opened(open_store)
        session = await store.open(ANN)
        await store.aclose()
        await store.aclose()

        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.open(ANN),
            lambda: store.put(ANN, session.id, record(), keep_for=HOUR),
            lambda: store.delete(ANN, session.id, "zones", None),
            lambda: store.forget("ipc", "zones"),
            lambda: store.clear(ANN),
            lambda: store.clear_all("ipc"),
        ]
        for call in calls:
            with pytest.raises(StoreFailed):
                await call()
        await store.aclose()

    async def test_what_is_under_way_is_written_before_the_end(self, open_store: OpenStore) -> None:
        """A close waits for what was asked before it."""
        store = await opened(open_store)
        session = await store.open(ANN)
        puts = [
            asyncio.create_task(store.put(ANN, session.id, record(arguments=b"%d" % number), keep_for=HOUR))
            for number in range(50)
        ]
        await asyncio.sleep(0)  # noqa: TID251 - gives way; no time is waited for
        await asyncio.gather(store.aclose(), store.aclose())

        assert {Written.APPLIED} == set(await asyncio.gather(*puts))


class DurableStoreContract(StoreContract):
    """What a store promises that still holds everything when it has been closed and is opened again."""

    async def test_what_was_stored_outlives_the_store(self, open_store: OpenStore, advance: Advance) -> None:
        """Sessions, entries, ages, floors and clears."""
        store = await opened(open_store)
        ann, bob, other = [await store.open(owner) for owner in (ANN, BOB, ELSEWHERE)]
        await store.put(ANN, ann.id, record(body=b"ann's", age=10.0), keep_for=LONG)
        await store.put(ANN, ann.id, record("short"), keep_for=60.0)
        await advance(50.0)
        await store.delete(ANN, ann.id, "notes", b"")
        await store.delete(ANN, ann.id, "plans", None)
        await store.forget("ipc", "roles")
        await store.put(BOB, bob.id, record(), keep_for=LONG)
        await store.clear(BOB)
        await store.aclose()
        await advance(25.0)

        store = await opened(open_store)
        try:
            back = await store.open(ANN)
            assert ann.id == back.id
            assert {("zones", b""): b"ann's"} == held(back)
            assert 85.0 == pytest.approx(back.records[0].age, abs=1.0)
            for resource in ("notes", "plans", "roles"):
                late = record(resource, age=30.0)
                assert Written.OVERTAKEN is await store.put(ANN, ann.id, late, keep_for=LONG)
            assert Written.ENDED is await store.put(BOB, bob.id, record(), keep_for=LONG)
            assert bob.id != (await store.open(BOB)).id
            assert other.id == (await store.open(ELSEWHERE)).id
        finally:
            await store.aclose()


class _Storm:
    """Tasks that open, put, delete and clear a few owners at random and check all that they are brought.

    Each body says whose it is and under which session it was put.
    """

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.owners = [Owner("ipc", f"user {number}") for number in range(6)]
        self.ended: dict[Owner, set[bytes]] = {owner: set() for owner in self.owners}
        self.applied = 0

    async def work(self, number: int) -> None:
        """Be one of the tasks."""
        draw = random.Random(self.seed * 1_000 + number)
        for _ in range(20):
            owner = draw.choice(self.owners)
            ended = set(self.ended[owner])
            session = await self.store.open(owner)
            assert session.id not in ended, "a session that was cleared came back"
            self.check(owner, session)
            for _ in range(draw.randrange(4)):
                written = await self.store.put(
                    owner,
                    session.id,
                    record(
                        draw.choice(("zones", "notes")), b"%d" % draw.randrange(3), self.body(owner, session)
                    ),
                    keep_for=HOUR,
                )
                assert not (written is Written.APPLIED and session.id in ended)
                self.applied += written is Written.APPLIED
            if draw.random() < 0.2:
                await self.store.delete(owner, session.id, "zones", draw.choice((None, b"1")))
            if draw.random() < 0.3:
                known = session.id
                await self.store.clear(owner)
                self.ended[owner].add(known)

    async def look_at_all(self) -> None:
        """Check what is left."""
        for owner in self.owners:
            ended = set(self.ended[owner])
            session = await self.store.open(owner)
            assert session.id not in ended
            self.check(owner, session)

    def body(self, owner: Owner, session: StoredSession) -> bytes:
        return f"{owner.user} {session.id.hex()}".encode()

    def check(self, owner: Owner, session: StoredSession) -> None:
        assert session.rejected == 0
        for body in held(session).values():
            assert self.body(owner, session) == body


async def opened(open_store: OpenStore) -> Store:
    """Return the store that a fixture opens, whether it has to be awaited or not."""
    store = open_store()
    return await store if inspect.isawaitable(store) else store
