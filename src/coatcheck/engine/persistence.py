"""Keeps a store in step with memory: brings sessions in, writes entries behind, clears, and goes on without it.

A session in memory holds all that its stored copy holds. So one read brings a session in whole, and what memory drops
for good, the store drops, too. A write that is not known to be applied leaves the copy older than memory, perhaps older
than a revocation: then its user is *distrusted*, and nothing of theirs is read until a clear of theirs is applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from typing import TYPE_CHECKING, Any, Final

from coatcheck.engine.entry import NEVER, PER_CALLER, Entry
from coatcheck.engine.guarded import GuardedStore
from coatcheck.engine.outbox import Delete, Outbox, Put
from coatcheck.engine.policy import JITTER_STEPS, Freshness, death, judge
from coatcheck.engine.repairs import Repairs
from coatcheck.engine.stats import Removal, StoreStats
from coatcheck.engine.store import Owner, Record, Written
from coatcheck.errors import BadUpstreamBody, StoreFailed

if TYPE_CHECKING:
    import random
    from collections import deque
    from collections.abc import Coroutine, Iterable

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Catalog, Resource
    from coatcheck.engine.home import Home
    from coatcheck.engine.policy import Rule
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.store import Store, StoredSession

OPERATION_SECONDS: Final = 0.25
"""How long a get waits for the store, and a write may take."""

CLOSE_SECONDS: Final = 5.0
"""How long a close waits for what is still to be written."""

# Records decoded between two looks at what else the loop has to do.
SLICE = 50


class Persistence:
    """What leads from the memory of one cache to its store, and back."""

    def __init__(
        self, store: Store, *, catalog: Catalog[Any], sessions: Sessions, home: Home, rules: list[Rule], clock: Clock,
        rng: random.Random,
    ) -> None:  # fmt: skip
        self._store = GuardedStore(store, clock)
        self._catalog = catalog.name
        self._resources = {resource.signature: resource for resource in catalog if not resource.derived}
        self._sessions = sessions
        self._home = home
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._repairs = Repairs(self._store, catalog.name, home=home, clock=clock, repaired=self._rewrite)
        # Stored entries whose loads began before this were dropped for every user.
        self._floors: dict[int, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = self._restored = self._rejected = 0
        self._written = dict.fromkeys(Written, 0)

    def stats(self) -> StoreStats:
        """Return what was counted."""
        return StoreStats(
            sessions_opened=self._opened,
            entries_restored=self._restored,
            entries_rejected=self._rejected,
            writes={end.value: number for end, number in self._written.items()},
            writes_waiting=sum(
                len(state.outbox.writes)
                for state in list(self._sessions.states.values())
                if state.outbox is not None and state.outbox.writes is not None
            ),
            failures=self._store.failures,
            bypassed=self._store.bypassed,
            distrusted_users=self._repairs.users(),
            distrusts_everyone=self._repairs.everyone(),
        )

    # -- reading ----------------------------------------------------------------------------------------------------

    async def restore(self, state: State) -> None:
        """Bring into memory what is stored of a session, once; a store that fails brings nothing.

        Cancelling who waits for it touches nobody else.
        """
        outbox = state.outbox
        if outbox is not None and outbox.restored:
            return
        with self._home.step:
            if state.closed:
                return
            if state.outbox is None:
                state.outbox = Outbox()
            outbox = state.outbox
            if not outbox.restored and not self._repairs.trusted(state.user):
                outbox.restored = True
            if outbox.restored:
                return
            if outbox.opening is None:
                outbox.opening = self._spawn(self._bring(state, outbox))
            opening = outbox.opening
        await asyncio.wait({opening})

    async def _bring(self, state: State, outbox: Outbox) -> None:
        stored: StoredSession | None = None
        found: list[Put] = []
        bad: list[Delete] = []
        try:
            stored = await self._store.read(
                lambda store: store.open(self._owner(state.user)), seconds=OPERATION_SECONDS
            )
            await self._take_up(stored.records, found, bad)
        except StoreFailed:
            pass  # counted there; the upstream is asked instead
        with self._home.lock:
            if outbox is not state.outbox or state.closed:
                return
            outbox.opening = None
            outbox.restored = True
            if stored is None or not self._repairs.trusted(state.user):
                return
            self._opened += 1
            self._rejected += stored.rejected + len(bad)
            outbox.id = stored.id
            for each in found:
                forgotten = each.entry.started <= self._floors.get(each.resource.index, NEVER)
                if state.entry(each.key) is None and not forgotten:
                    self._restored += 1
                    self._sessions.keep(state, each.resource, each.key, each.entry, stored=True)
            for delete in bad:
                self._add(state, delete)

    async def _take_up(self, records: Iterable[Record], found: list[Put], bad: list[Delete]) -> None:
        """Sort stored entries into those that may be served and those that are none of ours any more."""
        arrived = self._clock.monotonic()
        for number, record in enumerate(records):
            resource = self._resources.get(record.resource)
            if resource is None or (record.arguments and not resource.parameters):
                continue  # of another version of the program: it goes when its time has come
            key = resource.key + record.arguments.decode("latin-1")
            try:
                body, value = resource.codec.restore(record.body)
            except BadUpstreamBody:
                bad.append(Delete(resource, key, arrived))
                continue
            entry = Entry(
                until=NEVER,
                value=value if resource.codec.shared else PER_CALLER,
                body=body,
                started=arrived - max(record.age, 0.0),
                jitter=self._rng.randrange(JITTER_STEPS + 1),
            )
            if judge(self._rules[resource.index], entry.started, entry.jitter, arrived) is not Freshness.DEAD:
                found.append(Put(resource, key, entry))
            if number % SLICE == SLICE - 1:
                await self._clock.sleep(0)

    # -- writing ----------------------------------------------------------------------------------------------------

    def kept(self, state: State, resource: Resource[Any], key: str, entry: Entry) -> None:
        """Store an entry that has come into memory. Within a step, as all below."""
        self._add(state, Put(resource, key, entry))

    def dropped(self, state: State, resource: Resource[Any], key: str | None) -> None:
        """Remove from the store what was dropped for good: one entry, or all of a resource."""
        self._add(state, Delete(resource, key, self._clock.monotonic()))

    def _add(self, state: State, write: Put | Delete) -> None:
        if state.closed or not self._repairs.trusted(state.user):
            return
        if state.outbox is None:
            state.outbox = Outbox()
        writes = state.outbox.add(write)
        if writes is not None:
            self._spawn(self._drain(state, state.outbox, writes))

    async def _drain(self, state: State, outbox: Outbox, writes: deque[Put | Delete]) -> None:
        """Apply a session's writes, one after the other, until there are none or they are abandoned."""
        try:
            while outbox.writes is writes and writes:
                write = writes[0]
                written = await self._apply(state, outbox, write)
                with self._home.lock:
                    if written is not None:
                        self._written[written] += 1
                    if outbox.writes is not writes:
                        break
                    writes.popleft()
                    if written is Written.ENDED:
                        # Cleared by somebody else: what is in memory went with it.
                        outbox.abandon()
                        self._sessions.close(state, Removal.CLEARED)
        except (StoreFailed, asyncio.CancelledError) as error:
            with self._home.lock:
                if outbox.writes is writes:
                    outbox.abandon()
                    # Nobody but the end of its loop cancels this.
                    if isinstance(error, StoreFailed):
                        self._repairs.begin(state.user)
                    else:
                        self._repairs.note(state.user)
            if isinstance(error, asyncio.CancelledError):
                raise
        with self._home.lock:
            if outbox.writes is writes:
                outbox.writes = None
                self._sessions.make_room()

    async def _apply(self, state: State, outbox: Outbox, write: Put | Delete) -> Written | None:
        """Apply one write; None if nothing is left to be written."""
        if isinstance(write, Put) and not state.closed and state.entry(write.key) is not write.entry:
            return None  # something younger is in its place, and has a write of its own
        owner = self._owner(state.user)
        if outbox.id is None:
            writes = outbox.writes
            opened = await self._store.write(lambda store: store.open(owner), seconds=OPERATION_SECONDS)
            if outbox.writes is not writes:
                return None  # abandoned meanwhile
            outbox.id = opened.id
        session = outbox.id
        now = self._clock.monotonic()
        signature = write.resource.signature
        if isinstance(write, Put):
            record = Record(signature, _arguments(write), write.entry.body, now - write.entry.started)
            keep_for = death(self._rules[write.resource.index], write.entry.started) - now
            if keep_for <= 0:
                return None
            return await self._store.write(
                lambda store: store.put(owner, session, record, keep_for=keep_for), seconds=OPERATION_SECONDS
            )
        arguments = None if write.key is None else _arguments(write)
        return await self._store.write(
            lambda store: store.delete(owner, session, signature, arguments, age=now - write.since),
            seconds=OPERATION_SECONDS,
        )

    def _rewrite(self, user: str | None) -> None:
        """Store anew what memory holds of a user whose copy had to be cleared; of everyone, what comes from now on."""
        if user is None:
            self._abandon_all()
            return
        state = self._sessions.states.get(user)
        if state is None or state.outbox is None:
            return
        state.outbox.abandon()
        for key, entry in state.entries():
            self._add(state, Put(self._sessions.resource(key), key, entry))

    # -- ending -----------------------------------------------------------------------------------------------------

    def clear(self, user: str, state: State | None) -> asyncio.Future[bool]:
        """Begin to end a user's stored session; from now on nothing of it is read.

        Returns what resolves to whether the store has applied it; if it has not, it is repeated until it has.
        """
        if state is not None and state.outbox is not None:
            state.outbox.abandon()
        return self._repairs.ask(user)

    def clear_all(self) -> asyncio.Future[bool]:
        """Do the same for everyone."""
        self._abandon_all()
        return self._repairs.ask(None)

    def forgetting(self, resources: Iterable[Resource[Any]]) -> float:
        """Keep no stored entry of these that is older than now; return now."""
        now = self._clock.monotonic()
        for resource in resources:
            self._floors[resource.index] = now
        return now

    async def forget(self, resources: Iterable[Resource[Any]], since: float) -> None:
        """Remove these resources' entries of every user from the store, if their loads began before *since*."""
        try:
            for resource in resources:
                age = self._clock.monotonic() - since
                await self._store.write(
                    functools.partial(_forget, self._catalog, resource.signature, age),
                    seconds=OPERATION_SECONDS,
                )
        except StoreFailed:
            with self._home.step:
                self._repairs.begin(None)

    async def settled(self) -> None:
        """Return when nothing is being brought in or written."""
        while True:
            with self._home.step:
                tasks = list(self._tasks)
            if not tasks:
                return
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Write what is to be written, try once more what failed, and close the store."""
        patience = asyncio.ensure_future(self._clock.sleep(CLOSE_SECONDS))
        work = asyncio.ensure_future(self._finish())
        await asyncio.wait({patience, work}, return_when=asyncio.FIRST_COMPLETED)
        patience.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
        self._repairs.stop()
        with contextlib.suppress(StoreFailed):  # it is counted; what it holds open is its own affair now
            await self._store.aclose(CLOSE_SECONDS)

    async def _finish(self) -> None:
        await self.settled()
        await self._repairs.finish()

    def moved(self, states: Iterable[State]) -> None:
        """Begin anew at another home: what was being written at the former one may be written or not."""
        self._tasks = set()
        self._store.moved()
        for state in states:
            outbox = state.outbox
            if outbox is None:
                continue
            outbox.opening = None
            if outbox.writes is not None:
                self._repairs.note(state.user)
                outbox.abandon()
        self._repairs.moved()

    def _abandon_all(self) -> None:
        for state in self._sessions.states.values():
            if state.outbox is not None:
                state.outbox.abandon()

    def _owner(self, user: str) -> Owner:
        return Owner(self._catalog, user)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._home.loop.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _forget(catalog: str, resource: str, age: float, store: Store) -> None:
    await store.forget(catalog, resource, age=age)


def _arguments(write: Put | Delete) -> bytes:
    assert write.key is not None
    return write.key.removeprefix(write.resource.key).encode("latin-1")
