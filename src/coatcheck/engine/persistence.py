"""Keeps a store beneath the memory of a cache: brings sessions in, clears them there, and goes on without it.

A session in memory holds all that its stored copy holds. So one read brings a session in whole, and what memory drops
for good, the store drops, too. A write that is not known to be applied leaves the copy older than memory, perhaps older
than a revocation: then its user is *distrusted*, and nothing of theirs is read until a clear of theirs is applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any, Final

from coatcheck.engine.entry import NEVER, PER_CALLER, Entry
from coatcheck.engine.guarded import GuardedStore, ended_in_time
from coatcheck.engine.outbox import Outbox, Put
from coatcheck.engine.policy import JITTER_STEPS, Freshness, judge
from coatcheck.engine.stats import StoreStats
from coatcheck.engine.store import Owner, Record, checked, claim, is_closed
from coatcheck.engine.write_behind import WriteBehind, under
from coatcheck.errors import BadUpstreamBody, StoreFailed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Catalog, Resource
    from coatcheck.engine.home import Home
    from coatcheck.engine.policy import Rule
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.store import Store, StoredSession

CLOSE_SECONDS: Final = 5.0
"""How long a close waits for what is still to be written."""

# Records decoded between two looks at what else the loop has to do.
SLICE = 50


class Persistence:
    """What leads from the memory of one cache to its store, and back."""

    def __init__(
        self, store: Store, *, catalog: Catalog[Any], sessions: Sessions, home: Home, rules: list[Rule], clock: Clock,
        rng: random.Random, authority: Callable[[str], str | None] | None,
    ) -> None:  # fmt: skip
        if is_closed(store):
            raise StoreFailed("the store is closed: a cache closes its store, and the next one needs another")
        if claim(store):
            # It was opened in this process: in a child it could not be asked, and a clear would not reach it.
            home.used = True
        self._store = GuardedStore(store, clock)
        self._catalog = catalog.name
        self._resources = {resource.signature: resource for resource in catalog if not resource.derived}
        self._sessions = sessions
        self._home = home
        self._rules = rules
        self._clock = clock
        self._rng = rng
        self._writes = WriteBehind(
            self._store, catalog=catalog.name, sessions=sessions, home=home, rules=rules, clock=clock,
            authority=authority,
        )  # fmt: skip
        self._repairs = self._writes.repairs
        # From here on memory tells what changes in it.
        sessions.copied = self._writes
        # Stored entries whose loads began by then were dropped for every user.
        self._floors: dict[int, float] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._forgetting: set[asyncio.Task[None]] = set()
        self._opened = self._restored = self._rejected = 0

    def stats(self) -> StoreStats:
        """Return what was counted."""
        return StoreStats(
            sessions_opened=self._opened,
            entries_restored=self._restored,
            entries_rejected=self._rejected,
            writes={end.value: number for end, number in self._writes.written.items()},
            writes_waiting=self._writes.waiting(),
            failures=self._store.failures,
            bypassed=self._store.bypassed,
            distrusted_users=self._repairs.users(),
            distrusts_everyone=self._repairs.everyone(),
        )

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
            outbox = self._writes.outbox(state)
            if outbox.authority is None or not self._repairs.trusted(state.user):
                outbox.restored = True
            if outbox.restored:
                return
            if outbox.opening is None:
                outbox.opening = self._open(state, outbox)
            opening = outbox.opening
        await asyncio.wait({opening})

    async def caught_up(self, state: State) -> None:
        """Return when what is waiting to be written of a session now has been, or was given up."""
        await self._writes.caught_up(state)

    def clear(self, user: str, state: State | None) -> asyncio.Future[bool]:
        """Begin to end a user's stored session; from now on nothing of it is read. Within a step.

        Returns what resolves to whether the store has applied it; if it has not, it is repeated until it has.
        """
        if state is not None and state.outbox is not None:
            state.outbox.abandon()
        return self._repairs.ask(user)

    def clear_all(self) -> asyncio.Future[bool]:
        """Do the same for everyone."""
        self._writes.abandon_all()
        return self._repairs.ask(None)

    def forgetting(self, resources: Iterable[Resource[Any]]) -> float:
        """Bring in no stored entry of these that was loaded by now; return now. Within a step."""
        now = self._clock.monotonic()
        for resource in resources:
            self._floors[resource.index] = now
        return now

    async def forget(self, resources: Iterable[Resource[Any]], since: float) -> None:
        """Remove these resources' entries of every user from the store, if their loads had begun by *since*.

        Goes on behind the caller's back if the store takes its time. What cannot be reached is cleared.
        """
        work = self._forget([resource.signature for resource in resources], since)
        forgetting = self._home.loop.create_task(work, context=contextvars.Context())
        self._forgetting.add(forgetting)
        forgetting.add_done_callback(self._forgetting.discard)
        await ended_in_time(forgetting, self._clock)

    async def settled(self) -> None:
        """Return when nothing is being brought in or written."""
        while True:
            with self._home.step:
                tasks = [*self._opening, *self._forgetting]
            if not tasks:
                break
            await asyncio.wait(tasks)
        await self._writes.settled()

    def moved(self, states: Iterable[State]) -> None:
        """Begin anew at another home. Within a step."""
        self._opening = set()
        if self._forgetting:
            # Nobody knows how far they came.
            self._forgetting = set()
            self._repairs.note(None)
        self._store.moved()
        for state in states:
            if state.outbox is not None:
                state.outbox.opening = None
        self._writes.moved()

    async def aclose(self) -> None:
        """Write what is to be written, try once more to clear what could not be cleared, and close the store."""
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

    def _open(self, state: State, outbox: Outbox) -> asyncio.Task[None]:
        task = self._home.loop.create_task(self._bring(state, outbox), context=contextvars.Context())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return task

    async def _bring(self, state: State, outbox: Outbox) -> None:
        owner = Owner(self._catalog, state.user)
        stored: StoredSession | None = None
        found: list[Put] = []
        bad: list[tuple[Resource[Any], str]] = []
        asked = NEVER

        async def read(store: Store) -> StoredSession:
            nonlocal asked
            asked = self._clock.monotonic()
            return checked(await store.open(owner))

        try:
            stored = await self._store.read(read)
            await self._take_up(stored.records, asked, outbox, found, bad)
        except StoreFailed:
            pass  # counted there; the upstream is asked instead
        except asyncio.CancelledError:
            # Nobody but the end of its loop cancels this. A task that has ended so refers to what it worked on: neither
            # may refer to it.
            with self._home.lock:
                if outbox.opening is asyncio.current_task():
                    outbox.opening = None
            raise
        with self._home.lock:
            if outbox is not state.outbox or state.closed:
                return
            abandoned = outbox.restored
            outbox.opening = None
            outbox.restored = True
            if stored is not None and not abandoned and self._repairs.trusted(state.user):
                self._take_in(state, outbox, stored, found, bad)
            # Those who waited for it may have left: then nothing else lets it make room.
            self._sessions.make_room()

    def _take_in(
        self,
        state: State,
        outbox: Outbox,
        stored: StoredSession,
        found: list[Put],
        bad: list[tuple[Resource[Any], str]],
    ) -> None:
        self._opened += 1
        self._rejected += stored.rejected + len(bad)
        expected = under(outbox)
        if not all(record.arguments.startswith(expected) for record in stored.records):
            # Loaded with other rights, or from elsewhere.
            self._repairs.begin(state.user)
            outbox.abandon()
            return
        outbox.id = stored.id
        for each in found:
            forgotten = each.entry.started <= self._floors.get(each.resource.index, NEVER)
            if state.entry(each.key) is None and not forgotten:
                self._restored += 1
                self._sessions.keep(state, each.resource, each.key, each.entry, stored=True)
        for resource, key in bad:
            self._writes.dropped(state, resource, key)
        self._sessions.make_room(keep=state)

    async def _take_up(
        self,
        records: Iterable[Record],
        asked: float,
        outbox: Outbox,
        found: list[Put],
        bad: list[tuple[Resource[Any], str]],
    ) -> None:
        """Sort stored entries into those that may be served and those that are none of ours any more."""
        arrived = self._clock.monotonic()
        prefix = under(outbox)
        for number, record in enumerate(records):
            resource = self._resources.get(record.resource)
            arguments = record.arguments.removeprefix(prefix)
            if resource is None or (arguments and not resource.parameters):
                continue  # of another version of the program: it goes when its time has come
            key = resource.key + arguments.decode("latin-1")
            try:
                body, value = resource.codec.restore(record.body)
            except BadUpstreamBody:
                bad.append((resource, key))
                continue
            entry = Entry(
                value=value if resource.codec.shared else PER_CALLER,
                body=body,
                # The answer may have taken its time: what is stored may become older by that, and never younger.
                started=asked - max(record.age, 0.0),
                jitter=self._rng.randrange(JITTER_STEPS + 1),
            )
            if judge(self._rules[resource.index], entry.started, entry.jitter, arrived) is not Freshness.DEAD:
                found.append(Put(resource, key, entry))
            if number % SLICE == SLICE - 1:
                await self._clock.sleep(0)

    async def _forget(self, resources: list[str], since: float) -> None:
        try:
            for resource in resources:

                async def forget(store: Store, resource: str = resource) -> None:
                    await store.forget(self._catalog, resource, age=self._clock.monotonic() - since)

                await self._store.write(forget)
        except StoreFailed:
            with self._home.lock:
                if asyncio.current_task() in self._forgetting:
                    self._repairs.begin(None)
        except asyncio.CancelledError:
            # Nobody but the end of its loop cancels this.
            with self._home.lock:
                if asyncio.current_task() in self._forgetting:
                    self._repairs.note(None)
            raise
