"""Writes what changes in memory to the store, behind the callers' backs and in order."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from coatcheck.engine.guarded import ended_in_time
from coatcheck.engine.keys import encode
from coatcheck.engine.outbox import Delete, Outbox, Put
from coatcheck.engine.policy import death
from coatcheck.engine.repairs import Repairs, longer
from coatcheck.engine.stats import Removal
from coatcheck.engine.store import Owner, Record, Written, checked
from coatcheck.errors import StoreFailed

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine

    from coatcheck.clock import Clock
    from coatcheck.engine.catalog import Resource
    from coatcheck.engine.entry import Entry
    from coatcheck.engine.guarded import GuardedStore
    from coatcheck.engine.home import Home
    from coatcheck.engine.policy import Rule
    from coatcheck.engine.sessions import Sessions
    from coatcheck.engine.state import State
    from coatcheck.engine.store import Store, StoredSession


class WriteBehind:
    """The writes of one cache: those of a session one after the other, sessions side by side.

    Args:
        authority: as of `SessionCache`.

    Attributes:
        repairs: the clears that a failed write leaves behind, and those that users ask for.
        written: how writes ended.
    """

    def __init__(
        self, store: GuardedStore, *, catalog: str, sessions: Sessions, home: Home, rules: list[Rule], clock: Clock,
        authority: Callable[[str], str | None] | None,
    ) -> None:  # fmt: skip
        self._store = store
        self._catalog = catalog
        self._sessions = sessions
        self._home = home
        self._rules = rules
        self._clock = clock
        self._authority = authority
        self._tasks: set[asyncio.Task[None]] = set()
        self.repairs = Repairs(store, catalog, home=home, clock=clock, repaired=self._rewrite)
        self.written = dict.fromkeys(Written, 0)

    def kept(self, state: State, resource: Resource[Any], key: str, entry: Entry) -> None:
        """Store an entry that has come into memory. Within a step."""
        self._add(state, Put(resource, key, entry))

    def dropped(self, state: State, resource: Resource[Any], key: str | None) -> None:
        """Remove from the store what was dropped for good: one entry, or all of a resource. Within a step."""
        self._add(state, Delete(resource, key, self._clock.monotonic()))

    def outbox(self, state: State) -> Outbox:
        """Return what leads from a session to the store."""
        if state.outbox is None:
            authority: str | None = ""
            if self._authority is not None:
                try:
                    authority = self._authority(state.user)
                    # Whatever is no text, or cannot be written as one, stands for none.
                    authority = authority if isinstance(authority, str) and encode(authority) else None
                except Exception:  # noqa: BLE001 - it is the caller's own, and connect will say what is wrong
                    authority = None
            state.outbox = Outbox(authority=authority)
        return state.outbox

    def waiting(self) -> int:
        """Return how many writes are not applied yet."""
        outboxes = [state.outbox for state in list(self._sessions.states.values())]
        return sum(len(outbox.writes) for outbox in outboxes if outbox is not None and outbox.writes)

    def abandon_all(self) -> None:
        """Give up all writes: everyone's copy is about to be cleared, or has been. Within a step."""
        for state in self._sessions.states.values():
            if state.outbox is not None:
                state.outbox.abandon()

    def moved(self) -> None:
        """Go on at another home: what was being written at the former one may be written or not."""
        self._tasks = set()
        for state in self._sessions.states.values():
            outbox = state.outbox
            if outbox is not None and outbox.writes is not None:
                self.repairs.note(state.user)
                outbox.abandon()
        self.repairs.moved()

    async def caught_up(self, state: State) -> None:
        """Return when what is waiting to be written of a session now has been, or was given up; or after `READ_SECONDS`."""
        draining = None if state.outbox is None else state.outbox.draining
        if draining is not None:
            await ended_in_time(draining, self._clock)

    async def settled(self) -> None:
        """Return when nothing is being written."""
        while True:
            with self._home.step:
                tasks = list(self._tasks)
            if not tasks:
                return
            await asyncio.wait(tasks)

    def _add(self, state: State, write: Put | Delete) -> None:
        if state.closed or not self.repairs.trusted(state.user):
            return
        outbox = self.outbox(state)
        if outbox.authority is None:
            if not outbox.behind:
                # What may be stored from other days is older than memory from now on, perhaps older than a revocation.
                outbox.behind = True
                self.repairs.begin(state.user)
            return
        writes = outbox.add(write)
        if writes is not None:
            outbox.draining = self._spawn(self._drain(state, outbox, writes))

    async def _drain(self, state: State, outbox: Outbox, writes: deque[Put | Delete]) -> None:
        """Apply a session's writes until there are none or they are abandoned."""
        try:
            while outbox.writes is writes and writes:
                write = writes[0]
                written = await self._apply(state, outbox, write)
                with self._home.lock:
                    if written is not None:
                        self.written[written] += 1
                        outbox.pause = 0.0
                    if outbox.writes is not writes:
                        break
                    writes.popleft()
                    if written is Written.ENDED:
                        outbox.abandon()
                        if self._store.shared:
                            # Cleared by somebody else: what is in memory went with it.
                            self._sessions.close(state, Removal.CLEARED)
        except StoreFailed:
            with self._home.lock:
                if outbox.writes is writes:
                    # A store that can be cleared and not be written would otherwise be asked for both without end.
                    self.repairs.begin(state.user, delay=outbox.pause)
                    outbox.pause = longer(outbox.pause)
                    outbox.abandon()
        except asyncio.CancelledError:
            # Nobody but the end of its loop cancels this.
            with self._home.lock:
                if outbox.writes is writes:
                    self.repairs.note(state.user)
                    outbox.abandon()
            raise
        self._rest(outbox, writes)

    def _rest(self, outbox: Outbox, writes: deque[Put | Delete]) -> None:
        with self._home.lock:
            if outbox.writes is writes:
                outbox.writes = outbox.draining = None
            if self._home.is_here():
                # It may have been what kept its session when another had to make room.
                self._sessions.make_room()

    async def _apply(self, state: State, outbox: Outbox, write: Put | Delete) -> Written | None:
        """Apply one write; None if nothing is left to be written."""
        if isinstance(write, Put) and not state.closed and state.entry(write.key) is not write.entry:
            return None  # something younger is in its place, and has a write of its own
        owner = Owner(self._catalog, state.user)
        if outbox.id is None:
            writes = outbox.writes

            async def open_(store: Store) -> StoredSession:
                return checked(await store.open(owner))

            opened = await self._store.write(open_)
            if outbox.writes is not writes:
                return None  # abandoned meanwhile
            outbox.id = opened.id
        session = outbox.id
        # It may have to wait for its turn: how old something is, is told when the store is asked.
        age = self._age
        signature, rule = write.resource.signature, self._rules[write.resource.index]
        if isinstance(write, Put):
            arguments, entry = arguments_of(write.resource, write.key, outbox), write.entry
            lifetime = death(rule, entry.started) - entry.started
            if age(entry.started) >= lifetime:
                return None

            async def put(store: Store) -> Written:
                record = Record(signature, arguments, entry.body, age(entry.started))
                return Written(await store.put(owner, session, record, keep_for=lifetime - record.age))

            return await self._store.write(put)
        which = None if write.key is None else arguments_of(write.resource, write.key, outbox)

        async def delete(store: Store) -> Written:
            return Written(await store.delete(owner, session, signature, which, age=age(write.since)))

        return await self._store.write(delete)

    def _age(self, since: float) -> float:
        return self._clock.monotonic() - since

    def _rewrite(self, user: str | None) -> None:
        """Store anew what memory holds of a user whose copy had to be cleared; of everyone, what comes from now on."""
        if user is None:
            self.abandon_all()
        state = None if user is None else self._sessions.states.get(user)
        if state is not None and state.outbox is not None:
            state.outbox.abandon()
            for key, entry in state.entries():
                self._add(state, Put(self._sessions.resource(key), key, entry))
        # Writes that were given up may have been what kept sessions when others had to make room.
        self._sessions.make_room()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._home.loop.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def under(outbox: Outbox) -> bytes:
    """Return what the stored arguments of a session's entries begin with: the authority that they were loaded under."""
    return encode(outbox.authority)


def arguments_of(resource: Resource[Any], key: str, outbox: Outbox) -> bytes:
    """Return the stored arguments of the entry that memory files under *key*."""
    return under(outbox) + key.removeprefix(resource.key).encode("latin-1")
